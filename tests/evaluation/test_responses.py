"""Replies are kept as they come: what was answered is not asked again."""

import json

import pytest
import soundfile
from helpers import noise, refusal

import tinymu_jax
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation import responses
from tinymu_jax.evaluation.responses import ResponseCache, cached_engine, run_cached
from tinymu_jax.inference.engine import Request, Response


class Echo:
    """Answers with the prompt's last word; counts what it is asked."""

    def __init__(self, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def ask(self, asked, progress):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += asked
        progress(len(asked), len(asked))
        return [
            InputError(f"{one.audio}: is broken")
            if one.audio and "bad" in one.audio.name
            else Response(one.prompt.split()[-1], tuple(float(len(o)) for o in one.options))
            for one in asked
        ]


@pytest.fixture
def asked(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.wav").write_bytes(name.encode())
    paths = [tmp_path / f"{name}.wav" for name in "abcd"]
    # Questions on one recording do not stand together.
    return [Request(path, f"what is {n}", "MCQ", ("x", "yy")) for n in range(3) for path in paths]


@pytest.fixture
def remaining(tmp_path):
    return ResponseCache(tmp_path / "answers.jsonl", "model 1")


def test_replies_come_in_the_order_of_the_questions(asked, remaining):
    echo, steps = Echo(), []
    replies = run_cached(echo, asked, remaining, lambda *step: steps.append(step))
    assert [reply.text for reply in replies] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    assert {reply.log_likelihoods for reply in replies} == {(1.0, 2.0)}
    assert steps[-1] == (12, 12)
    # Asked recording by recording.
    names = [one.audio.name for one in echo.asked]
    assert names == sorted(names)


def test_a_killed_run_goes_on(asked, remaining, monkeypatch):
    monkeypatch.setattr(responses, "RECORDINGS_PER_WRITE", 1)
    with pytest.raises(KeyboardInterrupt):
        run_cached(Echo(stop_after=6), asked, remaining)
    with remaining.path.open("a") as file:
        file.write('{"key": "cut in the mid')
    echo = Echo()
    replies = run_cached(echo, asked, remaining)
    assert len(echo.asked) == 6
    assert [reply.text for reply in replies] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    again = Echo()
    assert run_cached(again, asked, remaining) == replies
    assert again.asked == []
    assert len([json.loads(line) for line in remaining.path.read_text().splitlines()]) == 12


def test_nothing_is_taken_from_another_model_recording_or_question(asked, remaining):
    run_cached(Echo(), asked, remaining)
    for changed in (remaining._replace(model="model 2"), remaining):
        echo = Echo()
        if changed == remaining:
            asked[0].audio.write_bytes(b"another")
        run_cached(echo, asked, changed)
        assert len(echo.asked) == (12 if changed != remaining else 3)
    echo = Echo()
    run_cached(echo, [asked[0]._replace(options=("x", "z"))], remaining)
    assert len(echo.asked) == 1


def test_faults_stand_in_their_places_and_are_asked_again(asked, remaining, tmp_path):
    bad = Request(tmp_path / "bad.wav", "what is bad", "QA")
    replies = run_cached(Echo(), [asked[0], bad], remaining)
    assert isinstance(replies[0], Response)
    assert "is broken" in str(replies[1])
    echo = Echo()
    run_cached(echo, [asked[0], bad], remaining)
    assert echo.asked == [bad]


def test_answers_about_damaged_recordings_are_not_used_without_the_option(tmp_path, capfd):
    soundfile.write(tmp_path / "a.wav", noise(32_000), 16_000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:32_044])
    requests = [Request(tmp_path / "a.wav", question, "QA") for question in ("Why?", "How?")]
    for keep_damaged in (True, True, False):
        model = tinymu_jax.load("nano", keep_damaged=keep_damaged)
        replies = cached_engine(model, tmp_path / "out", 2, lambda *_: None)(requests)
        assert isinstance(replies[0], Response if keep_damaged else InputError)
    damage = "damaged after 1.0 s of 2.0 s"
    message = f"note: {tmp_path}/a.wav: {damage}; what can be read is used\n"
    assert capfd.readouterr().err == message


def test_answers_of_earlier_versions_are_read(asked, remaining):
    replies = run_cached(Echo(), asked, remaining)
    rows = [json.loads(line) for line in remaining.path.read_text().splitlines()]
    assert all(row.pop("damage") is None for row in rows)
    remaining.path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run_cached(Echo(stop_after=0), asked, remaining) == replies


def test_equal_questions_are_asked_once(remaining):
    prior = Request(None, "what is it", "MCQ", ("a", "b"), score_only=True)
    echo = Echo()
    assert len(run_cached(echo, [prior] * 3, remaining)) == 3
    assert echo.asked == [prior]


def test_another_file_in_its_place_is_refused(asked, remaining):
    remaining.path.write_text('{"text": "no key"}\n')
    assert "line 1 is not a response; move the file away" in refusal(
        run_cached, Echo(), asked, remaining
    )


def test_a_kill_loses_few_of_those_asked_without_audio(remaining, monkeypatch):
    monkeypatch.setattr(responses, "RECORDINGS_PER_WRITE", 4)
    unheard = [Request(None, f"what is {n}", "MCQ", ("a", "b")) for n in range(12)]
    with pytest.raises(KeyboardInterrupt):
        run_cached(Echo(stop_after=8), unheard, remaining)
    assert remaining.path.read_text().count("\n") == 8


def test_separators_inside_texts_end_no_line(remaining):
    asked = [Request(None, "say \u2028\x85", "QA"), Request(None, "say é", "QA")]
    replies = run_cached(Echo(), asked, remaining)
    again = Echo()
    assert run_cached(again, asked, remaining) == replies
    assert again.asked == []
