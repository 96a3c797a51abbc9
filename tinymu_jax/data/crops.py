"""Crops of log-mels for pre-training, found by the number of the step."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tinymu_jax.audio.load import MAX_CLIP_SECONDS, list_audio_files
from tinymu_jax.audio.log_mel import SAMPLE_RATE, num_frames
from tinymu_jax.data.augment import clip_rng
from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.dataset import DATASET_FILE, Dataset
from tinymu_jax.data.features import as_log_mel, read_recording
from tinymu_jax.data.sampler import EpochSampler
from tinymu_jax.errors import InputError, report
from tinymu_jax.utils.files import exists

MAX_UNUSABLE = 10
"""Recordings in a row that may be unusable."""


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
        if self.dataset.features.kind != "log_mel":
            raise InputError(
                f"{folder}: stores {self.dataset.features.kind}, and pre-training crops log_mel; "
                "prepare it with --features log_mel"
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
        found = list_audio_files(self.place)
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
        return as_log_mel(read_recording(self.paths[number], MATPAC_FEATURES))


def _frames_of(path: Path) -> int:
    """Returns a recording's frames by its header; -1 where it has none that can be read."""
    import soundfile

    try:
        info = soundfile.info(os.fsencode(path))
    except (OSError, soundfile.LibsndfileError):
        return -1
    samples = -(-info.frames * SAMPLE_RATE // max(info.samplerate, 1))
    return max(0, num_frames(samples))


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


class CropBatch(NamedTuple):
    """N blocks of C crops."""

    log_mel: Float[np.ndarray, "N C frames F"]
    """float16, normalised."""
    number: Int[np.ndarray, "N"]
    """Of each block in the run: its masks are drawn by it."""


class CropBatches:
    """All steps of a run, found by their number."""

    def __init__(
        self,
        corpus: Corpus,
        frames: int,
        clips: int,
        blocks: int,
        own: Sequence[int],
        epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        """Takes the recordings, and how many crops there are at once.

        Args:
            corpus: of recordings with as many frames or more.
            frames: of a crop.
            clips: C, of one block.
            blocks: of one step, over all processes.
            own: which of a step's blocks this process reads.
            epochs: how often each recording comes; 0 means as often as `steps` needs.
            steps: of the run, where `epochs` does not say.
            seed: of the order and the crops.

        Raises:
            InputError: there are fewer recordings than a step takes.
        """
        self.corpus, self.frames, self.own, self.seed = corpus, frames, own, seed
        self._unusable: set[int] = set()
        self.order = EpochSampler(corpus.place, len(corpus), clips, blocks, seed, epochs, steps)

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, step: int) -> CropBatch:
        """Reads this process's blocks of a step."""
        numbers = self.order.numbers(step)
        blocks = [step * self.order.blocks + block for block in self.own]
        crops = [
            [self._crop(int(clip), block, place) for place, clip in enumerate(numbers[own])]
            for own, block in zip(self.own, blocks, strict=True)
        ]
        return CropBatch(np.array(crops), np.array(blocks, np.int32))

    def _crop(self, clip: int, block: int, place: int) -> Float[np.ndarray, "frames F"]:
        """Returns a random stretch, the same again in the same place of a run.

        Of a recording that turns out unusable it is one of the next recording's: what a folder
        holds must not change while a run goes on.
        """
        for number in range(MAX_UNUSABLE):
            log_mel = self._whole((clip + number) % len(self.corpus))
            if log_mel is not None:
                break
        else:
            raise InputError(
                f"{self.corpus.name(clip)}: cannot be used, nor can the {MAX_UNUSABLE - 1} recordings "
                f"after it; sort them out: tinymu data prepare --audio {self.corpus.place}"
            )
        start = clip_rng(self.seed, block, place).integers(len(log_mel) - self.frames + 1)
        return log_mel[start : start + self.frames]

    def _whole(self, clip: int) -> Float[np.ndarray, "frames F"] | None:
        """Returns a recording, or None if it cannot be used, which is said once."""
        try:
            log_mel = self.corpus.log_mel(clip)
            if len(log_mel) >= self.frames:
                return log_mel
            fault = InputError(
                f"{self.corpus.name(clip)}: has {len(log_mel)} frames and not as many as its "
                "header says; another is heard in its place"
            )
        except InputError as error:
            fault = error
        if clip not in self._unusable:
            self._unusable.add(clip)
            report(fault)
        return None

    def names(self, step: int) -> list[str]:
        """Returns what a step's recordings are called."""
        return [self.corpus.name(int(i)) for i in self.order.numbers(step).reshape(-1)]


MATPAC_FEATURES = FeatureConfig(
    "log_mel", mono="mean", resampler="kaiser-best", max_seconds=float(MAX_CLIP_SECONDS)
)
"""How MATPAC's pre-training reads a recording: all of it, the mean of its channels."""
