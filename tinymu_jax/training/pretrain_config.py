"""A run of self-supervised pre-training as frozen dataclasses."""

from dataclasses import dataclass, field

from tinymu_jax.pretraining.config import SelfSupervisedConfig
from tinymu_jax.training.config import ComputeConfig, OptimConfig, ReadConfig, RunConfig


@dataclass(frozen=True)
class PretrainStartConfig:
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
    warmup=19_654 / 294_816,
    beta2=0.95,
    eps=1e-6,
    weight_decay=0.05,
    decayed=".*",
    frozen=r".*/pos_embed|encoder/log_mel/.*",
    clip_norm=3.0,
)
"""As published: AdamW that decays biases and norms too."""
UNUSED = r"predictor/single/.*"
"""Published checkpoints of several hypotheses carry this layer, which nothing learns from."""


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """A run that pre-trains an encoder (`tinymu pretrain`)."""

    start: PretrainStartConfig = field(default_factory=PretrainStartConfig)
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
        own = {"start.seed": (self.start.seed, 0), "data.clips": (self.data.clips, 1)}
        return super().least() | own

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between fields: whether it does, and what to say if not.

        Raises:
            InputError: sizes that do not go together.
        """
        # Read once more as a file would be: sizes that do not go together are named.
        SelfSupervisedConfig.from_dict(self.model.to_dict(), "model")
        named = self.start.checkpoint is not None
        return [
            (
                self.model.encoder.products == "float32" and self.model.encoder.remat == "nothing",
                "products and remat of a run are said by step.*, not by model.*; set them there",
            ),
            *super().rules(),
            (
                bool(self.data.train),
                "no data.train: name a folder of recordings, or a prepared data set",
            ),
            (
                not named or self.start.encoder is None,
                "start.checkpoint is a whole model; leave start.encoder out, or set it to None",
            ),
        ]
