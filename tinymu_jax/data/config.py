"""Configs for preparing data sets, augmenting stored waveforms, and making music to learn from."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.audio.load import Mono
from tinymu_jax.utils.config_base import ConfigBase

FeatureKind = Literal["waveform", "log_mel", "embeddings", "text"]
Resampling = Literal["torchaudio", "kaiser-best"]


@dataclass(frozen=True)
class FeatureConfig(ConfigBase):
    """How recordings are read, and which features of them a prepared data set stores."""

    kind: FeatureKind = "log_mel"
    """Stored features of a clip. waveform (int16, 16 kHz): 320 kB for 10 s, can be augmented;
    log_mel (float16): 160 kB; embeddings of the frozen encoder (bfloat16): 480 kB, the training
    step skips the encoder; text: token ids of a text file, for text-only decoder training."""
    mono: Mono = "first"
    """Stored channel: the first (as in TinyMU's training), or the mean of all (as in MATPAC's)."""
    resampler: Resampling = "torchaudio"
    """Resampling filter: torchaudio's default (training of TinyMU) or kaiser-best (MATPAC)."""
    max_seconds: float = 10.0
    """Longest stored clip in seconds; the rest of a recording is cut off."""
    keep_damaged: bool = False
    """Whether to store what can be read of a damaged recording, instead of refusing it."""


@dataclass(frozen=True)
class PrepareConfig:
    """How a data set is prepared from recordings and questions."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """How recordings are read, and which features of them are stored."""
    clips_per_shard: int = 1024
    """Number of clips in one shard (a file); an interrupted run writes unfinished shards again."""
    max_bad_fraction: float = 0.001
    """Largest fraction of recordings that may be missing or unusable."""
    workers: int = 0
    """Number of processes that read recordings; 0 means one per core."""


@dataclass(frozen=True)
class AugmentConfig(ConfigBase):
    """Random augmentation of stored waveforms during training.

    Default probabilities and ranges are published; effects are applied in the order of the fields.
    """

    enabled: bool = False
    """Whether clips are cropped and changed at random; if False, all other fields are unused."""
    crop: bool = True
    """Whether to take a random crop of the model's `max_seconds` from longer clips."""
    polarity_probability: float = 0.3
    """Probability of inverting the sign of all samples."""
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
    """Lowest tempo factor; 1 keeps the tempo."""
    stretch_max: float = 1.05
    """Highest tempo factor; 1 keeps the tempo."""
    pitch_probability: float = 0.5
    """Probability of changing the pitch at constant tempo."""
    semitones: float = 2.0
    """Largest change of the pitch in semitones, up or down."""

    def rules(self) -> list[tuple[bool, str]]:
        """Return a (holds, description) pair for each constraint on the fields."""
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
"""Augmentation that is off: clips are used as they are stored."""


@dataclass(frozen=True)
class SynthesisConfig:
    """Which synthetic clips and questions are generated."""

    clips: int = 1000
    """Number of synthesized clips."""
    texts: int = 0
    """Number of clips that are described in a text file instead of synthesized."""
    seconds: float = 4.0
    """Length of a clip in seconds; below 2.5 s, slow clips are too short for metre and contour."""
    seed: int = 0
    """Random seed for the facts, sounds and questions of all clips."""
    held_out: bool = False
    """Whether to draw the combinations of facts (tempo, ...) reserved for tests, or all others."""
    captions: int = 1
    """Number of captions per clip."""
    open: int = 2
    """Number of open questions per clip."""
    choice: int = 3
    """Number of multiple-choice questions per clip; the first is about the timbre."""
    binary: int = 5
    """Number of yes/no questions per clip."""
    timbre: str | None = None
    """Timbre of all clips; None draws the timbre of each clip."""
    extra: tuple[str, ...] = ()
    """Additional timbres (accordion) for clips and answer options."""
    workers: int = 0
    """Number of processes that synthesize clips; 0 means one per core."""


@dataclass(frozen=True)
class RenderConfig(ConfigBase):
    """Which clips are rendered from free recordings and soundfonts."""

    material: str | None = None
    """Folder with an index.csv of free recordings; None renders music on soundfonts alone."""
    soundfonts: tuple[str, ...] = ()
    """Paths of General MIDI soundfonts (sf2 or sf3)."""
    clips: int = 1000
    """Number of clips."""
    texts: int = 0
    """Number of clips that are described in a text file instead of rendered, from which a decoder
    learns to answer."""
    seconds: float = 10.0
    """Length of a clip in seconds."""
    seed: int = 0
    """Random seed of all clips."""
    validation: bool = False
    """Whether to use the recordings that are for validation, or all others."""
    workers: int = 0
    """Number of processes; 0 means one per core."""

    def rules(self) -> list[tuple[bool, str]]:
        """Return a (holds, description) pair for each constraint on the fields."""
        return [
            (self.clips >= 1, "clips must be 1 or more"),
            (2 <= self.seconds <= 60, "seconds must be in 2 to 60"),
            (
                min(self.texts, self.seed, self.workers) >= 0,
                "texts, seed and workers must not be negative",
            ),
            (bool(self.soundfonts), "soundfonts must name a soundfont (sf2 or sf3)"),
        ]
