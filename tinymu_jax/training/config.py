"""Dataclass configs of training runs."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from tinymu_jax.data.config import AugmentConfig
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import (
    ComputeDtype,
    GradientDtype,
    LoraConfig,
    MatpacConfig,
    Remat,
    SelfSupervisedConfig,
    TinyMUConfig,
)
from tinymu_jax.models.packing import PackingConfig


@dataclass(frozen=True)
class OptimConfig:
    """Learning rate schedule and optimizer: Adam, optionally with Muon for some matrices."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    warmup_fraction: float = 0.05
    """Fraction of the run's steps in which the learning rate rises linearly to its peak. After
    warmup and hold, the learning rate falls to 0 along half a cosine."""
    hold_fraction: float = 0.0
    """Fraction of the run's steps, after warmup, in which the learning rate stays at its peak."""
    beta1: float = 0.9
    """Adam: decay rate of the moving average of gradients."""
    beta2: float = 0.999
    """Adam: decay rate of the moving average of squared gradients."""
    eps: float = 1e-8
    """Adam: epsilon, added to the root of the average squared gradient."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) of the parameters that match `weight_decay_params`."""
    weight_decay_params: str = r".*/kernel|.*/embedding"
    """Regular expression that matches the whole paths of parameters with weight decay."""
    frozen_params: str = r"encoder/.*"
    """Regular expression that matches the whole paths of untrained parameters."""
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    """Learning rate factor by regular expression (whole parameter path); the first match counts."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay of the encoder: each layer has this factor times the learning
    rate of the layer above. The input embeddings count as the lowest layer (arXiv 2106.08254)."""
    muon_params: str | None = None
    """Regular expression for whole paths of matrices that Muon trains (arXiv 2502.16982)."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon."""
    max_grad_norm: float | None = None
    """Maximum global norm of the gradients; larger gradients are scaled down. None: no clipping."""


@dataclass(frozen=True)
class InitConfig:
    """Checkpoints that initialize a fine-tuning run; parts without a checkpoint are random."""

    checkpoint: str | None = None
    """Checkpoint of a whole TinyMU: hub name, .pt file or folder. It decides all model sizes."""
    encoder: str | None = None
    """Encoder checkpoint (MATPAC, pre-training run or TinyMU), if `checkpoint` is None. A
    non-default `model.encoder.num_frames` cuts or extends the positional embeddings."""
    decoder: str | None = None
    """Checkpoint of the decoder, if `checkpoint` is None: name, folder or GGUF file of a SmolLM2,
    or a TinyMU."""
    tokenizer: str | None = None
    """Path of a tokenizer.json, or hub name of a decoder; None: the tokenizer in the checkpoint."""
    seed: int = 0
    """Seed of random initial parameters and of dropout."""


@dataclass(frozen=True)
class ReadConfig:
    """Data sets of a run, and how they are read."""

    train: str = ""
    """Data set from `tinymu data prepare`: folder, or gs:// or s3:// URL to copy to local disk."""
    validation: str | None = None
    """Folder or URL of the data set for the validation loss; None: no validation."""
    epochs: int = 3
    """Passes over the training data; 0: as many as `steps` needs."""
    seed: int = 0
    """Seed of shuffling, cropping and augmentation, and of the masks in pre-training."""
    threads: int = 8
    """Reader threads in each process."""
    prefetch: int = 2
    """Number of batches that each process reads ahead."""


@dataclass(frozen=True)
class DataConfig(ReadConfig):
    """Data sets for fine-tuning on questions, or for training the encoder on clip labels."""

    packing: PackingConfig = field(default_factory=PackingConfig)
    """Sizes of a block: a fixed number of rows into which questions and their clips are packed."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Waveform augmentation of training clips."""
    labels: str | None = None
    """Csv of clip labels: a column `file_name` and one column per category. If set, only the
    encoder is trained, to predict the categories, and questions are ignored."""


@dataclass(frozen=True)
class ComputeConfig:
    """How a training step is computed: batch size, dtypes and gradient checkpointing."""

    blocks: int = 1
    """Batch size: blocks per step over all devices. A block is a fixed-size group of examples. Must
    be a multiple of `mesh.data` x `mesh.fsdp` x `grad_accum_steps`."""
    grad_accum_steps: int = 1
    """Gradient accumulation: number of parts to split a batch into, with the same result."""
    encoder_dtype: ComputeDtype = "float32"
    """Dtype of the encoder's activations and matmuls (pre-training: of all); sums in products,
    norms, softmax, loss and parameters stay float32. `float16` is for GPUs without bfloat16, such
    as a T4; the loss is scaled, and steps whose gradients overflow are skipped."""
    remat: Remat = "attention"
    """Gradient checkpointing of encoder and decoder; see `MatpacConfig`. `attention` is fastest for
    deep models, `none` is fastest for shallow models, `full` needs the least memory."""
    attention: Literal["auto", "flash", "cudnn", "reference"] = "auto"
    """How attention is computed: by a fused kernel on TPUs in bfloat16 (`flash`), by cuDNN's on
    GPUs of compute capability 8.0 or more in bfloat16 or float16 (`cudnn`), or by XLA
    (`reference`); `auto` takes the first that device and dtype allow."""

    gradient_dtype: GradientDtype = "float32"
    """Dtype in which devices add up the gradients of linear layers of encoder and decoder;
    `bfloat16` halves what they send for these, three quarters of the decoder. Those of the token
    embedding, the projector and LoRA stay float32, and so do sums over parts of a batch."""

    @property
    def dtypes(self) -> dict[str, ComputeDtype]:
        """The dtype of each part of the model, by its option."""
        return {"step.encoder-dtype": self.encoder_dtype}


@dataclass(frozen=True)
class StepConfig(ComputeConfig):
    """How a fine-tuning step is computed."""

    decoder_dtype: ComputeDtype = "float32"
    """Dtype of the decoder's activations and matmuls; see `encoder_dtype`."""
    ignore_pad_labels: bool = True
    """Exclude the token "!", which is also the padding token, from the loss, as published."""
    dropout: bool = True
    """Apply the dropout of the residual projector and of LoRA in training."""

    @property
    def dtypes(self) -> dict[str, ComputeDtype]:
        """The dtype of each part of the model, by its option."""
        return super().dtypes | {"step.decoder-dtype": self.decoder_dtype}


@dataclass(frozen=True)
class LoopConfig:
    """Logging, validation and checkpoints; no field changes the result of a step."""

    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    validate_every: int = 3000
    """Steps between validations; the run's last step is always validated."""
    save_every: int = 1000
    """Steps between checkpoints; validated steps and the run's last step are always saved."""
    max_to_keep: int = 2
    """Latest checkpoints to keep, besides the checkpoint with the lowest validation loss."""
    tensorboard: bool = True
    """Write metrics for TensorBoard."""
    wandb: str | None = None
    """Weights & Biases project to log to; needs the wandb package."""
    stop_after: int | None = None
    """Step after which to save and stop before the run's end; None: train to the end."""
    profile_start: int | None = None
    """First step to profile with jax, into the run's subfolder `profile`; None: no profile."""
    profile_steps: int = 5
    """Number of steps that the profiler records."""


@dataclass(frozen=True)
class RunConfig:
    """Config of a training run: the fields that all kinds of runs have."""

    output: str = ""
    """Folder that the run writes to, visible to all processes."""
    checkpoints: str | None = None
    """Folder or gs:// address of the checkpoints, visible to all processes; None: in `output`."""
    data: ReadConfig = field(default_factory=ReadConfig)
    """Data sets, and how they are read."""
    step: ComputeConfig = field(default_factory=ComputeConfig)
    """How a training step is computed."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate schedule."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How data and parameters are sharded over devices."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Logging, validation and checkpoints."""
    steps: int = 0
    """Number of steps, and length of the learning rate schedule; 0: all steps of `data.epochs`."""
    overfit_batch: bool = False
    """Train on the first batch only, to check that the model can learn; needs `steps`."""

    def check(self) -> None:
        """Raise an `InputError` if a field is out of range or fields contradict each other."""
        for name, (value, minimum) in self._minimums().items():
            if value is not None and not value >= minimum:
                raise InputError(f"{name} is {value}; give {minimum} or more")
        for holds, message in self._rules():
            if not holds:
                raise InputError(message)

    def _minimums(self) -> dict[str, tuple[float | None, float]]:
        """Return (value, smallest allowed value) for each numeric option, by option name."""
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
        """Return the rules on the fields, as (whether the rule holds, error message if not)."""
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


SET_BY_STEP = (
    "compute_dtype, remat, attention and gradient_dtype are set by step.*, not by model.*; set "
    "them there"
)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Config of `tinymu train`, which trains TinyMU on questions or its encoder on labels."""

    init: InitConfig = field(default_factory=InitConfig)
    """Checkpoints that the run starts from."""
    model: TinyMUConfig = field(default_factory=TinyMUConfig)
    """Sizes of the model, unless `init.checkpoint` decides them."""
    lora: LoraConfig | None = None
    """LoRA of the decoder; with LoRA, `optim.frozen_params` should freeze the decoder itself."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data sets, packing and augmentation."""
    step: StepConfig = field(default_factory=StepConfig)
    """How a training step is computed."""

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
                "compute_dtype, remat, attention, gradient_dtype, ignore-pad-labels and lora are "
                "set by step.* and lora, not by model.*; set them there",
            ),
            *super()._rules(),
            (
                bool(self.data.train),
                "no data.train: give --data.train FOLDER, made by `tinymu data prepare`",
            ),
            (
                self.init.checkpoint is None or not parts,
                "init.checkpoint is a whole model; leave init.encoder and init.decoder out, or "
                "set them to None",
            ),
        ]


def _same_compute(model: object, default: object) -> bool:
    """Return whether two model configs have the same fields that are set by `step.*`."""
    fields = ("compute_dtype", "remat", "attention", "gradient_dtype")
    return all(getattr(model, name) == getattr(default, name) for name in fields)


@dataclass(frozen=True)
class PretrainInitConfig:
    """Checkpoints that initialize a pre-training run; parts without a checkpoint are random."""

    checkpoint: str | None = None
    """Checkpoint of pre-training: published .pt, folder or run. It decides the sizes in `model`."""
    encoder: str | None = None
    """Encoder checkpoint for student and teacher (MATPAC or TinyMU), if `checkpoint` is None."""
    seed: int = 0
    """Seed of random initial parameters."""


@dataclass(frozen=True)
class CropsConfig(ReadConfig):
    """Recordings for pre-training, and how they are cropped."""

    train: str = ""
    """Folder of audio files, or of a data set of log-mels made by `tinymu data prepare`."""
    clips: int = 32
    """Number of crops per block; a step computes `step.blocks` blocks."""
    epochs: int = 0
    """Passes over the recordings, with new crops each time; 0: as many as `steps` needs."""
    max_bad_fraction: Annotated[float, tyro.conf.arg(aliases=("--max-bad-fraction",))] = 0.001
    """Largest fraction of a folder's audio files that may be unusable, and are then skipped."""
    keep_damaged: bool = False
    """Use what can be read of damaged audio files, instead of refusing them."""


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
"""Published optimizer of pre-training: AdamW, with weight decay also of biases and norms."""
UNUSED = r"predictor/single/.*"
"""Paths of the predictor's single output layer, unused in predictors with several heads."""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """Config of `tinymu pretrain`: self-supervised pre-training of an encoder."""

    init: PretrainInitConfig = field(default_factory=PretrainInitConfig)
    """Checkpoints that the run starts from."""
    model: SelfSupervisedConfig = field(default_factory=SelfSupervisedConfig)
    """Settings of the method, and sizes of the model unless `init.checkpoint` decides them."""
    data: CropsConfig = field(default_factory=CropsConfig)
    """Recordings, and how they are cropped and read."""
    step: ComputeConfig = field(default_factory=ComputeConfig)
    """How a training step is computed."""
    optim: OptimConfig = PRETRAINING
    """Optimizer and learning rate schedule."""

    def _minimums(self) -> dict[str, tuple[float | None, float]]:
        fields = {"init.seed": (self.init.seed, 0), "data.clips": (self.data.clips, 1)}
        return super()._minimums() | fields

    def _rules(self) -> list[tuple[bool, str]]:
        # `from_dict` raises an error if sizes do not fit together.
        SelfSupervisedConfig.from_dict(self.model.to_dict(), "model")
        return [
            (_same_compute(self.model.encoder, MatpacConfig()), SET_BY_STEP),
            *super()._rules(),
            (
                bool(self.data.train),
                "no data.train: name a folder of recordings, or a prepared data set",
            ),
            (
                0 <= self.data.max_bad_fraction <= 1,
                f"data.max-bad-fraction is {self.data.max_bad_fraction}; give 0 to 1",
            ),
            (
                self.init.checkpoint is None or self.init.encoder is None,
                "init.checkpoint is a whole model; leave init.encoder out, or set it to None",
            ),
        ]


@dataclass(frozen=True)
class TagInitConfig:
    """Checkpoint that initializes a tagging run; the classification head is always random."""

    encoder: str | None = None
    """Checkpoint of the encoder: pre-training run, MATPAC or TinyMU; None: random. It decides all
    sizes except `model.num_frames`, to which the positional embeddings are cut or extended."""
    seed: int = 0
    """Seed of random initial parameters."""


@dataclass(frozen=True)
class TagDataConfig(ReadConfig):
    """Recordings and their tags."""

    labels: str = ""
    """Csv with the columns `file` (or `file_name`) and `labels`; ";" or "|" separates tags. Tags in
    a column `unknown` may or may not hold, and are not trained."""
    classes: str | None = None
    """File of all classes in the order of the model's outputs: AudioSet's csv (ordered by `mid`), a
    json file, or a text file with one class per line. None: all tags in `labels`, sorted."""
    clips: int = 16
    """Number of clips per block; a step computes `step.blocks` blocks."""
    seconds: float = 10.0
    """Maximum clip length in seconds; augmentation cuts longer clips at random positions."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Waveform augmentation of training clips."""


@dataclass(frozen=True)
class TagStepConfig(ComputeConfig):
    """How a training step of tagging is computed."""

    mixup: float = 0.5
    """Alpha of mixup's Beta distribution (arXiv 1710.09412); 0: no mixup."""


TAGGING = OptimConfig(
    learning_rate=1e-4,
    warmup_fraction=0.1,
    weight_decay=0.05,
    weight_decay_params=r".*/kernel",
    layer_decay=0.75,
    frozen_params=r"pos_embed|log_mel/.*|head/norm/.*",
)
"""Default optimizer of tagging: AdamW with smaller learning rates in the encoder's lower layers."""


@dataclass(frozen=True)
class TagConfig(RunConfig):
    """Config of `tinymu train-tagger`, which trains an encoder to predict tags."""

    init: TagInitConfig = field(default_factory=TagInitConfig)
    """Checkpoint that the run starts from."""
    model: MatpacConfig = field(default_factory=MatpacConfig)
    """Sizes of the encoder, unless `init.encoder` decides them."""
    data: TagDataConfig = field(default_factory=TagDataConfig)
    """Recordings and their tags."""
    step: TagStepConfig = field(default_factory=TagStepConfig)
    """How a training step is computed."""
    optim: OptimConfig = TAGGING
    """Optimizer and learning rate schedule."""

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
            (
                bool(self.data.train),
                "no data.train: give --data.train FOLDER, made by `tinymu data prepare`",
            ),
            (bool(self.data.labels), "no data.labels: name a csv of file and labels"),
            (self.model.head is None, "model.head is decided by the classes; leave it out"),
            (
                self.step.grad_accum_steps == 1,
                "step.grad-accum-steps: the head's normalisation needs a whole batch; give 1, and "
                "lower data.clips or step.blocks instead",
            ),
        ]
