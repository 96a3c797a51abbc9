"""Which question is computed when: a plan that every process makes alike from lengths alone.

The position in the data is the number of a block; blocks are found again by it, whatever the
number of processes is.
"""

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackingConfig, question_length


class SequenceLengths(NamedTuple):
    """What the plan needs to know of a data set of R records and Q questions."""

    audio: Int[np.ndarray, "R"]
    """Audio vectors that the decoder reads of each clip."""
    first: Int[np.ndarray, "R1"]
    """The first question of each clip among all questions; at the end, their number."""
    prompt: Int[np.ndarray, "Q"]
    """Tokens of each prompt."""
    labels: Int[np.ndarray, "Q"]
    """Answer tokens of each question, the end token included."""


class QuestionGroups(NamedTuple):
    """All groups of a data set, in the order of its records: arrays of one length."""

    record: Int[np.ndarray, "N"]
    first: Int[np.ndarray, "N"]
    """The first question, among all questions of the data set."""
    stop: Int[np.ndarray, "N"]
    slots: Int[np.ndarray, "N"]
    labels: Int[np.ndarray, "N"]


class BlockCounts(NamedTuple):
    """What is computed, padding left out."""

    questions: int
    slots: int
    """Of the decoder, audio included."""
    labels: int
    """Slots that get scores."""
    clips: int
    """That the encoder hears."""


class PackingPlan(NamedTuple):
    """The groups of every block, in the order in which they are computed: B blocks, N places."""

    groups: QuestionGroups
    group: Int[np.ndarray, "N"]
    """Which group."""
    row: Int[np.ndarray, "N"]
    """In which row of its block."""
    start: Int[np.ndarray, "B1"]
    """The first place of each block; at the end, the number of places."""

    @property
    def num_blocks(self) -> int:
        """Blocks in all epochs."""
        return len(self.start) - 1

    def records(self, first: int, stop: int) -> list[int]:
        """Returns the clips of some blocks, each once."""
        first, stop = (min(number, self.num_blocks) for number in (first, stop))
        groups = self.group[self.start[first] : self.start[stop]]
        return list(dict.fromkeys(self.groups.record[groups].tolist()))

    def counts(self, first: int, stop: int) -> BlockCounts:
        """Returns what some blocks compute; those behind the last are empty."""
        first, stop = (min(number, self.num_blocks) for number in (first, stop))
        groups = self.group[self.start[first] : self.start[stop]]
        block = np.repeat(np.arange(first, stop), np.diff(self.start[first : stop + 1]))
        clips = {*zip(block.tolist(), self.groups.record[groups].tolist(), strict=True)}
        questions = self.groups.stop[groups] - self.groups.first[groups]
        sums = (questions, self.groups.slots[groups], self.groups.labels[groups])
        return BlockCounts(*(int(numbers.sum()) for numbers in sums), len(clips))

    def fill(self, packing: PackingConfig) -> dict[str, float]:
        """Returns how much of the slots, clips and labels of all blocks is used."""
        records = self.groups.record[self.group]
        block = np.repeat(np.arange(self.num_blocks), np.diff(self.start))
        clips = len(np.unique(np.stack([block, records]), axis=1)[0])
        used = {
            "slots": (self.groups.slots[self.group].sum(), packing.rows * packing.row_length),
            "clips": (clips, packing.max_clips),
            "labels": (self.groups.labels[self.group].sum(), packing.max_labels),
        }
        return {name: float(n) / (self.num_blocks * size) for name, (n, size) in used.items()}


def make_groups(
    lengths: SequenceLengths, packing: PackingConfig, config: TinyMUConfig
) -> QuestionGroups:
    """Joins the questions of each clip into groups: as few as rows and blocks allow.

    Raises:
        InputError: a question that fits into no row or block.
    """
    sizes = question_length(lengths.prompt, lengths.labels, config)
    most = packing.questions_per_group or len(sizes)
    rows: list[tuple[int, int, int, int, int]] = []
    for record, (audio, start, end) in enumerate(
        zip(
            lengths.audio.tolist(),
            lengths.first[:-1].tolist(),
            lengths.first[1:].tolist(),
            strict=True,
        )
    ):
        shared = audio + 1  # the separator
        slots, labels = sizes[start:end].tolist(), lengths.labels[start:end].tolist()
        first, used, scored = start, shared, 0
        for number, (size, count) in enumerate(zip(slots, labels, strict=True), start):
            if shared + size > packing.row_length or count > packing.max_labels:
                raise InputError(
                    f"record {record}: question {number - start} takes {shared + size} slots with "
                    f"its audio and {count} labels; rows have {packing.row_length} "
                    f"(packing.row_length), blocks {packing.max_labels} (packing.max_labels): enlarge them"
                )
            full = used + size > packing.row_length or scored + count > packing.max_labels
            if number > first and (full or number - first == most):
                rows.append((record, first, number, used, scored))
                first, used, scored = number, shared, 0
            used, scored = used + size, scored + count
        if end > first:
            rows.append((record, first, end, used, scored))
    table = np.array(rows, np.int64).reshape(-1, 5)
    return QuestionGroups(*table.T)


def shuffled(groups: QuestionGroups, seed: int, epochs: int) -> Iterator[int]:
    """Yields every group once in each epoch; a clip's groups stay together."""
    edges = np.flatnonzero(np.diff(groups.record, prepend=-1, append=-1))
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(edges) - 1)
        for clip in order.tolist():
            yield from range(edges[clip], edges[clip + 1])


def make_plan(
    groups: QuestionGroups, packing: PackingConfig, seed: int, epochs: int
) -> PackingPlan:
    """Places all groups of all epochs, shuffled, into rows and blocks.

    A row begins with the group that has waited longest; then the longest of the waiting groups
    that fits comes next, until none does. A block ends when its rows are full, or earlier when
    its clips or labels are.

    Raises:
        InputError: there is nothing to place.
    """
    if len(groups.record) == 0:
        raise InputError("the data set has no questions; prepare it from lists that have some")
    filling = _RowPacker(groups, packing, shuffled(groups, seed, epochs))
    group: list[int] = []
    row: list[int] = []
    start = [0]
    while filling.waiting():
        filling.begin_block()
        for number in range(packing.rows):
            placed = filling.fill_row()
            group += placed
            row += [number] * len(placed)
        start.append(len(group))
    return PackingPlan(groups, *(np.array(x, np.int32) for x in (group, row, start)))


class _RowPacker:
    """Groups that wait for a place, by age and by length, and what is left of a block."""

    def __init__(
        self, groups: QuestionGroups, packing: PackingConfig, order: Iterator[int]
    ) -> None:
        self.packing, self.order = packing, order
        self.slots, self.labels = groups.slots.tolist(), groups.labels.tolist()
        self.record = groups.record.tolist()
        # A group's age is its number in the order: it may wait twice, in two epochs.
        self.by_age: dict[int, int] = {}
        self.lengths: list[int] = []
        self.ages: list[int] = []
        self.arrived = self.total = self.labels_left = 0
        self.clips: set[int] = set()

    def waiting(self) -> bool:
        """Lets as many groups in as may wait; returns whether there are any."""
        while len(self.by_age) < self.packing.buffer_size:
            group = next(self.order, None)
            if group is None:
                break
            at = bisect.bisect_right(self.lengths, self.slots[group])
            self.lengths.insert(at, self.slots[group])
            self.ages.insert(at, self.arrived)
            self.by_age[self.arrived] = group
            self.total += self.slots[group]
            self.arrived += 1
        return bool(self.by_age)

    def begin_block(self) -> None:
        """Empties clips and labels."""
        self.clips, self.labels_left = set(), self.packing.max_labels

    def fill_row(self) -> list[int]:
        """Takes groups for one row."""
        taken: list[int] = []
        room = self.packing.row_length
        while self.waiting() and self.lengths[0] <= room:
            # While there is room for three, the oldest; then one or two that leave least empty.
            roomy = not taken or room * len(self.lengths) > 3 * self.total
            ages = self._oldest(room) if roomy else self._closest(room) or self._oldest(room)
            if not ages:
                return taken
            for age in ages:
                group = self._take(age)
                room -= self.slots[group]
                taken.append(group)
        return taken

    def _take(self, age: int) -> int:
        """Ends a group's waiting."""
        group = self.by_age.pop(age)
        at = bisect.bisect_left(self.lengths, self.slots[group])
        at = self.ages.index(age, at)
        del self.lengths[at], self.ages[at]
        self.total -= self.slots[group]
        self.clips.add(self.record[group])
        self.labels_left -= self.labels[group]
        return group

    def _oldest(self, room: int) -> list[int]:
        """Returns the group that has waited longest among those that fit, by its age."""
        return next(([age] for age in self.by_age if self._fit([age], room)), [])

    def _closest(self, room: int) -> list[int]:
        """Returns the one or two groups that come closest to filling a row, if they fit."""
        single = bisect.bisect_right(self.lengths, room) - 1
        if single < 0:
            return []
        lengths = np.array(self.lengths)
        partner = np.searchsorted(lengths, room - lengths, side="right") - 1
        partner -= partner == np.arange(len(lengths))
        pair = np.where(partner < 0, 0, lengths + lengths[partner])
        one = int(pair.argmax())
        if pair[one] > lengths[single]:
            ages = [self.ages[one], self.ages[int(partner[one])]]
            if self._fit(ages, room):
                return ages
        return [self.ages[single]] if self._fit([self.ages[single]], room) else []

    def _fit(self, ages: Sequence[int], room: int) -> bool:
        """Returns whether groups can go into a row of the block."""
        groups = [self.by_age[age] for age in ages]
        return (
            sum(self.slots[group] for group in groups) <= room
            and sum(self.labels[group] for group in groups) <= self.labels_left
            and len(self.clips | {self.record[group] for group in groups}) <= self.packing.max_clips
        )


class EpochSampler:
    """Which clips a step takes; what an epoch has left over when no step can be filled is not
    heard in it."""

    def __init__(
        self, place: Path, total: int, clips: int, blocks: int, seed: int, epochs: int, steps: int
    ) -> None:
        """Takes the numbers.

        Args:
            place: of the clips, for messages.
            total: clips that there are.
            clips: C, of one block.
            blocks: N, of one step, over all processes.
            seed: of the order.
            epochs: how often each clip comes; 0 means as often as `steps` needs.
            steps: of the run, where `epochs` does not say.

        Raises:
            InputError: there are fewer clips than a step takes.
        """
        self.total, self.clips, self.blocks, self.seed = total, clips, blocks, seed
        self.each = total // (clips * blocks)
        """Steps of an epoch."""
        if not self.each:
            raise InputError(
                f"{place}: has {total} clips that can be used, and a step takes {clips * blocks}; "
                "lower the clips of a block, or step.blocks"
            )
        self.steps = self.each * epochs or steps
        """Of the run."""

    def numbers(self, step: int) -> Int[np.ndarray, "N C"]:
        """Returns the clips of a step."""
        epoch, place = divmod(step, self.each)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.total)
        count = self.blocks * self.clips
        return order[place * count : (place + 1) * count].reshape(self.blocks, self.clips)
