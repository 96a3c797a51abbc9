"""A training run as frozen dataclasses: what it learns, from what, how, and on which devices."""

from dataclasses import dataclass, field

from tinymu_jax.data.config import AugmentConfig
from tinymu_jax.errors import InputError
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
    """Adam with the published schedule; Muon for the matrices that `muon` names."""

    learning_rate: float = 1e-4
    """At its highest."""
    warmup_fraction: float = 0.05
    """Share of the steps in which it rises; then it falls as half a cosine."""
    hold_fraction: float = 0.0
    """Share of the steps after the rise in which it stays at its highest; 0 as published."""
    beta1: float = 0.9
    """Decay of the gradient's average."""
    beta2: float = 0.999
    """Decay of the squared gradient's average."""
    eps: float = 1e-8
    """Added to the root of the squared gradient's average."""
    weight_decay: float = 0.0
    """Decoupled from the gradient (AdamW), on the weights that `decayed` names; 0 as published."""
    weight_decay_params: str = r".*/kernel|.*/embedding"
    """Paths of weights that decay (a regular expression that matches the whole path)."""
    frozen_params: str = r"encoder/.*"
    """Paths of weights that stay as they are: no gradient, no averages."""
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    """Paths (regular expressions) of weights that learn at a multiple of the learning rate."""
    layer_decay: float = 1.0
    """Each of the encoder's layers learns at this multiple of the one above it, the patches'
    embedding at that of the first one; the others as they are (arXiv 2106.08254)."""
    muon_params: str | None = None
    """Paths of matrices whose averaged gradient is made orthogonal (Muon, arXiv 2502.16982) instead
    of divided as Adam does: models that start at random learn in a fraction of the steps."""
    muon_learning_rate: float = 0.02
    """Learning rate of those, at its highest."""
    max_grad_norm: float | None = None
    """Longest gradient, over all trained weights; longer ones are shortened to it."""


@dataclass(frozen=True)
class InitConfig:
    """Where the weights come from; what nothing is named for starts at random."""

    checkpoint: str | None = None
    """A whole TinyMU: hub name, published .pt, or checkpoint folder. It brings its own sizes."""
    encoder: str | None = None
    """A MATPAC or MATPAC++ encoder, of pre-training or of a TinyMU, where no whole checkpoint is
    named. It keeps the length of its chunks, unless `model.encoder.num_frames` is given another
    than the default: then positions are cut or added."""
    decoder: str | None = None
    """A SmolLM2 folder or its hub name, or a TinyMU's, where no whole checkpoint is named."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, where the checkpoint has none."""
    seed: int = 0
    """Of the weights that start at random, and of dropout."""


@dataclass(frozen=True)
class ReadConfig:
    """What is read, and in which order."""

    train: str = ""
    """A prepared data set (`tinymu data prepare`), or its address on a bucket (gs://..., s3://...),
    from which every machine makes a copy of its own first."""
    validation: str | None = None
    """Another one, on which the loss is measured now and then."""
    epochs: int = 3
    """How often each question (crop) comes; 0 means as often as `steps` needs."""
    seed: int = 0
    """Of the order of the clips, and of what is drawn for each."""
    threads: int = 8
    """That read, in each process."""
    prefetch: int = 2
    """Batches that wait, read."""


@dataclass(frozen=True)
class DataConfig(ReadConfig):
    """What is learnt from when answers are learnt, or labels."""

    packing: PackingConfig = field(default_factory=PackingConfig)
    """How questions are laid into rows, and rows into blocks."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How waveforms are changed before they are heard; off as published."""
    labels: str | None = None
    """A table (csv) of what the clips are: `file_name` and one column for each category. Where it
    is named the encoder learns to tell them, and no question is read."""


@dataclass(frozen=True)
class ComputeConfig:
    """How one step is computed."""

    blocks: int = 1
    """Blocks of a step over all devices: its batch. A multiple of the devices that part it."""
    grad_accum_steps: int = 1
    """Parts that a step is computed in, one after the other: less memory for the same numbers."""
    encoder_dtype: ComputeDtype = "float32"
    """bfloat16 rounds the factors of the encoder's products (when it is pre-trained, of all) and
    sums in float32. Weights and averages are float32 in any case."""
    remat: Remat = "attention"
    """What encoder and decoder compute again on the way back; see `MatpacConfig`. What many layers
    keep costs more to write, and to find room for, than attention, norms and activations cost to
    compute again; of a few layers `none` is faster."""


@dataclass(frozen=True)
class StepConfig(ComputeConfig):
    """How one step of learning answers is computed."""

    decoder_dtype: ComputeDtype = "float32"
    """As `encoder`, for the decoder."""
    ignore_pad_labels: bool = True
    """Leave every "!" of an answer out of the loss, as published."""
    dropout: bool = True
    """Whether what has dropout (the residual projector, LoRA) uses it."""


@dataclass(frozen=True)
class LoopConfig:
    """What happens beside the steps; none of it changes a number that is learnt."""

    log_every: int = 10
    """Steps from one line of metrics to the next."""
    validate_every: int = 3000
    """Steps from one validation to the next; the last step is validated too."""
    save_every: int = 1000
    """Steps from one checkpoint to the next; validations and the last step are saved too."""
    max_to_keep: int = 2
    """Latest checkpoints that are kept, beside the best one by validation."""
    tensorboard: bool = True
    """Whether metrics are written for TensorBoard too."""
    wandb: str | None = None
    """Project of Weights & Biases that metrics go to; needs its package."""
    stop_after: int | None = None
    """Step after which the run stops, saved, as if it had been asked to."""
    profile_start: int | None = None
    """First step of a profile, written to the run's folder."""
    profile_steps: int = 5
    """Steps of the profile."""


@dataclass(frozen=True)
class RunConfig:
    """What all runs have: everything that its results depend on, in one place."""

    output: str = ""
    """Folder of the run. Every process must see it."""
    checkpoints: str | None = None
    """Where checkpoints go instead, a folder or gs://... that every process sees."""
    data: ReadConfig = field(default_factory=ReadConfig)
    """What is learnt from."""
    step: ComputeConfig = field(default_factory=ComputeConfig)
    """How a step is computed."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """How weights follow their gradients."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """How devices share the work."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """What happens beside the steps."""
    steps: int = 0
    """Steps of the run and of its schedule; 0 means all epochs."""
    overfit_batch: bool = False
    """Learn the first batch again and again, to see whether the model can; needs `steps`."""

    def check(self) -> None:
        """Holds the fields against each other.

        Raises:
            InputError: a number out of range, or fields that do not go together.
        """
        for name, (value, smallest) in self.least().items():
            if not value >= smallest:
                raise InputError(f"{name} is {value}; give {smallest} or more")
        self._check_shares()
        for holds, message in self.rules():
            if not holds:
                raise InputError(message)

    def least(self) -> dict[str, tuple[float, float]]:
        """Returns numbers by the names of their options, and the least that each may be."""
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
            "loop.stop-after": (_given(self.loop.stop_after), 1),
            "loop.profile-at": (_given(self.loop.profile_start), 1),
            "steps": (self.steps, 0),
            "optim.learning-rate": (self.optim.learning_rate, 0),
            "optim.weight-decay": (self.optim.weight_decay, 0),
            "optim.muon-learning-rate": (self.optim.muon_learning_rate, 0),
            "optim.layer-decay": (self.optim.layer_decay, 0),
        }

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between fields: whether it does, and what to say if not."""
        return [
            (bool(self.output), "no output: name a folder for the run with --output"),
            (
                self.optim.muon_params is None or self.optim.learning_rate > 0,
                "optim.learning-rate is 0, and optim.muon-params learns at a multiple of it; raise it",
            ),
            (
                self.step.blocks % self.step.grad_accum_steps == 0,
                f"step.blocks {self.step.blocks} is no multiple of step.grad-accum-steps "
                f"{self.step.grad_accum_steps}; choose numbers that part evenly",
            ),
            (
                not self.overfit_batch or self.steps > 0,
                "overfit-batch goes on for ever; say for how many --steps",
            ),
        ]

    def _check_shares(self) -> None:
        """Holds each share against what it may be."""
        shares = {
            "optim.warmup-fraction": self.optim.warmup_fraction,
            "optim.hold-fraction": self.optim.hold_fraction,
            "optim.beta1": self.optim.beta1,
            "optim.beta2": self.optim.beta2,
        }
        if self.optim.max_grad_norm is not None and not self.optim.max_grad_norm > 0:
            raise InputError(
                f"optim.max-grad-norm is {self.optim.max_grad_norm}; give a number above 0"
            )
        for name, value in shares.items():
            if not 0 <= value < 1:
                raise InputError(f"{name} is {value}; give a number from 0 to below 1")
        if self.optim.warmup_fraction + self.optim.hold_fraction >= 1:
            raise InputError(
                "optim.warmup-fraction and optim.hold-fraction are all of the run; lower one of them"
            )


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run that learns answers, or labels."""

    init: InitConfig = field(default_factory=InitConfig)
    """Where the weights come from."""
    model: TinyMUConfig = field(default_factory=TinyMUConfig)
    """Sizes, where no whole checkpoint brings them."""
    lora: LoraConfig | None = None
    """Low-rank weights beside the decoder's; see `optim.frozen-params` for what then learns."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is learnt from."""
    step: StepConfig = field(default_factory=StepConfig)
    """How a step is computed."""

    def least(self) -> dict[str, tuple[float, float]]:
        """Returns numbers by the names of their options, and the least that each may be."""
        packing = {
            f"data.packing.{name.replace('_', '-')}": (value, int(name != "questions_per_group"))
            for name, value in vars(self.data.packing).items()
        }
        return {**super().least(), "init.seed": (self.init.seed, 0), **packing}

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between fields: whether it does, and what to say if not."""
        parts = self.init.encoder or self.init.decoder
        return [
            self._said_once(),
            *super().rules(),
            (bool(self.data.train), "no data.train: name a prepared data set"),
            (
                self.init.checkpoint is None or not parts,
                "init.checkpoint is a whole model; leave init.encoder and init.decoder out, or "
                "set them to None",
            ),
        ]

    def _said_once(self) -> tuple[bool, str]:
        """Returns whether `model` leaves alone what another field says of a run."""
        plain, decoder = TinyMUConfig(), self.model.decoder
        alike = [self.model.ignore_pad_labels == plain.ignore_pad_labels, decoder.lora is None]
        for given, default in ((self.model.encoder, plain.encoder), (decoder, plain.decoder)):
            alike += [given.compute_dtype == default.compute_dtype, given.remat == default.remat]
        return (
            all(alike),
            "compute_dtype, remat, ignore-pad-labels and lora of a run are said by step.* and lora, "
            "not by model.*; set them there",
        )


def _given(value: int | None) -> int:
    """Returns a number that may be left out, or one that is always right."""
    return 1 if value is None else value


@dataclass(frozen=True)
class PretrainInitConfig:
    """Where the weights come from; what nothing is named for starts at random."""

    checkpoint: str | None = None
    """Student, predictor, heads and teachers of pre-training: a published .pt, a checkpoint folder
    or a run. It brings its sizes."""
    encoder: str | None = None
    """A MATPAC or MATPAC++ encoder, or that of a TinyMU, where no checkpoint is named. Student and
    teacher begin with it."""
    seed: int = 0
    """Of the weights that start at random."""


@dataclass(frozen=True)
class CropsConfig(ReadConfig):
    """Which recordings are heard, and how many at once."""

    train: str = ""
    """A prepared data set that stores log_mel, or a folder of recordings."""
    validation: str | None = None
    """Another one, on which the loss is measured now and then."""
    clips: int = 32
    """Crops of a block."""
    epochs: int = 0
    """How often each recording comes, another crop of it each time; 0 means as often as `steps`
    needs."""


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
"""As published: AdamW that decays biases and norms too."""

UNUSED = r"predictor/single/.*"
"""Published checkpoints of several hypotheses carry this layer, which nothing learns from."""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """A run that pre-trains an encoder (`tinymu pretrain`)."""

    init: PretrainInitConfig = field(default_factory=PretrainInitConfig)
    """Where the weights come from."""
    model: SelfSupervisedConfig = field(default_factory=SelfSupervisedConfig)
    """Sizes, where no checkpoint brings them, and what is computed."""
    data: CropsConfig = field(default_factory=CropsConfig)
    """What is heard."""
    step: ComputeConfig = field(default_factory=ComputeConfig)
    """How a step is computed."""
    optim: OptimConfig = PRETRAINING
    """How weights follow their gradients; where there are several hypotheses `UNUSED` is frozen
    too."""

    def least(self) -> dict[str, tuple[float, float]]:
        """Returns numbers by the names of their options, and the least that each may be."""
        own = {"init.seed": (self.init.seed, 0), "data.clips": (self.data.clips, 1)}
        return super().least() | own

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between fields: whether it does, and what to say if not.

        Raises:
            InputError: sizes that do not go together.
        """
        # Read once more as a file would be: sizes that do not go together are named.
        SelfSupervisedConfig.from_dict(self.model.to_dict(), "model")
        named = self.init.checkpoint is not None
        return [
            (
                self.model.encoder.compute_dtype == "float32"
                and self.model.encoder.remat == "none",
                "compute_dtype and remat of a run are said by step.*, not by model.*; set them there",
            ),
            *super().rules(),
            (
                bool(self.data.train),
                "no data.train: name a folder of recordings, or a prepared data set",
            ),
            (
                not named or self.init.encoder is None,
                "init.checkpoint is a whole model; leave init.encoder out, or set it to None",
            ),
        ]


@dataclass(frozen=True)
class TagInitConfig:
    """Where the weights come from."""

    encoder: str | None = None
    """An encoder: of pre-training, a MATPAC or a TinyMU. It brings its sizes but for
    `model.num_frames`, to which its positions are cut or added. None: at random."""
    seed: int = 0
    """Of the weights that start at random."""


@dataclass(frozen=True)
class TagDataConfig(ReadConfig):
    """Which recordings are heard, and which tags they have."""

    labels: str = ""
    """A csv of `file` (or `file_name`) and `labels`, several by ";"."""
    classes: str | None = None
    """The list of all classes, in the order of the outputs: AudioSet's csv (by `mid`), a json, or a
    text file with one a line. None: those of `labels`, sorted."""
    clips: int = 16
    """Clips of a block."""
    seconds: float = 10.0
    """Of a clip at most; of longer ones so much is cropped, where `augment` is on."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How waveforms are changed before they are heard."""


@dataclass(frozen=True)
class TagStepConfig(ComputeConfig):
    """How one step of learning to tag is computed."""

    mixup: float = 0.5
    """Two clips are heard at once, in shares of a Beta distribution with this parameter; 0: never
    (arXiv 1710.09412)."""


TAGGING = OptimConfig(
    learning_rate=1e-4,
    warmup_fraction=0.1,
    weight_decay=0.05,
    weight_decay_params=r".*/kernel",
    layer_decay=0.75,
    frozen_params=r"pos_embed|log_mel/.*|head/norm/.*",
)
"""AdamW, the lower layers more slowly: they know more already."""


@dataclass(frozen=True)
class TagConfig(RunConfig):
    """A run in which an encoder learns to tag (`tinymu train-tagger`)."""

    init: TagInitConfig = field(default_factory=TagInitConfig)
    """Where the weights come from."""
    model: MatpacConfig = field(default_factory=MatpacConfig)
    """Sizes, where no encoder brings them."""
    data: TagDataConfig = field(default_factory=TagDataConfig)
    """What is heard."""
    step: TagStepConfig = field(default_factory=TagStepConfig)
    """How a step is computed."""
    optim: OptimConfig = TAGGING
    """How weights follow their gradients."""

    def least(self) -> dict[str, tuple[float, float]]:
        """Returns numbers by the names of their options, and the least that each may be."""
        own = {
            "init.seed": (self.init.seed, 0),
            "data.clips": (self.data.clips, 2),
            "data.seconds": (self.data.seconds, 0.1),
            "step.mixup": (self.step.mixup, 0),
        }
        return super().least() | own

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between fields: whether it does, and what to say if not."""
        MatpacConfig.from_dict(self.model.to_dict(), "model")
        return [
            (
                self.model.compute_dtype == "float32" and self.model.remat == "none",
                "compute_dtype and remat of a run are said by step.*, not by model.*; set them there",
            ),
            *super().rules(),
            (bool(self.data.train), "no data.train: name a prepared data set"),
            (bool(self.data.labels), "no data.labels: name a csv of file and labels"),
            (self.model.head is None, "model.head is made by the classes; leave it out"),
            (
                self.step.grad_accum_steps == 1,
                "step.grad-accum-steps: the head's normalisation sees a whole batch; give 1, and lower "
                "data.clips or step.blocks instead",
            ),
        ]
