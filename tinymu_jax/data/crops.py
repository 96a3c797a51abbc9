"""Batches of random log-mel crops, by step number, for pre-training the encoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tinymu_jax.audio.decode import audio_length
from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.audio.load import MAX_CLIP_SECONDS
from tinymu_jax.audio.log_mel import SAMPLE_RATE, num_frames
from tinymu_jax.data.augment import clip_rng
from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.dataset import DATASET_FILE, Dataset
from tinymu_jax.data.features import as_log_mel, read_recording
from tinymu_jax.data.loader import EpochBatches
from tinymu_jax.data.unusable import bad_entry
from tinymu_jax.errors import InputError, report
from tinymu_jax.utils.files import exists

MATPAC_FEATURES = FeatureConfig(
    "log_mel", mono="mean", resampler="kaiser-best", max_seconds=float(MAX_CLIP_SECONDS)
)
"""How MATPAC's pre-training reads recordings: at full length, with averaged channels."""
MAX_UNUSABLE = 10
"""Number of consecutive unusable recordings after which reading a crop fails."""


@dataclass(frozen=True)
class Corpus:
    """The recordings of a folder that have at least as many frames as a crop."""

    folder: Path
    size: int
    name: Callable[[int], str]
    """Function that returns the name of the recording with a given index."""
    log_mel: Callable[[int], Float[np.ndarray, "frames F"]]
    """Function that returns the normalized float16 log-mel of the recording with a given index."""
    num_short: int
    """Number of skipped recordings that have fewer frames than a crop."""
    bad: Sequence[Mapping[str, str]] = ()
    """The skipped recordings that cannot be read, with the reasons; see `bad_entry`."""

    def __len__(self) -> int:
        return self.size

    @property
    def total(self) -> int:
        """Number of recordings, with the skipped ones."""
        return self.size + self.num_short + len(self.bad)


def open_corpus(
    folder: str | Path, frames: int, patch_size: int, keep_damaged: bool = False
) -> Corpus:
    """Open the recordings of a prepared data set of log-mels, or of a folder of audio files.

    Recordings with fewer than `frames` log-mel frames (one crop) are skipped. `patch_size` is the
    number of frames per encoder output. `keep_damaged` is whether to use what can be read of a
    damaged file.

    Raises:
        InputError: the data set has no log-mels, or no recording has enough frames.
    """
    stored = exists(Path(folder) / DATASET_FILE)
    corpus = (
        stored_corpus(folder, frames, patch_size)
        if stored
        else folder_corpus(folder, frames, keep_damaged)
    )
    if not len(corpus):
        bad = corpus.bad
        unusable = f" ({len(bad)} cannot be used, the first: {bad[0]['reason']})" if bad else ""
        raise InputError(
            f"{folder}: none of its {corpus.total} recordings has the {frames} frames "
            f"({frames / 100:g} s) of a crop{unusable}; name longer ones, or lower "
            "model.encoder.num-frames"
        )
    return corpus


def stored_corpus(folder: str | Path, frames: int, patch_size: int) -> Corpus:
    """Open a prepared data set; see `open_corpus`. Raise `InputError` if it has no log-mels."""
    dataset = Dataset(folder)
    if dataset.features.kind != "log_mel":
        raise InputError(
            f"{folder}: stores {dataset.features.kind}, and pre-training crops log_mel; "
            "prepare it with --features log_mel"
        )
    columns = dataset.index.columns
    # The index counts a partial last patch as whole, so recordings near the limit are measured.
    candidates = np.flatnonzero((columns - 1) * patch_size < frames).tolist()
    short = {i for i in candidates if len(dataset[i].features) < frames}
    records = [i for i in range(len(columns)) if i not in short]
    return Corpus(
        Path(folder),
        len(records),
        lambda number: dataset[records[number]].clip,
        lambda number: dataset[records[number]].features,
        len(short),
    )


def folder_corpus(folder: str | Path, frames: int, keep_damaged: bool = False) -> Corpus:
    """List a folder's audio files of at least `frames` frames; each access decodes the file."""
    folder = Path(folder)
    features = replace(MATPAC_FEATURES, keep_damaged=keep_damaged)
    lengths = {path: _num_frames(path, keep_damaged) for path in list_audio_files(folder)}
    paths = [p for p, length in lengths.items() if isinstance(length, int) and length >= frames]
    bad = [bad_entry(p, error) for p, error in lengths.items() if isinstance(error, InputError)]
    return Corpus(
        folder,
        len(paths),
        lambda number: str(paths[number].relative_to(folder)),
        lambda number: as_log_mel(read_recording(paths[number], features)),
        len(lengths) - len(paths) - len(bad),
        bad,
    )


def _num_frames(path: Path, keep_damaged: bool) -> int | InputError:
    """Compute an audio file's number of log-mel frames; return the error if it is unreadable."""
    try:
        length, rate = audio_length(path, keep_damaged)
    except InputError as error:
        return error
    return max(0, num_frames(-(-length * SAMPLE_RATE // max(rate, 1))))


class CropBatch(NamedTuple):
    """Random crops for one training step: N blocks of C crops (a block goes to one device)."""

    log_mel: Float[np.ndarray, "N C frames F"]
    """Normalized log-mel of each crop, float16."""
    number: Int[np.ndarray, "N"]
    """Index of each block in the run, from which the block's random masks are seeded."""


class CropBatches(EpochBatches):
    """Batches of random log-mel crops from a corpus, by step number."""

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
        """Plan batches of crops of `frames` frames; see `EpochBatches` for the other arguments."""
        self.corpus, self.frames = corpus, frames
        self._reported: set[int] = set()
        super().__init__(corpus.folder, len(corpus), clips, blocks, block_ids, seed, epochs, steps)

    def name(self, number: int) -> str:
        """Return the name of the recording with a given index in the corpus."""
        return self.corpus.name(number)

    def read_block(self, numbers: Int[np.ndarray, "C"], block: int) -> CropBatch:
        """Read a random crop of each of C recordings; see `EpochBatches.read_block`."""
        crops = [self._crop(int(clip), block, index) for index, clip in enumerate(numbers)]
        return CropBatch(np.array(crops), np.int32(block))

    def _crop(self, clip: int, block: int, index: int) -> Float[np.ndarray, "frames F"]:
        """Return a random crop of recording `clip`, or of the next usable one in the corpus.

        `index` is the crop's place in `block`; see `clip_rng`.
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
        """Return a recording's log-mel; if it is unusable, report this once and return None."""
        try:
            log_mel = self.corpus.log_mel(clip)
            if len(log_mel) >= self.frames:
                return log_mel
            fault = InputError(
                f"{self.corpus.name(clip)}: has {len(log_mel)} frames, fewer than its header "
                "says; another recording is used in its place"
            )
        except InputError as error:
            fault = InputError(f"{error}; another recording is used in its place")
        if clip not in self._reported:
            self._reported.add(clip)
            report(fault)
        return None
