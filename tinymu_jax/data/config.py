"""Configs of data sets: features, preparation, augmentation and synthesis."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.audio.load import Mono
from tinymu_jax.utils.config_base import ConfigBase

FeatureKind = Literal["waveform", "log_mel", "embeddings", "text"]

Resampling = Literal["torchaudio", "kaiser-best"]


@dataclass(frozen=True)
class FeatureConfig(ConfigBase):
    """How recordings are read, and what is stored of them."""

    kind: FeatureKind = "log_mel"
    """waveform (int16, 16 kHz): 320 kB for 10 s, can be augmented; log_mel (float16): 160 kB;
    embeddings of the frozen encoder (bfloat16): 480 kB, the training step skips the encoder;
    text: token ids of a text file in place of audio, for text-only training of the decoder."""
    mono: Mono = "first"
    """The first channel, as TinyMU is trained, or the mean of all, as MATPAC is."""
    resampler: Resampling = "torchaudio"
    """torchaudio's default, as TinyMU is trained, or kaiser-best, as MATPAC is."""
    max_seconds: float = 10.0
    """Recordings are cut to this length."""


@dataclass(frozen=True)
class PrepareConfig:
    """How a data set is prepared."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """What is stored of each clip."""
    clips_per_shard: int = 1024
    """Clips in one file; an unfinished shard is redone after an interruption."""
    max_bad_fraction: float = 0.001
    """Largest fraction of recordings that may be missing or unusable."""
    workers: int = 0
    """Processes; 0 means one per core."""


@dataclass(frozen=True)
class AugmentConfig(ConfigBase):
    """Random augmentation of stored waveforms during training.

    Probabilities and ranges are the published ones; effects are applied in this order.
    """

    enabled: bool = False
    """Whether clips are augmented at all."""
    crop: bool = True
    """Take a random crop of the model's `max_seconds` from clips that are stored longer."""
    polarity_probability: float = 0.3
    """Probability of inverting the sign."""
    noise_probability: float = 0.3
    """Probability of adding Gaussian noise."""
    noise_min: float = 0.001
    """Lowest standard deviation of the noise; full scale is 1."""
    noise_max: float = 0.005
    """Highest standard deviation of the noise."""
    gain_probability: float = 0.5
    """Probability of changing the level."""
    gain_db: float = 6.0
    """Largest change of the level in decibels, up or down."""
    stretch_probability: float = 0.5
    """Probability of changing the tempo at constant pitch."""
    stretch_min: float = 0.95
    """Lowest tempo factor."""
    stretch_max: float = 1.05
    """Highest tempo factor."""
    pitch_probability: float = 0.5
    """Probability of changing the pitch at constant tempo."""
    semitones: float = 2.0
    """Largest change of the pitch in semitones, up or down."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns (whether it holds, description) of each constraint on the values."""
        effects = ("polarity", "noise", "gain", "stretch", "pitch")
        probabilities = [f"{name}_probability" for name in effects]
        return [
            *((0 <= getattr(self, p) <= 1, f"{p} must be in 0 to 1") for p in probabilities),
            (
                0 <= self.noise_min <= self.noise_max < 1,
                "noise_min must not exceed noise_max, both in 0 to below 1",
            ),
            (0 <= self.gain_db <= 60, "gain_db must be in 0 to 60"),
            (
                0.1 <= self.stretch_min <= self.stretch_max <= 10,
                "stretch_min must not exceed stretch_max, both in 0.1 to 10",
            ),
            (0 <= self.semitones <= 24, "semitones must be in 0 to 24"),
        ]


NO_AUGMENT = AugmentConfig()
"""Clips as they are stored."""


@dataclass(frozen=True)
class SynthesisConfig:
    """What is synthesised."""

    clips: int = 1000
    """Number of clips."""
    texts: int = 0
    """Number of clips that are only described in text."""
    seconds: float = 4.0
    """Length of a clip; below 2.5 s, slow clips have neither a metre nor a contour."""
    seed: int = 0
    """Random seed."""
    held_out: bool = False
    """Use only the combinations of facts reserved for tests, instead of only the others."""
    captions: int = 1
    """Captions per clip."""
    open: int = 2
    """Open questions per clip."""
    choice: int = 3
    """Multiple-choice questions per clip; the first is about the timbre."""
    binary: int = 5
    """Yes/no questions per clip."""
    timbre: str | None = None
    """Use this timbre for all clips."""
    extra: tuple[str, ...] = ()
    """Additional timbres (accordion) for clips and answer options."""
    workers: int = 0
    """Processes; 0 means one per core."""
