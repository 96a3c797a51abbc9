"""Batches of packed blocks by their number: read anew at any step, by any number of processes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from tinymu_jax.audio.log_mel import SAMPLE_RATE, column_samples, num_frames
from tinymu_jax.data.augment import augment_stored, clip_rng, crop_length, max_columns
from tinymu_jax.data.config import NO_AUGMENT, AugmentConfig
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.records import Record, as_packed_question
from tinymu_jax.data.sampler import PackingPlan
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackedBlock, PackedGroup, PackingConfig, build_block


class Batch(NamedTuple):
    """N blocks of C clips each, as one training step takes them."""

    features: np.ndarray
    """(N, C, ...) as the data set stores them, zeros behind a clip's end: waveform (n,), log_mel
    (frames, F) or embeddings (A, E)."""
    lengths: Int[np.ndarray, "N C"]
    """Samples, frames or vectors of each clip; 0 where a block has fewer clips."""
    records: Int[np.ndarray, "N C"]
    """Which clip of the data set it is; -1 where there is none."""
    blocks: PackedBlock
    """With a leading axis N."""


class ClipReader:
    """Reads clips of a data set side by side, padded to the longest that there is."""

    def __init__(
        self,
        dataset: Dataset,
        config: TinyMUConfig,
        augment: AugmentConfig = NO_AUGMENT,
        seed: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Arguments and errors as `PackedBatches`; `seconds`: how much of a clip is heard at most."""
        self.dataset, self.config = dataset, config
        self.augment, self.seed = augment, seed
        self.cap = max_columns(dataset, config, augment)
        example = dataset[0].features
        longest = int(dataset.index.columns.max())
        longest = longest if self.cap is None else min(longest, self.cap)
        side = config.encoder.patch_size
        if seconds is not None:
            longest = min(longest, -(-num_frames(round(seconds * SAMPLE_RATE)) // side))
        frames = longest * side
        # A longer waveform has no more whole frames.
        self.size = {
            "embeddings": longest,
            "text": longest,
            "log_mel": frames,
            "waveform": column_samples(frames),
        }[dataset.features.kind]
        self.kind = (example.shape[1:], example.dtype)

    def read(
        self, records: Sequence[Record], block: int, places: int
    ) -> tuple[np.ndarray, Int[np.ndarray, "C"]]:
        """Returns features (C, ...) and their lengths, zeros where there are fewer clips.

        Args:
            records: that were read.
            block: which they are of; by it and their place chance changes them.
            places: C.
        """
        shape, dtype = self.kind
        features = np.zeros((places, self.size, *shape), dtype)
        lengths = np.zeros(places, np.int32)
        for clip, record in enumerate(records):
            own = self._features(record, block, clip)[: self.size]
            features[clip, : len(own)], lengths[clip] = own, len(own)
        return features, lengths

    def _features(self, record: Record, block: int, clip: int) -> np.ndarray:
        """Returns a clip as it is stored, or as chance has it in that place of the run."""
        if not self.augment.enabled:
            return record.features
        rng = clip_rng(self.seed, block, clip)
        return augment_stored(record.features, rng, self.augment, crop_length(self.config))


class PackedBatches:
    """All steps of a run, found by their number: what this process computes of each."""

    def __init__(
        self,
        dataset: Dataset,
        plan: PackingPlan,
        packing: PackingConfig,
        config: TinyMUConfig,
        blocks: int,
        own: Sequence[int] | None = None,
        augment: AugmentConfig = NO_AUGMENT,
        seed: int = 0,
    ) -> None:
        """Takes a plan that all processes have made alike.

        Args:
            dataset: prepared.
            plan: of all epochs, from lengths with the cap that `max_columns` gives for `augment`.
            packing: what the plan was made for.
            config: of the model.
            blocks: of one step, over all processes.
            own: which of a step's blocks this process computes; default all.
            augment: how waveforms are changed.
            seed: of that.

        Raises:
            InputError: as `tinymu_jax.data.augment.max_columns`.
        """
        self.dataset, self.plan, self.packing, self.config = dataset, plan, packing, config
        self.blocks, self.own = blocks, list(range(blocks) if own is None else own)
        self.reader = ClipReader(dataset, config, augment, seed)
        self.num_audio = dataset.lengths(config, self.reader.cap).audio

    def __len__(self) -> int:
        """Steps, the last of which may have empty blocks."""
        return -(-self.plan.num_blocks // self.blocks)

    def __getitem__(self, step: int) -> Batch:
        """Reads one step's clips and lays their questions out."""
        numbers = [step * self.blocks + i for i in self.own]
        made = [self._block(number) for number in numbers]
        return jax.tree.map(lambda *parts: np.stack(parts), *made)

    def _block(self, number: int) -> Batch:
        """Reads one block; one behind the last is empty."""
        plan, packing = self.plan, self.packing
        span = range(0)
        if number < plan.num_blocks:
            span = range(plan.start[number], plan.start[number + 1])
        groups = [int(plan.group[at]) for at in span]
        records = list(dict.fromkeys(int(plan.groups.record[group]) for group in groups))
        read = {record: self.dataset[record] for record in records}
        features, lengths = self.reader.read(list(read.values()), number, packing.max_clips)
        index = self.dataset.index
        placed = []
        for at, group in zip(span, groups, strict=True):
            record = int(plan.groups.record[group])
            start = index.first[record]
            own = slice(plan.groups.first[group] - start, plan.groups.stop[group] - start)
            questions = [as_packed_question(q, self.config) for q in read[record].questions[own]]
            row, count = int(plan.row[at]), int(self.num_audio[record])
            placed.append(PackedGroup(row, records.index(record), count, questions))
        padded = np.full(packing.max_clips, -1, np.int32)
        padded[: len(records)] = records
        return Batch(features, lengths, padded, build_block(placed, packing, self.config))


def iterate(
    batches: PackedBatches, start: int = 0, threads: int = 8, ahead: int = 2
) -> Iterator[Any]:
    """Yields the steps from `start` on, read ahead by Grain's threads.

    The position in the data is the number of the step: whoever goes on at it, on however many
    processes, repeats no example and leaves none out.

    Args:
        batches: of this process.
        start: the first step.
        threads: that read.
        ahead: steps that wait, read.
    """
    import grain

    steps = grain.MapDataset.range(start, len(batches)).map(batches.__getitem__)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    yield from steps.to_iter_dataset(options)
