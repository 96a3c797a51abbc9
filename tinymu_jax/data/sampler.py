"""Plans which questions are packed into which row and block, from the questions' lengths alone.

A row is one decoder sequence. A block is several rows with their clips, and goes to one device.
All processes compute the same plan. A run's position in the data is a block number.
"""

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackingConfig, question_length


class SequenceLengths(NamedTuple):
    """Numbers of decoder positions of a data set's R clips and Q questions."""

    audio: Int[np.ndarray, "R"]
    """Number of projected audio vectors of each clip."""
    first: Int[np.ndarray, "R1"]
    """Index of each clip's first question, and Q as the last of R + 1 numbers."""
    prompt: Int[np.ndarray, "Q"]
    """Number of prompt tokens of each question."""
    labels: Int[np.ndarray, "Q"]
    """Number of answer tokens of each question, including the end token."""


class QuestionGroups(NamedTuple):
    """The N groups of a data set, in the order of the clips.

    A group is a clip's audio with consecutive questions about the clip, packed into one row.
    """

    record: Int[np.ndarray, "N"]
    """Index of each group's record (clip) in the data set."""
    first: Int[np.ndarray, "N"]
    """Index of each group's first question."""
    stop: Int[np.ndarray, "N"]
    """Index after each group's last question."""
    slots: Int[np.ndarray, "N"]
    """Number of decoder positions of each group, including audio and separator."""
    labels: Int[np.ndarray, "N"]


class BlockCounts(NamedTuple):
    """Contents of several blocks (each the rows and clips for one device), not counting padding."""

    questions: int
    slots: int
    """Number of decoder positions in use, including audio."""
    labels: int
    clips: int
    """Number of clips to encode; a clip counts once in every block that contains it."""


class PackingPlan(NamedTuple):
    """Assignment of N question groups, from all epochs, to rows in B blocks.

    A group is a clip's audio with questions about it. A block is the rows that go to one device.
    """

    groups: QuestionGroups
    group: Int[np.ndarray, "N"]
    """Index in `groups` of each assigned group."""
    row: Int[np.ndarray, "N"]
    """Row of the block to which each group is assigned."""
    start: Int[np.ndarray, "B1"]
    """Index of each block's first entry in `group` and `row`, and N as last of B + 1 numbers."""

    @property
    def num_blocks(self) -> int:
        """Number of blocks B in all epochs."""
        return len(self.start) - 1

    def entries(self, first: int, stop: int | None = None) -> slice:
        """Return the slice of `group` and `row` that holds blocks `first` to `stop - 1`.

        By default, it holds one block, `first`.
        """
        stop = first + 1 if stop is None else stop
        return slice(*(self.start[min(number, self.num_blocks)] for number in (first, stop)))

    def records(self, first: int, stop: int) -> list[int]:
        """Return the distinct indices of the records (clips) in blocks `first` to `stop - 1`."""
        groups = self.group[self.entries(first, stop)]
        return list(dict.fromkeys(self.groups.record[groups].tolist()))

    def counts(self, first: int, stop: int) -> BlockCounts:
        """Count the contents of blocks `first` to `stop - 1`; blocks beyond the plan are empty."""
        groups = self.group[self.entries(first, stop)]
        questions = self.groups.stop[groups] - self.groups.first[groups]
        sums = (questions, self.groups.slots[groups], self.groups.labels[groups])
        clips = sum(len(self.records(n, n + 1)) for n in range(first, min(stop, self.num_blocks)))
        return BlockCounts(*(int(numbers.sum()) for numbers in sums), clips)

    def fill(self, packing: PackingConfig) -> dict[str, float]:
        """Return the fraction of "slots" (decoder positions), "clips" and "labels" in use."""
        counts = self.counts(0, self.num_blocks)
        capacity = {
            "slots": packing.rows * packing.row_length,
            "clips": packing.max_clips,
            "labels": packing.max_labels,
        }
        return {
            name: getattr(counts, name) / (self.num_blocks * size)
            for name, size in capacity.items()
        }


def make_groups(
    lengths: SequenceLengths, packing: PackingConfig, config: TinyMUConfig
) -> QuestionGroups:
    """Split each clip's questions into groups, each as large as a packed row and a block allow.

    Raises:
        InputError: a question with its clip's audio is longer than a row, or has more labels than
            a block holds.
    """
    sizes = question_length(lengths.prompt, lengths.labels, config)
    max_questions = packing.questions_per_group or len(sizes)
    groups: list[tuple[int, int, int, int, int]] = []
    for record, audio in enumerate(lengths.audio.tolist()):
        start, stop = lengths.first[record : record + 2].tolist()
        shared = audio + 1  # the separator
        slots, labels = sizes[start:stop].tolist(), lengths.labels[start:stop].tolist()
        first, used, scored = start, shared, 0
        for number, (size, count) in enumerate(zip(slots, labels, strict=True), start):
            if shared + size > packing.row_length or count > packing.max_labels:
                raise InputError(
                    f"record {record}: question {number - start} takes {shared + size} slots with "
                    f"its audio and {count} labels; rows have {packing.row_length} "
                    f"(packing.row_length), blocks {packing.max_labels} (packing.max_labels): "
                    "enlarge them"
                )
            full = used + size > packing.row_length or scored + count > packing.max_labels
            if number > first and (full or number - first == max_questions):
                groups.append((record, first, number, used, scored))
                first, used, scored = number, shared, 0
            used, scored = used + size, scored + count
        if stop > first:
            groups.append((record, first, stop, used, scored))
    return QuestionGroups(*np.array(groups, np.int64).reshape(-1, 5).T)


def shuffled(groups: QuestionGroups, seed: int, epochs: int) -> Iterator[int]:
    """Yield each group's index once per epoch; clips are shuffled, with their groups together."""
    edges = np.flatnonzero(np.diff(groups.record, prepend=-1, append=-1))
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(edges) - 1)
        for clip in order.tolist():
            yield from range(edges[clip], edges[clip + 1])


def make_plan(
    groups: QuestionGroups, packing: PackingConfig, seed: int, epochs: int
) -> PackingPlan:
    """Shuffle the groups of all epochs and pack them into rows and blocks.

    Groups (a clip's audio with questions) wait in a buffer. A row first takes the oldest groups,
    then the one or two groups that best fill its rest. A block ends when its rows are full, or when
    it holds as many clips or labels as `packing` allows. Raises `InputError` without any groups.
    """
    if len(groups.record) == 0:
        raise InputError("the data set has no questions; prepare it from lists that have some")
    packer = _RowPacker(groups, packing, shuffled(groups, seed, epochs))
    group: list[int] = []
    row: list[int] = []
    start = [0]
    while packer.fill_buffer():
        packer.begin_block()
        for number in range(packing.rows):
            packed = packer.pack_row()
            group += packed
            row += [number] * len(packed)
        start.append(len(group))
    return PackingPlan(groups, *(np.array(x, np.int32) for x in (group, row, start)))


class _RowPacker:
    """Packs groups into rows from a buffer of groups, which is indexed by age and by length.

    A group's age is its position in the shuffled order of all epochs.
    """

    def __init__(
        self, groups: QuestionGroups, packing: PackingConfig, order: Iterator[int]
    ) -> None:
        self.packing, self.order = packing, order
        self.slots, self.labels = groups.slots.tolist(), groups.labels.tolist()
        self.record = groups.record.tolist()
        self.by_age: dict[int, int] = {}
        # Lengths and ages of the buffered groups, sorted by length.
        self.lengths: list[int] = []
        self.ages: list[int] = []
        self.next_age = self.total_length = 0
        self.begin_block()

    def fill_buffer(self) -> bool:
        """Fill the buffer with the next shuffled groups; return False if it stays empty."""
        while len(self.by_age) < self.packing.buffer_size:
            group = next(self.order, None)
            if group is None:
                break
            index = bisect.bisect_right(self.lengths, self.slots[group])
            self.lengths.insert(index, self.slots[group])
            self.ages.insert(index, self.next_age)
            self.by_age[self.next_age] = group
            self.total_length += self.slots[group]
            self.next_age += 1
        return bool(self.by_age)

    def begin_block(self) -> None:
        self.clips: set[int] = set()
        self.labels_left = self.packing.max_labels

    def pack_row(self) -> list[int]:
        """Take groups from the buffer for the block's next row; return the groups' indices."""
        row: list[int] = []
        room = self.packing.row_length
        while self.fill_buffer() and self.lengths[0] <= room:
            # While three groups of average length fit, take the oldest group; then the best fit.
            roomy = not row or room * len(self.lengths) > 3 * self.total_length
            ages = self._oldest(room) if roomy else self._best_fit(room) or self._oldest(room)
            if not ages:
                break
            for age in ages:
                group = self._take(age)
                room -= self.slots[group]
                row.append(group)
        return row

    def _take(self, age: int) -> int:
        """Move the group of a given age (position in the order) to the block; return its index."""
        group = self.by_age.pop(age)
        index = self.ages.index(age, bisect.bisect_left(self.lengths, self.slots[group]))
        del self.lengths[index], self.ages[index]
        self.total_length -= self.slots[group]
        self.clips.add(self.record[group])
        self.labels_left -= self.labels[group]
        return group

    def _oldest(self, room: int) -> list[int]:
        """Return the age of the oldest group that fits into `room` positions; [] if none fits."""
        return next(([age] for age in self.by_age if self._fit([age], room)), [])

    def _best_fit(self, room: int) -> list[int]:
        """Return the ages of the one or two groups that best fill `room` positions; [] if none."""
        single = bisect.bisect_right(self.lengths, room) - 1
        if single < 0:
            return []
        lengths = np.array(self.lengths)
        partner = np.searchsorted(lengths, room - lengths, side="right") - 1
        partner -= partner == np.arange(len(lengths))
        pair = np.where(partner < 0, 0, lengths + lengths[partner])
        best = int(pair.argmax())
        if pair[best] > lengths[single]:
            ages = [self.ages[best], self.ages[int(partner[best])]]
            if self._fit(ages, room):
                return ages
        return [self.ages[single]] if self._fit([self.ages[single]], room) else []

    def _fit(self, ages: Sequence[int], room: int) -> bool:
        """Return whether groups, given by age, fit into `room` positions and into the block."""
        groups = [self.by_age[age] for age in ages]
        return (
            sum(self.slots[group] for group in groups) <= room
            and sum(self.labels[group] for group in groups) <= self.labels_left
            and len(self.clips | {self.record[group] for group in groups}) <= self.packing.max_clips
        )
