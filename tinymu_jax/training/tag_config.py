"""A run in which an encoder learns to tag, as frozen dataclasses."""

from dataclasses import dataclass, field

from tinymu_jax.config import MatpacConfig
from tinymu_jax.data.config import AugmentConfig
from tinymu_jax.training.config import ComputeConfig, OptimConfig, ReadConfig, RunConfig


@dataclass(frozen=True)
class TagStartConfig:
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
    warmup=0.1,
    weight_decay=0.05,
    decayed=r".*/kernel",
    layer_decay=0.75,
    frozen=r"pos_embed|log_mel/.*|head/norm/.*",
)
"""AdamW, the lower layers more slowly: they know more already."""


@dataclass(frozen=True)
class TagConfig(RunConfig):
    """A run in which an encoder learns to tag (`tinymu train-tagger`)."""

    start: TagStartConfig = field(default_factory=TagStartConfig)
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
            "start.seed": (self.start.seed, 0),
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
                self.model.products == "float32" and self.model.remat == "nothing",
                "products and remat of a run are said by step.*, not by model.*; set them there",
            ),
            *super().rules(),
            (bool(self.data.train), "no data.train: name a prepared data set"),
            (bool(self.data.labels), "no data.labels: name a csv of file and labels"),
            (self.model.head is None, "model.head is made by the classes; leave it out"),
            (
                self.step.accumulate == 1,
                "step.accumulate: the head's normalisation sees a whole batch; give 1, and lower "
                "data.clips or step.blocks instead",
            ),
        ]
