"""How data sets are prepared and packed, as frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.audio.load import Mono
from tinymu_jax.utils.config_base import ConfigBase

Store = Literal["waveform", "log_mel", "embeddings", "text"]

Resampling = Literal["torchaudio", "kaiser-best"]


@dataclass(frozen=True)
class FeatureConfig(ConfigBase):
    """How clips are read, and what of them is kept."""

    store: Store = "log_mel"
    """waveform (int16, 16 kHz): 320 kB for 10 s, can be augmented; log_mel (float16): 160 kB;
    embeddings of the frozen encoder (bfloat16): 480 kB, and no encoder in the training step; text:
    the tokens of a text file in the recording's place, for a decoder that learns from words."""
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
class AugmentConfig(ConfigBase):
    """How stored waveforms are changed while training, anew each time one is read.

    Probabilities and ranges are the published ones; effects follow each other in this order.
    """

    enabled: bool = False
    """Whether anything is changed at all."""
    crop: bool = True
    """Hear a random stretch of the model's `max_seconds` of clips that are stored longer, instead
    of all of them."""
    polarity_probability: float = 0.3
    """Of turning the sign."""
    noise_probability: float = 0.3
    """Of adding normal noise."""
    noise_min: float = 0.001
    """Its lowest standard deviation, where full scale is 1."""
    noise_max: float = 0.005
    """Its highest."""
    gain_probability: float = 0.5
    """Of changing the level."""
    gain_db: float = 6.0
    """Most decibels up or down."""
    stretch_probability: float = 0.5
    """Of changing the tempo and not the pitch."""
    stretch_min: float = 0.95
    """Lowest tempo, as a multiple."""
    stretch_max: float = 1.05
    """Highest tempo."""
    pitch_probability: float = 0.5
    """Of changing the pitch and not the tempo."""
    semitones: float = 2.0
    """Most semitones up or down."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold: probabilities in 0 to 1, ranges from low to high."""
        effects = ("polarity", "noise", "gain", "stretch", "pitch")
        chances = {f"{name}_probability": getattr(self, f"{name}_probability") for name in effects}
        return [
            *((0 <= chance <= 1, f"{name} must be in 0 to 1") for name, chance in chances.items()),
            (
                0 <= self.noise_min <= self.noise_max < 1,
                "noise_min must be in 0 to noise_max, and that below 1",
            ),
            (0 <= self.gain_db <= 60, "gain_db must be in 0 to 60"),
            (
                0.1 <= self.stretch_min <= self.stretch_max <= 10,
                "stretch_min must be in 0.1 to stretch_max, and that in 10",
            ),
            (0 <= self.semitones <= 24, "semitones must be in 0 to 24"),
        ]


@dataclass(frozen=True)
class SynthesisConfig:
    """What is synthesised."""

    clips: int = 1000
    """How many."""
    texts: int = 0
    """Clips that are only told in words."""
    seconds: float = 4.0
    """Length of a clip; in less than 2.5 s a slow one has no metre and no contour."""
    seed: int = 0
    """Of everything."""
    held_out: bool = False
    """Only combinations of facts that are kept for tests, or only all others."""
    captions: int = 1
    """Captions of each clip."""
    open: int = 2
    """Open questions about each clip."""
    choice: int = 3
    """Multiple choice about each clip; the first about its timbre."""
    binary: int = 5
    """Questions for yes or no about each clip."""
    timbre: str | None = None
    """All clips have this one."""
    extra: tuple[str, ...] = ()
    """Timbres beside the usual ones (accordion) that clips may have, and questions offer."""
    workers: int = 0
    """Processes; 0 means one per core."""


UNCHANGED = AugmentConfig()
"""Clips as they are stored."""
