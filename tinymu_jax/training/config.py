"""Configs of training runs as frozen dataclasses, and `load_config` for config files."""

import runpy
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tinymu_jax.data.config import AugmentConfig
from tinymu_jax.errors import InputError, translate
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import (
    ComputeDtype,
    LoraConfig,
    MatpacConfig,
    Remat,
    SelfSupervisedConfig,
    TinyMUConfig,
)
from tinymu_jax.models.packing import PackingConfig


@dataclass(frozen=True)
class OptimConfig:
    """Adam with the published schedule; Muon for the matrices of `muon_params`."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    warmup_fraction: float = 0.05
    """Fraction of the steps with linear warmup; half a cosine follows."""
    hold_fraction: float = 0.0
    """Fraction of the steps at the peak, after warmup; 0 as published."""
    beta1: float = 0.9
    """Decay of the gradient's moving average."""
    beta2: float = 0.999
    """Decay of the squared gradient's moving average."""
    eps: float = 1e-8
    """Added to the root of the squared gradient's average."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) of `weight_decay_params`; 0 as published."""
    weight_decay_params: str = r".*/kernel|.*/embedding"
    """Regular expression for the paths of parameters with weight decay (full match)."""
    frozen_params: str = r"encoder/.*"
    """Regular expression for the paths of frozen parameters."""
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    """Learning rate multipliers by regular expressions of paths."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay of the encoder: the multiplier of each layer relative to the
    one above it; the embedding counts as the lowest layer (arXiv 2106.08254)."""
    muon_params: str | None = None
    """Regular expression for the paths of matrices that are trained with Muon (arXiv 2502.16982);
    it needs a fraction of Adam's steps when training from scratch."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon."""
    max_grad_norm: float | None = None
    """Gradients are clipped to this global norm; None: no clipping."""


@dataclass(frozen=True)
class InitConfig:
    """Initial parameters; what has no checkpoint is random."""

    checkpoint: str | None = None
    """A whole TinyMU: hub name, published .pt, or checkpoint folder. It decides the sizes."""
    encoder: str | None = None
    """A MATPAC or MATPAC++ encoder, from pre-training or from a TinyMU, if there is no
    `checkpoint`. It keeps its chunk length, unless `model.encoder.num_frames` is not the default:
    then positions are cut or added."""
    decoder: str | None = None
    """A SmolLM2 folder or hub name, or a TinyMU's, if there is no `checkpoint`."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, if the checkpoint has none."""
    seed: int = 0
    """Seed of random parameters, and of dropout."""


@dataclass(frozen=True)
class ReadConfig:
    """What is read, and in which order."""

    train: str = ""
    """A prepared data set (`tinymu data prepare`), or its URL on a bucket (gs://..., s3://...),
    which every host copies to local disk first."""
    validation: str | None = None
    """Data set of the validation loss."""
    epochs: int = 3
    """Passes over the data; 0: as many as `steps` needs."""
    seed: int = 0
    """Seed of shuffling, crops and augmentation."""
    threads: int = 8
    """Reader threads in each process."""
    prefetch: int = 2
    """Batches that are read ahead."""


@dataclass(frozen=True)
class DataConfig(ReadConfig):
    """Questions, or labels of clips."""

    packing: PackingConfig = field(default_factory=PackingConfig)
    """How questions are packed into rows, and rows into blocks."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Waveform augmentation; off as published."""
    labels: str | None = None
    """A csv of clips' labels: `file_name` and one column per category. If set, the encoder is
    trained to predict them, and questions are ignored."""


@dataclass(frozen=True)
class ComputeConfig:
    """How one step is computed."""

    blocks: int = 1
    """Blocks per step over all devices (batch size); a multiple of the data-parallel devices."""
    grad_accum_steps: int = 1
    """Parts that a step is computed in: less memory, same results."""
    encoder_dtype: ComputeDtype = "float32"
    """Dtype of the encoder's matmuls, and of everything in pre-training; bfloat16 accumulates in
    float32. Parameters and moments are always float32."""
    remat: Remat = "attention"
    """Gradient checkpointing of encoder and decoder; see `MatpacConfig`. `attention` is fastest for
    deep models, `none` for shallow ones, `full` needs the least memory."""


@dataclass(frozen=True)
class StepConfig(ComputeConfig):
    """How one step of fine-tuning is computed."""

    decoder_dtype: ComputeDtype = "float32"
    """Dtype of the decoder's matmuls; see `encoder_dtype`."""
    ignore_pad_labels: bool = True
    """Exclude every "!" of an answer from the loss, as published."""
    dropout: bool = True
    """Use dropout where the model has it (residual projector, LoRA)."""


@dataclass(frozen=True)
class LoopConfig:
    """Logging, validation and checkpoints; nothing here changes what is learnt."""

    log_every: int = 10
    """Steps between lines of metrics."""
    validate_every: int = 3000
    """Steps between validations; the last step is always validated."""
    save_every: int = 1000
    """Steps between checkpoints; validations and the last step are always saved."""
    max_to_keep: int = 2
    """Latest checkpoints to keep, beside the best one by validation."""
    tensorboard: bool = True
    """Write metrics for TensorBoard."""
    wandb: str | None = None
    """Weights & Biases project to log to; needs the wandb package."""
    stop_after: int | None = None
    """Save and stop after this step, as after a SIGTERM."""
    profile_start: int | None = None
    """First step of a profile, written to the run's folder."""
    profile_steps: int = 5
    """Steps of the profile."""


@dataclass(frozen=True)
class RunConfig:
    """Config of any run: everything that its results depend on."""

    output: str = ""
    """Folder of the run, visible to all processes."""
    checkpoints: str | None = None
    """Folder or gs:// address of the checkpoints, visible to all processes; None: in `output`."""
    data: ReadConfig = field(default_factory=ReadConfig)
    """Data sets."""
    step: ComputeConfig = field(default_factory=ComputeConfig)
    """How a step is computed."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and schedule."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How devices share the work."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Logging, validation and checkpoints."""
    steps: int = 0
    """Steps of the run and of its schedule; 0: all epochs."""
    overfit_batch: bool = False
    """Train on the first batch only, to check that the model can learn; needs `steps`."""

    def check(self) -> None:
        """Checks ranges of fields and combinations of them.

        Raises:
            InputError: a field is out of range, or fields contradict each other.
        """
        for name, (value, minimum) in self._minimums().items():
            if value is not None and not value >= minimum:
                raise InputError(f"{name} is {value}; give {minimum} or more")
        for holds, message in self._rules():
            if not holds:
                raise InputError(message)

    def _minimums(self) -> dict[str, tuple[float | None, float]]:
        """Returns (value, smallest allowed value) by option name."""
        return {
            "data.epochs": (self.data.epochs, 0 if self.steps else 1),
            "data.threads": (self.data.threads, 1),
            "data.prefetch": (self.data.prefetch, 1),
            "data.seed": (self.data.seed, 0),
            "step.blocks": (self.step.blocks, 1),
            "step.grad-accum-steps": (self.step.grad_accum_steps, 1),
            "loop.log-every": (self.loop.log_every, 1),
            "loop.validate-every": (self.loop.validate_every, 1),
            "loop.save-every": (self.loop.save_every, 1),
            "loop.max-to-keep": (self.loop.max_to_keep, 1),
            "loop.profile-steps": (self.loop.profile_steps, 1),
            "loop.stop-after": (self.loop.stop_after, 1),
            "loop.profile-start": (self.loop.profile_start, 1),
            "steps": (self.steps, 0),
            "optim.learning-rate": (self.optim.learning_rate, 0),
            "optim.weight-decay": (self.optim.weight_decay, 0),
            "optim.muon-learning-rate": (self.optim.muon_learning_rate, 0),
            "optim.layer-decay": (self.optim.layer_decay, 0),
        }

    def _rules(self) -> list[tuple[bool, str]]:
        """Returns (holds, error message) of each rule between fields."""
        optim, step = self.optim, self.step
        fractions = {
            "warmup-fraction": optim.warmup_fraction,
            "hold-fraction": optim.hold_fraction,
            "beta1": optim.beta1,
            "beta2": optim.beta2,
        }
        return [
            (
                optim.max_grad_norm is None or optim.max_grad_norm > 0,
                f"optim.max-grad-norm is {optim.max_grad_norm}; give a number above 0",
            ),
            *(
                (0 <= value < 1, f"optim.{name} is {value}; give a number from 0 to below 1")
                for name, value in fractions.items()
            ),
            (
                optim.warmup_fraction + optim.hold_fraction < 1,
                "optim.warmup-fraction and optim.hold-fraction are all of the run; lower one of "
                "them",
            ),
            (bool(self.output), "no output: name a folder for the run with --output"),
            (
                optim.muon_params is None or optim.learning_rate > 0,
                "optim.learning-rate is 0, and the rate of optim.muon-params is a multiple of it; "
                "raise it",
            ),
            (
                step.blocks % step.grad_accum_steps == 0,
                f"step.blocks {step.blocks} is not a multiple of step.grad-accum-steps "
                f"{step.grad_accum_steps}; choose numbers that divide evenly",
            ),
            (
                not self.overfit_batch or self.steps > 0,
                "overfit-batch has no end by itself; give --steps",
            ),
        ]


SET_BY_STEP = "compute_dtype and remat are set by step.*, not by model.*; set them there"


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run of fine-tuning, or of an encoder on labels (`tinymu train`)."""

    init: InitConfig = field(default_factory=InitConfig)
    """Initial parameters."""
    model: TinyMUConfig = field(default_factory=TinyMUConfig)
    """Sizes, unless `init.checkpoint` decides them."""
    lora: LoraConfig | None = None
    """LoRA of the decoder; freeze the rest with `optim.frozen-params`."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data sets, packing and augmentation."""
    step: StepConfig = field(default_factory=StepConfig)
    """How a step is computed."""

    def _minimums(self) -> dict[str, tuple[float | None, float]]:
        packing = {
            f"data.packing.{name.replace('_', '-')}": (value, int(name != "questions_per_group"))
            for name, value in vars(self.data.packing).items()
        }
        return {**super()._minimums(), "init.seed": (self.init.seed, 0), **packing}

    def _rules(self) -> list[tuple[bool, str]]:
        default, decoder = TinyMUConfig(), self.model.decoder
        unchanged = [
            self.model.ignore_pad_labels == default.ignore_pad_labels,
            decoder.lora is None,
            _same_compute(self.model.encoder, default.encoder),
            _same_compute(decoder, default.decoder),
        ]
        parts = self.init.encoder or self.init.decoder
        return [
            (
                all(unchanged),
                "compute_dtype, remat, ignore-pad-labels and lora are set by step.* and lora, not "
                "by model.*; set them there",
            ),
            *super()._rules(),
            (bool(self.data.train), "no data.train: name a prepared data set"),
            (
                self.init.checkpoint is None or not parts,
                "init.checkpoint is a whole model; leave init.encoder and init.decoder out, or "
                "set them to None",
            ),
        ]


def _same_compute(model: object, default: object) -> bool:
    return (model.compute_dtype, model.remat) == (default.compute_dtype, default.remat)


@dataclass(frozen=True)
class PretrainInitConfig:
    """Initial parameters; what has no checkpoint is random."""

    checkpoint: str | None = None
    """Student, predictor, heads and teacher of pre-training: a published .pt, a checkpoint folder
    or a run. It decides the sizes."""
    encoder: str | None = None
    """A MATPAC or MATPAC++ encoder, or that of a TinyMU, for student and teacher, if there is no
    `checkpoint`."""
    seed: int = 0
    """Seed of random parameters."""


@dataclass(frozen=True)
class CropsConfig(ReadConfig):
    """Crops of recordings for pre-training."""

    train: str = ""
    """A prepared data set that stores log_mel, or a folder of recordings."""
    clips: int = 32
    """Crops per block."""
    epochs: int = 0
    """Passes over the recordings, with new crops each time; 0: as many as `steps` needs."""


PRETRAINING = OptimConfig(
    learning_rate=3e-4,
    warmup_fraction=19_654 / 294_816,
    beta2=0.95,
    eps=1e-6,
    weight_decay=0.05,
    weight_decay_params=".*",
    frozen_params=r".*/pos_embed|encoder/log_mel/.*",
    max_grad_norm=3.0,
)
"""As published: AdamW, also on biases and norms."""

UNUSED = r"predictor/single/.*"
"""A layer in published checkpoints of several hypotheses that gets no gradient."""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """A run of self-supervised pre-training (`tinymu pretrain`)."""

    init: PretrainInitConfig = field(default_factory=PretrainInitConfig)
    """Initial parameters."""
    model: SelfSupervisedConfig = field(default_factory=SelfSupervisedConfig)
    """Sizes, unless `init.checkpoint` decides them, and the method."""
    data: CropsConfig = field(default_factory=CropsConfig)
    """Recordings."""
    step: ComputeConfig = field(default_factory=ComputeConfig)
    """How a step is computed."""
    optim: OptimConfig = PRETRAINING
    """Optimizer and schedule."""

    def _minimums(self) -> dict[str, tuple[float | None, float]]:
        fields = {"init.seed": (self.init.seed, 0), "data.clips": (self.data.clips, 1)}
        return super()._minimums() | fields

    def _rules(self) -> list[tuple[bool, str]]:
        # Through a dict, as from a file: sizes that do not fit together are named.
        SelfSupervisedConfig.from_dict(self.model.to_dict(), "model")
        return [
            (_same_compute(self.model.encoder, MatpacConfig()), SET_BY_STEP),
            *super()._rules(),
            (
                bool(self.data.train),
                "no data.train: name a folder of recordings, or a prepared data set",
            ),
            (
                self.init.checkpoint is None or self.init.encoder is None,
                "init.checkpoint is a whole model; leave init.encoder out, or set it to None",
            ),
        ]


@dataclass(frozen=True)
class TagInitConfig:
    """Initial parameters."""

    encoder: str | None = None
    """An encoder: of pre-training, a MATPAC or a TinyMU. It decides the sizes except
    `model.num_frames`, to which its positions are cut or added. None: random."""
    seed: int = 0
    """Seed of random parameters."""


@dataclass(frozen=True)
class TagDataConfig(ReadConfig):
    """Recordings and their tags."""

    labels: str = ""
    """A csv of `file` (or `file_name`) and `labels`, separated by ";"."""
    classes: str | None = None
    """List of all classes in the order of the outputs: AudioSet's csv (by `mid`), a json, or a text
    file with one per line. None: the sorted labels."""
    clips: int = 16
    """Clips per block."""
    seconds: float = 10.0
    """Longest clip; longer recordings are cropped, at random if `augment` is on."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Waveform augmentation."""


@dataclass(frozen=True)
class TagStepConfig(ComputeConfig):
    """How one step of tagging is computed."""

    mixup: float = 0.5
    """Parameter of the Beta distribution of mixup (arXiv 1710.09412); 0: no mixup."""


TAGGING = OptimConfig(
    learning_rate=1e-4,
    warmup_fraction=0.1,
    weight_decay=0.05,
    weight_decay_params=r".*/kernel",
    layer_decay=0.75,
    frozen_params=r"pos_embed|log_mel/.*|head/norm/.*",
)
"""AdamW with lower learning rates for lower, pretrained layers."""


@dataclass(frozen=True)
class TagConfig(RunConfig):
    """A run that trains an encoder to tag (`tinymu train-tagger`)."""

    init: TagInitConfig = field(default_factory=TagInitConfig)
    """Initial parameters."""
    model: MatpacConfig = field(default_factory=MatpacConfig)
    """Sizes, unless `init.encoder` decides them."""
    data: TagDataConfig = field(default_factory=TagDataConfig)
    """Recordings and their tags."""
    step: TagStepConfig = field(default_factory=TagStepConfig)
    """How a step is computed."""
    optim: OptimConfig = TAGGING
    """Optimizer and schedule."""

    def _minimums(self) -> dict[str, tuple[float | None, float]]:
        fields = {
            "init.seed": (self.init.seed, 0),
            "data.clips": (self.data.clips, 2),
            "data.seconds": (self.data.seconds, 0.1),
            "step.mixup": (self.step.mixup, 0),
        }
        return super()._minimums() | fields

    def _rules(self) -> list[tuple[bool, str]]:
        MatpacConfig.from_dict(self.model.to_dict(), "model")
        return [
            (_same_compute(self.model, MatpacConfig()), SET_BY_STEP),
            *super()._rules(),
            (bool(self.data.train), "no data.train: name a prepared data set"),
            (bool(self.data.labels), "no data.labels: name a csv of file and labels"),
            (self.model.head is None, "model.head is decided by the classes; leave it out"),
            (
                self.step.grad_accum_steps == 1,
                "step.grad-accum-steps: the head's normalisation needs a whole batch; give 1, and "
                "lower data.clips or step.blocks instead",
            ),
        ]


Config = TypeVar("Config", bound=RunConfig)


def shipped_configs() -> dict[str, Path]:
    """Returns the paths of the configs that come with the package, by name."""
    package = Path(__file__).parents[1]
    # The wheel has them inside the package, a clone beside it.
    folders = (package / "configs", package.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("[a-z]*.py"))}


def load_config(name_or_path: str | Path, kind: type[Config] = RunConfig) -> Config:
    """Returns the `config` of a Python file.

    Configs that build on another one use it, too: `base = load_config("sft_tinymu", TrainConfig)`.

    Args:
        name_or_path: name of a config that comes with the package, such as "sft_lora", or the path
            of a .py file.
        kind: expected class of the config.

    Raises:
        InputError: there is no such config, the file fails, or its `config` is of another kind.
    """
    shipped = shipped_configs()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise InputError(
            f"{name_or_path}: no such config in {Path.cwd()}; give the path of a .py file, or one "
            f"of {', '.join(shipped)}"
        )
    # A config may import modules beside it.
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with translate(lambda e: f"{path}: cannot be run ({type(e).__name__}: {e}); correct it"):
            config = runpy.run_path(str(path)).get("config")
    finally:
        sys.path.remove(folder)
    if not isinstance(config, kind):
        raise InputError(
            f"{path}: has no `config` that is a {kind.__name__}; see those in configs/"
        )
    return config
