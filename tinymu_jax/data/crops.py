"""Random crops of log-mels for pre-training the encoder, by step number."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tinymu_jax.audio.load import MAX_CLIP_SECONDS, list_audio_files
from tinymu_jax.audio.log_mel import SAMPLE_RATE, num_frames
from tinymu_jax.data.augment import clip_rng
from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.dataset import DATASET_FILE, Dataset
from tinymu_jax.data.features import as_log_mel, read_recording
from tinymu_jax.data.sampler import EpochBatches
from tinymu_jax.errors import InputError, report
from tinymu_jax.utils.files import exists

MATPAC_FEATURES = FeatureConfig(
    "log_mel", mono="mean", resampler="kaiser-best", max_seconds=float(MAX_CLIP_SECONDS)
)
"""How MATPAC's pre-training reads recordings: whole, and the mean of their channels."""

MAX_UNUSABLE = 10
"""Consecutive unusable recordings before an error."""


class Corpus(ABC):
    """Recordings with at least as many frames as a crop."""

    folder: Path
    entries: Sequence
    """What identifies each recording in its source."""
    num_short: int
    """Skipped recordings with too few frames."""
    num_unusable: int = 0
    """Skipped recordings that cannot be read."""

    def __len__(self) -> int:
        return len(self.entries)

    @abstractmethod
    def name(self, number: int) -> str:
        """Returns the name of a recording."""

    @abstractmethod
    def log_mel(self, number: int) -> Float[np.ndarray, "frames F"]:
        """Returns the normalized log-mel of a whole recording, float16.

        Raises:
            InputError: the recording cannot be read.
        """


class StoredCorpus(Corpus):
    """The log-mels of a prepared data set."""

    def __init__(self, folder: str | Path, frames: int, patch_size: int) -> None:
        """Opens a data set of log-mels; `patch_size`: frames per encoder output in its index."""
        self.folder, self.dataset = Path(folder), Dataset(folder)
        if self.dataset.features.kind != "log_mel":
            raise InputError(
                f"{folder}: stores {self.dataset.features.kind}, and pre-training crops log_mel; "
                "prepare it with --features log_mel"
            )
        columns = self.dataset.index.columns
        # The last patch may be partial, so recordings near the limit are measured.
        candidates = np.flatnonzero((columns - 1) * patch_size < frames)
        short = [i for i in candidates if len(self.dataset[int(i)].features) < frames]
        self.entries = np.setdiff1d(np.arange(len(columns)), np.array(short, int))
        self.num_short = len(short)

    def name(self, number: int) -> str:
        """Returns the path of a recording."""
        return self.dataset[int(self.entries[number])].clip

    def log_mel(self, number: int) -> Float[np.ndarray, "frames F"]:
        """Returns a stored log-mel."""
        return self.dataset[int(self.entries[number])].features


class FolderCorpus(Corpus):
    """All recordings below a folder, decoded at every access."""

    def __init__(self, folder: str | Path, frames: int) -> None:
        """Lists the recordings; a crop has `frames` frames."""
        self.folder = Path(folder)
        lengths = {path: _frames_by_header(path) for path in list_audio_files(self.folder)}
        self.entries = [path for path, count in lengths.items() if count >= frames]
        self.num_unusable = sum(count < 0 for count in lengths.values())
        self.num_short = len(lengths) - len(self.entries) - self.num_unusable

    def name(self, number: int) -> str:
        """Returns the path of a recording below the folder."""
        return str(self.entries[number].relative_to(self.folder))

    def log_mel(self, number: int) -> Float[np.ndarray, "frames F"]:
        """Reads a recording and computes its log-mel."""
        return as_log_mel(read_recording(self.entries[number], MATPAC_FEATURES))


def _frames_by_header(path: Path) -> int:
    """Returns a recording's number of frames according to its header; -1 if unreadable."""
    import soundfile

    try:
        info = soundfile.info(os.fsencode(path))
    except (OSError, soundfile.LibsndfileError):
        return -1
    samples = -(-info.frames * SAMPLE_RATE // max(info.samplerate, 1))
    return max(0, num_frames(samples))


def open_corpus(folder: str | Path, frames: int, patch_size: int) -> Corpus:
    """Opens a prepared data set or a folder of recordings; see `StoredCorpus`.

    Raises:
        InputError: no recording has enough frames.
    """
    stored = exists(Path(folder) / DATASET_FILE)
    corpus = StoredCorpus(folder, frames, patch_size) if stored else FolderCorpus(folder, frames)
    if not len(corpus):
        raise InputError(
            f"{folder}: none of its {corpus.num_short + corpus.num_unusable} recordings has the "
            f"{frames} frames ({frames / 100:g} s) of a crop; name longer ones, or lower "
            "model.encoder.num-frames"
        )
    return corpus


class CropBatch(NamedTuple):
    """N blocks of C crops."""

    log_mel: Float[np.ndarray, "N C frames F"]
    """float16, normalized."""
    number: Int[np.ndarray, "N"]
    """Index of each block in the run, which seeds its masks."""


class CropBatches(EpochBatches):
    """Batches of random crops."""

    def __init__(
        self,
        corpus: Corpus,
        frames: int,
        clips: int,
        blocks: int,
        block_ids: Sequence[int],
        epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        """Takes a corpus and the number of frames of a crop; see `EpochBatches`."""
        self.corpus, self.frames = corpus, frames
        self._reported: set[int] = set()
        super().__init__(corpus.folder, len(corpus), clips, blocks, block_ids, seed, epochs, steps)

    def name(self, number: int) -> str:
        """Returns the name of a recording."""
        return self.corpus.name(number)

    def read_block(self, numbers: Int[np.ndarray, "C"], block: int) -> CropBatch:
        """Reads a block; see `EpochBatches`."""
        crops = [self._crop(int(clip), block, index) for index, clip in enumerate(numbers)]
        return CropBatch(np.array(crops), np.int32(block))

    def _crop(self, clip: int, block: int, index: int) -> Float[np.ndarray, "frames F"]:
        """Returns a random crop, seeded by block and index.

        An unusable recording is replaced by the next one.
        """
        candidates = ((clip + offset) % len(self.corpus) for offset in range(MAX_UNUSABLE))
        log_mel = next((x for x in map(self._try_read, candidates) if x is not None), None)
        if log_mel is None:
            raise InputError(
                f"{self.corpus.name(clip)}: cannot be used, nor can the {MAX_UNUSABLE - 1} "
                "recordings after it; find unusable ones with: tinymu data prepare --audio "
                f"{self.corpus.folder}"
            )
        start = clip_rng(self.seed, block, index).integers(len(log_mel) - self.frames + 1)
        return log_mel[start : start + self.frames]

    def _try_read(self, clip: int) -> Float[np.ndarray, "frames F"] | None:
        """Returns a recording's log-mel, or None if it is unusable, which is reported once."""
        try:
            log_mel = self.corpus.log_mel(clip)
            if len(log_mel) >= self.frames:
                return log_mel
            fault = InputError(
                f"{self.corpus.name(clip)}: has {len(log_mel)} frames, fewer than its header "
                "says; another recording is used in its place"
            )
        except InputError as error:
            fault = error
        if clip not in self._reported:
            self._reported.add(clip)
            report(fault)
        return None
