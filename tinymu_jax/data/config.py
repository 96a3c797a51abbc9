"""How data sets are prepared and packed, as frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.config import Mono, Serialised

Store = Literal["waveform", "log_mel", "embeddings"]
Resampling = Literal["torchaudio", "kaiser-best"]


@dataclass(frozen=True)
class FeatureConfig(Serialised):
    """How clips are read, and what of them is kept."""

    store: Store = "log_mel"
    """waveform (int16, 16 kHz): 320 kB for 10 s, can be augmented; log_mel (float16): 160 kB;
    embeddings of the frozen encoder (bfloat16): 480 kB, and no encoder in the training step."""
    mono: Mono = "first"
    """The first channel, as TinyMU is trained, or the mean of all, as MATPAC is."""
    resampler: Resampling = "torchaudio"
    """torchaudio's default, as TinyMU is trained, or kaiser-best, as MATPAC is."""
    max_seconds: float = 10.0
    """How much of a recording is kept."""


@dataclass(frozen=True)
class PrepareConfig:
    """How a data set is made."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """What is stored of each clip."""
    clips_per_shard: int = 1024
    """Clips of one file, and what is made anew after a kill."""
    max_bad: float = 0.001
    """Share of recordings that may be missing or unusable."""
    workers: int = 0
    """Processes; 0 means one per core."""


@dataclass(frozen=True)
class PackingConfig:
    """How large blocks are."""

    row_slots: int = 1024
    """Slots of a row. Where attention is dense it costs their square: little more than the
    longest group is best there."""
    rows: int = 8
    """Rows of a block."""
    clips: int = 24
    """Clips of a block: what the encoder computes."""
    labels: int = 4096
    """Answer tokens of a block: what gets scores."""
    questions_per_group: int = 0
    """Questions that share their clip's audio slots; 0 means all of the clip's."""
    waiting: int = 512
    """Groups that wait to be placed: the more, the fuller the rows, and the longer a group waits
    for its turn in the shuffled order."""
