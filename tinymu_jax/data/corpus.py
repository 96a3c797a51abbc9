"""Recordings that an encoder is pre-trained on: of a prepared data set, or of a folder as it is."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tinymu_jax import audio
from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.dataset import DATASET_FILE, Dataset
from tinymu_jax.data.features import as_log_mel, read
from tinymu_jax.data.recordings import heard_in
from tinymu_jax.errors import InputError
from tinymu_jax.files import exists

AS_PUBLISHED = FeatureConfig(
    "log_mel", mono="mean", resampler="kaiser-best", max_seconds=float(audio.LONGEST)
)
"""How MATPAC's pre-training reads a recording: all of it, the mean of its channels."""


class Corpus(ABC):
    """Log-mels by number; those with fewer frames than a crop are left out."""

    place: Path
    short: int
    """Recordings that are left out because they are too short."""
    unusable: int = 0
    """Recordings that are left out because they cannot be read."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns how many there are."""

    @abstractmethod
    def name(self, number: int) -> str:
        """Returns what a recording is called."""

    @abstractmethod
    def log_mel(self, number: int) -> Float[np.ndarray, "frames F"]:
        """Returns all frames of a recording, normalised, as float16.

        Raises:
            InputError: it cannot be read.
        """


class StoredCorpus(Corpus):
    """The log-mels of a prepared data set."""

    def __init__(self, folder: str | Path, frames: int, side: int) -> None:
        """Opens it.

        Args:
            folder: of `tinymu data prepare`.
            frames: of a crop.
            side: frames of a patch, by which lengths are known.

        Raises:
            InputError: it is no data set, or stores something else.
        """
        self.place, self.dataset = Path(folder), Dataset(folder)
        if self.dataset.features.store != "log_mel":
            raise InputError(
                f"{folder}: stores {self.dataset.features.store}, and pre-training crops log_mel; "
                "prepare it with --store log_mel"
            )
        columns = self.dataset.index.columns
        # Of these the last patch may be one in part.
        doubtful = np.flatnonzero((columns - 1) * side < frames)
        short = [i for i in doubtful if len(self.dataset[int(i)].features) < frames]
        self.kept = np.setdiff1d(np.arange(len(columns)), np.array(short, int))
        self.short = len(short)

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.kept)

    def name(self, number: int) -> str:
        """Returns what a recording is called."""
        return self.dataset[int(self.kept[number])].clip

    def log_mel(self, number: int) -> Float[np.ndarray, "frames F"]:
        """Returns all frames of a recording."""
        return self.dataset[int(self.kept[number])].features


class FolderCorpus(Corpus):
    """Recordings in a folder and those below it, read whenever they are heard."""

    def __init__(self, folder: str | Path, frames: int) -> None:
        """Finds them; arguments as `StoredCorpus`.

        Raises:
            InputError: there are none.
        """
        self.place = Path(folder)
        found = heard_in(self.place)
        lengths = {path: _frames_of(path) for path in found}
        self.paths = [path for path, count in lengths.items() if count >= frames]
        self.unusable = sum(count < 0 for count in lengths.values())
        self.short = len(found) - len(self.paths) - self.unusable

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.paths)

    def name(self, number: int) -> str:
        """Returns what a recording is called."""
        return str(self.paths[number].relative_to(self.place))

    def log_mel(self, number: int) -> Float[np.ndarray, "frames F"]:
        """Returns all frames of a recording."""
        return as_log_mel(read(self.paths[number], AS_PUBLISHED))


def _frames_of(path: Path) -> int:
    """Returns a recording's frames by its header; -1 where it has none that can be read."""
    import soundfile

    try:
        info = soundfile.info(os.fsencode(path))
    except (OSError, soundfile.LibsndfileError):
        return -1
    samples = -(-info.frames * audio.SAMPLE_RATE // max(info.samplerate, 1))
    return max(0, audio.num_frames(samples))


def open_corpus(folder: str | Path, frames: int, side: int) -> Corpus:
    """Returns the recordings of a prepared data set, or of a folder; arguments as `StoredCorpus`.

    Raises:
        InputError: there are none, or none that is long enough.
    """
    stored = exists(Path(folder) / DATASET_FILE)
    corpus: Any = StoredCorpus(folder, frames, side) if stored else FolderCorpus(folder, frames)
    if not len(corpus):
        raise InputError(
            f"{folder}: none of its {corpus.short + corpus.unusable} recordings has the "
            f"{frames} frames ({frames / 100:g} s) of a crop; name longer ones, or lower "
            "model.encoder.num-frames"
        )
    return corpus
