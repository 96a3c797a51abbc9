"""Training batches by step number; a step's clips do not depend on the number of processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
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
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackedBlock, PackedGroup, PackingConfig, build_block


class Batch(NamedTuple):
    """Clips and questions for one training step: N blocks of C clips (each block on one device)."""

    features: np.ndarray
    """Stored features of the clips, (N, C, ...), padded with zeros. The axes of a clip are
    (samples,), (frames, mel bands), (vectors, width) or (tokens,)."""
    lengths: Int[np.ndarray, "N C"]
    """Number of samples, frames, embeddings or tokens of each clip; 0 for padding clips."""
    records: Int[np.ndarray, "N C"]
    """Index of each clip's record in the data set; -1 for padding clips."""
    blocks: PackedBlock
    """Packed questions of the blocks; each array has a leading axis N."""


class ClipReader:
    """Stacks the features of clips, padded to the data set's longest clip or crop."""

    def __init__(
        self,
        dataset: Dataset,
        config: TinyMUConfig,
        augment: AugmentConfig = NO_AUGMENT,
        seed: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Prepare to read clips of at most `seconds`; see `PackedBatches` for other arguments."""
        self.dataset, self.config = dataset, config
        self.augment, self.seed = augment, seed
        self.cap = max_columns(dataset, config, augment)
        patch_size = config.encoder.patch_size
        columns = int(dataset.index.columns.max())
        if self.cap is not None:
            columns = min(columns, self.cap)
        if seconds is not None:
            columns = min(columns, -(-num_frames(round(seconds * SAMPLE_RATE)) // patch_size))
        frames = columns * patch_size
        # Samples beyond `column_samples` would not give another whole frame.
        sizes = {"log_mel": frames, "waveform": column_samples(frames)}
        self.size = sizes.get(dataset.features.kind, columns)
        example = dataset[0].features
        self.shape, self.dtype = example.shape[1:], example.dtype

    def read(
        self, records: Sequence[Record], block: int, num_clips: int
    ) -> tuple[np.ndarray, Int[np.ndarray, "C"]]:
        """Augment and stack a block's clips; return zero-padded features (C, ...) and lengths (C,).

        A block is the part of a batch that goes to one device. `num_clips` is C; it may exceed the
        number of `records`. `block` is the block's index in the run, which seeds the augmentation.
        """
        features = np.zeros((num_clips, self.size, *self.shape), self.dtype)
        lengths = np.zeros(num_clips, np.int32)
        for number, record in enumerate(records):
            clip = record.features
            if self.augment.enabled:
                rng = clip_rng(self.seed, block, number)
                clip = augment_stored(clip, rng, self.augment, crop_length(self.config))
            clip = clip[: self.size]
            features[number, : len(clip)], lengths[number] = clip, len(clip)
        return features, lengths


class PackedBatches:
    """Batches of packed questions, by step number; a batch holds only this process's blocks.

    A block is what goes to one device: clips, and rows of packed questions about these clips.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: PackingPlan,
        packing: PackingConfig,
        config: TinyMUConfig,
        blocks: int,
        block_ids: Sequence[int] | None = None,
        augment: AugmentConfig = NO_AUGMENT,
        seed: int = 0,
    ) -> None:
        """Split the blocks of a packing plan into steps.

        Args:
            dataset: prepared data set.
            plan: packing plan of all epochs, the same in all processes. If clips are cropped, its
                lengths must be limited by `tinymu_jax.data.augment.max_columns`.
            packing: packing settings with which the plan was made.
            config: config of the model.
            blocks: number of blocks per step, over all processes.
            block_ids: indices, within a step, of the blocks that this process computes; None: all.
            augment: waveform augmentation.
            seed: seed of the augmentation.

        Raises:
            InputError: see `tinymu_jax.data.augment.max_columns`.
        """
        self.dataset, self.plan, self.packing, self.config = dataset, plan, packing, config
        self.blocks = blocks
        self.block_ids = list(range(blocks) if block_ids is None else block_ids)
        self.reader = ClipReader(dataset, config, augment, seed)
        self.num_audio = dataset.lengths(config, self.reader.cap).audio

    def __len__(self) -> int:
        """Return the number of steps in the run; blocks of the last step may be empty."""
        return -(-self.plan.num_blocks // self.blocks)

    def __getitem__(self, step: int) -> Batch:
        """Read the clips and pack the questions of this process's blocks of a step."""
        blocks = [self._block(step * self.blocks + i) for i in self.block_ids]
        return jax.tree.map(lambda *parts: np.stack(parts), *blocks)

    def _block(self, number: int) -> Batch:
        """Read block `number` of the run, without axis N; a block beyond the plan is empty."""
        plan, packing = self.plan, self.packing
        entries = plan.entries(number)
        groups = plan.group[entries].tolist()
        records = list(dict.fromkeys(plan.groups.record[groups].tolist()))
        stored = {record: self.dataset[record] for record in records}
        features, lengths = self.reader.read(list(stored.values()), number, packing.max_clips)
        packed = []
        for row, group in zip(plan.row[entries].tolist(), groups, strict=True):
            record = int(plan.groups.record[group])
            offset = self.dataset.index.first[record]
            part = slice(plan.groups.first[group] - offset, plan.groups.stop[group] - offset)
            questions = [as_packed_question(q, self.config) for q in stored[record].questions[part]]
            num_audio = int(self.num_audio[record])
            packed.append(PackedGroup(row, records.index(record), num_audio, questions))
        padded = np.full(packing.max_clips, -1, np.int32)
        padded[: len(records)] = records
        return Batch(features, lengths, padded, build_block(packed, packing, self.config))


class EpochBatches(ABC):
    """Batches of clips by step number, shuffled anew each epoch.

    A block is C clips that go to one device; a batch holds only the blocks of this process. An
    epoch's incomplete last step is dropped.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        clips: int,
        blocks: int,
        block_ids: Sequence[int],
        seed: int,
        epochs: int,
        steps: int,
    ) -> None:
        """Plan the steps of a run.

        Args:
            folder: folder of the clips, for error messages.
            total: number of clips in the folder.
            clips: number of clips C per block.
            blocks: number of blocks N per step, over all processes.
            block_ids: indices, within a step, of the blocks that this process computes.
            seed: seed of the clips' order.
            epochs: number of passes over the clips; 0: `steps` sets the length of the run.
            steps: number of steps of the run if `epochs` is 0.

        Raises:
            InputError: there are fewer clips than a step takes.
        """
        self.total, self.size, self.blocks, self.block_ids = total, clips, blocks, block_ids
        self.seed = seed
        self.steps_per_epoch = total // (clips * blocks)
        if not self.steps_per_epoch:
            raise InputError(
                f"{folder}: has {total} clips that can be used, and a step takes {clips * blocks}; "
                "lower the clips of a block, or step.blocks"
            )
        self.steps = self.steps_per_epoch * epochs or steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        """Read this process's blocks of a step, stacked along axis N."""
        numbers = self.numbers(step)
        blocks = [self.read_block(numbers[i], step * self.blocks + i) for i in self.block_ids]
        return type(blocks[0])(*map(np.stack, zip(*blocks, strict=True)))

    def numbers(self, step: int) -> Int[np.ndarray, "N C"]:
        """Return the indices of the C clips in each of a step's N blocks, over all processes."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.total)
        count = self.blocks * self.size
        return order[index * count : (index + 1) * count].reshape(self.blocks, self.size)

    def names(self, step: int) -> list[str]:
        """Return the names of the recordings of all clips of a step, over all processes."""
        return [self.name(int(number)) for number in self.numbers(step).reshape(-1)]

    @abstractmethod
    def name(self, number: int) -> str:
        """Return the name of the recording from which clip `number` is read."""

    @abstractmethod
    def read_block(self, numbers: Int[np.ndarray, "C"], block: int) -> tuple[Any, ...]:
        """Read the C clips of one block; return a named tuple of arrays without axis N.

        `block` is the index of the block in the run, which seeds the block's randomness.
        """


def iterate(
    batches: PackedBatches | EpochBatches, start: int = 0, threads: int = 8, prefetch: int = 2
) -> Iterator[Any]:
    """Yield the batches of steps `start`, `start + 1`, ..., reading `prefetch` batches ahead.

    The step number is the loader's whole state: a resumed run repeats and skips no example.
    """
    import grain

    steps = grain.MapDataset.range(start, len(batches)).map(batches.__getitem__)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    yield from steps.to_iter_dataset(options)
