"""Options of many questions score in packed rows as each does alone, on one device and on many."""

import jax
import numpy as np
import pytest
import soundfile
from helpers import noise

from tinymu_jax.inference import scoring
from tinymu_jax.inference.engine import BatchEngine, Request
from tinymu_jax.mesh import MeshConfig, make_mesh

# All prompts begin with t6 t4, and so do the answers of the second question with t300.
PROMPTS = [
    " ".join(["t6", "t4", *(f"t{20 + (7 * i + j) % 90}" for j in range(n - 2))])
    for i, n in enumerate((3, 129, 40))
]
OPTIONS = [
    ("t7", "t40 t41", "t40 t41 t9"),
    ("t300 t2 t9", "t300", "t300 t5"),
    ("t8 t9", "t9 t8", "t8", "t9 t9 t9 t9 t9 t9 t9"),
]


@pytest.fixture
def clips(tmp_path):
    """Recordings of 5 lengths."""
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, noise(9_000 * (number + 1)) * (number + 1), 16_000)
    return paths


@pytest.fixture
def asked(clips):
    """Three questions on each, and on none between them."""
    return [
        Request(audio, prompt, "MCQ", options, score_only=True)
        for audio in (clips[0], None, *clips[1:])
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True)
    ]


def alone(assistant, clips, asked):
    """Returns the log-likelihoods that each question's options have by themselves."""
    found = []
    for one in asked:
        rows = assistant.score_details(one.audio or clips[0], one.prompt, one.options)
        found += [row.log_likelihood if one.audio else row.prior for row in rows]
    return np.array(found)


def scores(replies):
    return np.concatenate([reply.log_likelihoods for reply in replies])


def test_packed_options_score_as_alone(assistant, clips, asked, monkeypatch):
    wanted = alone(assistant, clips, asked)
    replies = BatchEngine(assistant).ask(asked)
    np.testing.assert_allclose(scores(replies), wanted, atol=1e-4)
    for one, reply in zip(asked, replies, strict=True):
        assert reply.text == one.options[int(np.argmax(reply.log_likelihoods))]
    # Rows so short that a clip's questions go into several, and one question is longer than a row.
    monkeypatch.setattr(scoring, "ROW_SLOTS", 120)
    np.testing.assert_allclose(scores(BatchEngine(assistant).ask(asked)), wanted, atol=1e-4)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 1)])
def test_devices_share_the_rows(assistant, asked, monkeypatch, sizes):
    monkeypatch.setattr(scoring, "ROW_SLOTS", 200)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    told = [one._replace(score_only=False) for one in asked]
    wanted, found = BatchEngine(assistant, 6).ask(told), BatchEngine(assistant, 6, mesh).ask(told)
    np.testing.assert_allclose(scores(found), scores(wanted), atol=1e-4)
    assert [reply.text for reply in found] == [reply.text for reply in wanted]
    placed = scoring.spread(np.zeros((8, 3)), mesh)
    assert len(placed.addressable_shards) == np.prod(sizes)
    assert placed.addressable_shards[0].data.shape == (8 // np.prod(sizes), 3)


def test_a_clip_and_a_prompt_are_computed_once_for_what_shares_them(assistant, asked, monkeypatch):
    slots, place = [], scoring.lay_out_block

    def count(placed, *rest, **named):
        block = place(placed, *rest, **named)
        slots.append(int((block.rows.group > 0).sum()))
        return block

    monkeypatch.setattr(scoring, "build_block", count)
    BatchEngine(assistant).ask(asked)
    audio = [
        assistant.audio_cache.encode_one(one.audio).vectors.shape[0] if one.audio else 0
        for one in asked[::3]
    ]
    # A pad behind every prompt but the full one; of an option all tokens but its last label.
    # How three prompts and three answers begin is there once.
    text = sum(len(prompt.split()) for prompt in PROMPTS) + 2 - 2 * 2
    text += sum(len(option.split()) for options in OPTIONS for option in options) - 2
    assert sum(slots) == sum(audio) + len(audio) * (1 + text)
