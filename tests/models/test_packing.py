"""Packed questions match single ones, and a plan has every question once per epoch."""

import jax.numpy as jnp
import numpy as np
import pytest

from tinymu_jax.data.sampler import SequenceLengths, make_groups, make_plan
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import (
    PackedGroup,
    PackedQuestion,
    PackingConfig,
    build_block,
    question_length,
)
from tinymu_jax.models.sequence import build_sequence, packed_mask

CONFIG = TinyMUConfig()
PACKING = PackingConfig(row_length=400, rows=2, max_clips=4, max_labels=200)


def question(rng, prompt, labels):
    return PackedQuestion(
        rng.integers(20, 400, prompt).tolist(), rng.integers(20, 400, labels).tolist()
    )


@pytest.fixture(scope="module")
def placed():
    """Three groups in two rows: prompts of 1, 128 and 129 tokens, answers of 1 to 12."""
    rng = np.random.default_rng(0)
    return [
        PackedGroup(0, 2, 5, [question(rng, 4, 3), question(rng, 129, 2), question(rng, 1, 12)]),
        PackedGroup(0, 0, 63, [question(rng, 9, 1)]),
        PackedGroup(1, 1, 7, [question(rng, 128, 4), question(rng, 20, 1)]),
    ]


@pytest.fixture(scope="module")
def block(placed):
    return build_block(placed, PACKING, CONFIG)


def questions_of(placed):
    """Yields each question with its group, the group's first index, and its position indices."""
    used = {}
    for place in placed:
        start = used.get(place.row, 0)
        at = start + place.num_audio + 1
        for asked in place.questions:
            sizes = (np.array([len(part)]) for part in asked[:2])
            stop = at + int(question_length(*sizes, CONFIG)[0])
            yield place, asked, start, range(at, stop)
            at = stop
        used[place.row] = at


def test_a_packed_question_matches_its_sequence_alone(placed, block):
    for place, asked, start, slots in questions_of(placed):
        alone = build_sequence(
            jnp.array([place.num_audio]),
            jnp.array([asked.prompt]),
            jnp.array([len(asked.prompt)]),
            jnp.array([asked.labels[:-1]], jnp.int32).reshape(1, -1),
            jnp.array([len(asked.labels) - 1]),
            place.num_audio,
            CONFIG,
        )
        # build_sequence has an unused pad position even if the prompt is full.
        remaining = np.arange(alone.positions.shape[1])
        if len(asked.prompt) == 129:
            remaining = np.delete(remaining, place.num_audio + 1 + 129)
        audio = place.num_audio
        local = np.array([*range(start, start + audio + 1), *slots])
        rows = [part[place.row] for part in block.rows if part is not None]
        tokens, clip, positions, _, number, key_mask = (part[local] for part in rows)
        np.testing.assert_array_equal(tokens[audio:], alone.tokens[0, remaining[audio:] - audio])
        np.testing.assert_array_equal(positions, alone.positions[0, remaining])
        np.testing.assert_array_equal(key_mask, alone.key_mask[0, remaining])
        np.testing.assert_array_equal(clip, [place.clip] * audio + [-1] * (1 + len(slots)))
        assert set(number[: audio + 1]) == {0}
        assert len(set(number[audio + 1 :])) == 1
        mask = np.asarray(packed_mask(block.rows).dense())[place.row]
        np.testing.assert_array_equal(
            mask[np.ix_(local, local)], alone.mask[0][np.ix_(remaining, remaining)]
        )
        others = np.setdiff1d(np.arange(PACKING.row_length), local)
        assert not mask[np.ix_(slots, others)].any()


def test_labels_are_predicted_by_the_position_before(placed, block):
    expected = [label for place in placed for asked in place.questions for label in asked.labels]
    assert block.labels[block.label_mask].tolist() == expected
    assert block.label_mask.sum() == len(expected)
    predicting = []
    for place, asked, _, slots in questions_of(placed):
        last = slots[-1] + place.row * PACKING.row_length
        predicting += range(last - len(asked.labels) + 1, last + 1)
    assert block.label_positions[block.label_mask].tolist() == predicting
    assert not block.labels[~block.label_mask].any()


def test_padding_is_never_attended_to(block):
    empty = block.rows.group == 0
    assert empty.sum() > 100
    mask = np.asarray(packed_mask(block.rows).dense())
    assert not mask.any(axis=1)[empty].any()
    assert not block.rows.key_mask[empty].any()


def test_groups_that_do_not_fit_are_refused(placed):
    with pytest.raises(ValueError, match="no room"):
        build_block(placed, PackingConfig(row_length=200, rows=2, max_labels=200), CONFIG)
    with pytest.raises(ValueError, match="23 labels in a block for 20"):
        build_block(placed, PackingConfig(row_length=400, rows=2, max_labels=20), CONFIG)


# --- the plan ----------------------------------------------------------------------------------


def like_musicskills(records, seed=0):
    """Lengths as in MusicSkills: four sources with 4 to 44 questions a clip, of four kinds."""
    rng = np.random.default_rng(seed)
    source = rng.choice(4, records, p=np.array([2.2, 17, 172, 317]) / 508.2)
    captions = np.array([6, 4, 1, 1])[source]
    answers = np.array([19, 4, 4, 1])[source]
    choices = np.array([14, 10, 4, 1])[source] + rng.integers(0, 2, records)
    binary = np.array([6, 4, 1, 1])[source]
    first, prompt, labels = [0], [], []
    for counts in zip(captions, answers, choices, binary, strict=True):
        kinds = np.repeat(np.arange(4), counts)
        prompt.append(rng.integers(np.array([8, 10, 30, 12])[kinds], [16, 25, 60, 25][0] + 40))
        mean = np.array([50, 25, 6, 2])[kinds]
        labels.append(np.clip(rng.normal(mean, mean / 3), 2, 129).astype(int))
        first.append(first[-1] + len(kinds))
    audio = np.where(rng.random(records) < 0.95, 63, rng.integers(5, 63, records))
    return SequenceLengths(audio, np.array(first), np.concatenate(prompt), np.concatenate(labels))


@pytest.fixture(scope="module")
def lengths():
    return like_musicskills(3000)


def places(plan):
    """Yields block, row and group of every entry of a plan."""
    for number in range(plan.num_blocks):
        for at in range(plan.start[number], plan.start[number + 1]):
            yield number, int(plan.row[at]), int(plan.group[at])


@pytest.mark.parametrize("together", [0, 1, 3])
def test_every_question_comes_once_per_epoch(lengths, together):
    packing = PackingConfig(questions_per_group=together, max_clips=90)
    groups = make_groups(lengths, packing, CONFIG)
    assert groups.first.tolist() == sorted(groups.first.tolist())
    assert (groups.first[1:] == groups.stop[:-1]).all()
    if together:
        assert (groups.stop - groups.first).max() == together
    plan = make_plan(groups, packing, seed=1, epochs=2)
    asked = np.concatenate([np.arange(groups.first[g], groups.stop[g]) for _, _, g in places(plan)])
    number, times = np.unique(asked, return_counts=True)
    assert len(number) == lengths.first[-1]
    assert set(times) == {2}


def test_rows_and_blocks_keep_their_limits(lengths):
    packing = PackingConfig(row_length=700, rows=4, max_clips=6, max_labels=700)
    groups = make_groups(lengths, packing, CONFIG)
    plan = make_plan(groups, packing, seed=0, epochs=1)
    slots = np.zeros((plan.num_blocks, packing.rows), int)
    labels, clips = np.zeros(plan.num_blocks, int), [set() for _ in range(plan.num_blocks)]
    for number, row, group in places(plan):
        slots[number, row] += groups.slots[group]
        labels[number] += groups.labels[group]
        clips[number].add(int(groups.record[group]))
    assert slots.max() <= packing.row_length
    assert labels.max() <= packing.max_labels
    assert max(map(len, clips)) == packing.max_clips
    sizes = question_length(lengths.prompt, lengths.labels, CONFIG)
    total = sizes.sum() + (lengths.audio[groups.record] + 1).sum()
    assert slots.sum() == total
    fill = plan.fill(packing)
    assert fill["slots"] == pytest.approx(total / (plan.num_blocks * 4 * 700))
    assert fill["clips"] == pytest.approx(np.mean([len(c) for c in clips]) / 6)


def test_rows_are_nearly_full():
    lengths = like_musicskills(6000)
    packing = PackingConfig(row_length=2048, rows=8, max_clips=64, max_labels=8192)
    groups = make_groups(lengths, packing, CONFIG)
    fill = make_plan(groups, packing, seed=0, epochs=1).fill(packing)
    assert fill["slots"] > 0.95


def test_plans_are_deterministic_and_differ_by_seed_and_epoch(lengths):
    packing = PackingConfig()
    groups = make_groups(lengths, packing, CONFIG)
    first, again, other = (make_plan(groups, packing, seed, 2) for seed in (3, 3, 4))
    for one, two in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(first.group) == len(other.group)
    assert (first.group != other.group).mean() > 0.9
    half = len(first.group) // 2
    assert (first.group[:half] != first.group[half : 2 * half]).mean() > 0.9


def test_the_shuffle_reaches_far(lengths):
    """Neighbouring records are not neighbours in a block."""
    packing = PackingConfig()
    groups = make_groups(lengths, packing, CONFIG)
    plan = make_plan(groups, packing, seed=0, epochs=1)
    block = [
        groups.record[plan.group[a:b]] for a, b in zip(plan.start, plan.start[1:], strict=False)
    ]
    spread = np.mean([np.ptp(records) for records in block if len(records) > 5])
    assert spread > 0.6 * 3000


def test_a_question_longer_than_a_row_is_named():
    lengths = SequenceLengths(*map(np.array, ([63, 63], [0, 1, 2], [10, 120], [5, 100])))
    with pytest.raises(InputError, match=r"record 1: question 0 takes 284 slots .*row_length"):
        make_groups(lengths, PackingConfig(row_length=256), CONFIG)


def test_a_data_set_without_questions_is_refused():
    lengths = SequenceLengths(*(np.array(x, int) for x in ([63], [0, 0], [], [])))
    groups = make_groups(lengths, PackingConfig(), CONFIG)
    with pytest.raises(InputError, match="has no questions"):
        make_plan(groups, PackingConfig(), 0, 1)
