"""MuChoMusic: how its questions are put, and what the answers show."""

import json
from pathlib import Path

import pytest
from helpers import refusal

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.multiple_choice import metrics
from tinymu_jax.evaluation.multiple_choice.muchomusic import (
    ChoiceConfig,
    choice_prompt,
    evaluate_muchomusic,
)
from tinymu_jax.evaluation.multiple_choice.questions import KINDS, ChoiceQuestion, read_choices
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.inference.engine import Response

# --- prompts -----------------------------------------------------------------------------------


def test_prompts_are_the_official_ones():
    question = ChoiceQuestion("a#1", Path("a.wav"), "Which key?", ("C major", "A minor"), 1)
    official = "Question: Which key?\n Options: (A) C major (B) A minor \n The correct answer is: "
    assert choice_prompt(question) == official
    with_example = choice_prompt(question, one_shot=True)
    assert with_example.endswith(f"\n The correct answer is: B\n {official}")
    assert with_example.count("Question: ") == with_example.count("\n Options: (A) ") == 2


# --- the run -----------------------------------------------------------------------------------


def asked_about(audio, right, number=1, **labels):
    """Returns a question with kinds, whose options are w, x, y and z."""
    kinds = [kind for kind in KINDS if kind != "right"]
    kinds.insert(right, "right")
    labels = {name: tuple(tags.split()) for name, tags in labels.items()}
    one = ChoiceQuestion(
        f"{audio}#{number}", Path(audio), f"About {audio}, {number}?", tuple("wxyz"), right
    )
    return one._replace(labels=labels, kinds=tuple(kinds))


QUESTIONS = [
    asked_about("a.wav", 0, 1, knowledge="melody", genre="jazz", dataset="sdd"),
    asked_about("b.wav", 1, 1, knowledge="melody", reasoning="mood", genre="pop", dataset="sdd"),
    asked_about("a.wav", 2, 2, reasoning="mood lyrics", genre="jazz", dataset="sdd"),
    asked_about("c.wav", 3, 1, genre="pop", dataset="musiccaps"),
]


class Model:
    """Answers by heart, and keeps what it was asked."""

    def __init__(self, said, likely, missing=(), cut=()):
        self.said, self.likely, self.missing, self.cut = said, likely, missing, cut
        self.calls = []

    def __call__(self, asked):
        self.calls.append(asked)
        return [self._reply(one) for one in asked]

    def _reply(self, one):
        if one.audio is None:
            return Response("(A) w", (-1.0, -2.0, -3.0, -4.0))
        if str(one.audio) in self.missing:
            return InputError(f"{one.audio}: no such file; check the path")
        name = one.prompt.split("About ")[1].split("?")[0]
        scores = [-9.0, -9.0, -9.0, -9.0]
        option, lead = self.likely[name]
        scores[option] = -9.0 + lead
        return Response(
            self.said[name], tuple(scores), total_seconds=float(str(one.audio) in self.cut)
        )


SAID = {"a.wav, 1": "A", "a.wav, 2": "(C) y", "b.wav, 1": "x", "c.wav, 1": "nothing"}
LIKELY = {"a.wav, 1": (0, 1), "a.wav, 2": (1, 2), "b.wav, 1": (1, 1), "c.wav, 1": (0, 5)}


def words(prompt):
    return len(prompt.split())


def evaluate(model, questions=QUESTIONS, **options):
    config = ChoiceConfig(**options)
    return evaluate_muchomusic(EvalModel("tiny", model, words), questions, config)


def values(table):
    return {
        name: [None if cell is None else cell.value for cell in row]
        for name, row in table.rows.items()
    }


def by_title(result):
    return {table.title: table for table in result.tables}


def test_questions_are_put_once_and_by_recording():
    model = Model(SAID, LIKELY)
    evaluate(model)
    (asked,) = model.calls
    assert [str(one.audio) for one in asked[:4]] == ["a.wav", "a.wav", "b.wav", "c.wav"]
    assert [one.audio for one in asked[4:]] == [None] * 4
    assert [one.prompt for one in asked[4:]] == [one.prompt for one in asked[:4]]
    assert {one.options for one in asked} == {("(A) w", "(B) x", "(C) y", "(D) z")}
    assert not any(one.score_only for one in asked)


def test_headline_by_hand():
    result = evaluate(Model(SAID, LIKELY))
    # Officially a1, a2 and b1 (by its text) are right; by letter a1 and a2; by likelihood a1, b1.
    assert {name: m.value for name, m in result.headline.items()} == {
        "accuracy": 0.75,
        "knowledge": 1.0,
        "reasoning": 1.0,
        "accuracy, strict letter rule": 0.5,
        "accuracy, likelihood": 0.5,
        "unanswered": 0.25,
    }
    assert {name: m.count for name, m in result.headline.items() if m.count != 4} == {
        "knowledge": 2,
        "reasoning": 2,
    }
    accuracy = result.headline["accuracy"]
    assert 0 <= accuracy.low <= 0.75 <= accuracy.high <= 1
    assert not result.notices


def test_published_figures_stand_beside_all_questions_alone(monkeypatch):
    assert not evaluate(Model(SAID, LIKELY)).published
    monkeypatch.setattr(metrics, "QUESTIONS", 4)
    result = evaluate(Model(SAID, LIKELY))
    assert {name: m.value for name, m in result.published.items()} == {
        "accuracy": 0.586,
        "knowledge": 0.583,
        "reasoning": 0.596,
    }


def test_tables_by_hand():
    tables = by_title(evaluate(Model(SAID, LIKELY)))
    rules = ["official rule", "strict letter rule", "likelihood"]
    assert list(tables["Accuracy by rule"].columns) == rules
    assert values(tables["Accuracy by rule"]) == {
        "all": [0.75, 0.5, 0.5],
        "knowledge": [1, 0.5, 1],  # a1, b1
        "reasoning": [1, 0.5, 0.5],  # b1, a2
    }
    assert values(tables["Knowledge"]) == {"melody": [1, 0.5, 1]}
    assert values(tables["Reasoning"]) == {"lyrics": [1, 1, 0], "mood": [1, 0.5, 0.5]}
    assert values(tables["Genre"]) == {"jazz": [1, 1, 0.5], "pop": [0.5, 0, 0.5]}
    assert values(tables["Data set"]) == {
        "musiccaps": [0, 0, 0],
        "sdd": [1, pytest.approx(2 / 3), pytest.approx(2 / 3)],
    }


def test_knowledge_and_reasoning_are_not_swapped():
    # Right on knowledge alone: the official export writes this 1 under reasoning.
    said = {**SAID, "a.wav, 2": "A", "b.wav, 1": "B"}
    questions = [QUESTIONS[0], QUESTIONS[2]]
    headline = evaluate(Model(said, LIKELY), questions).headline
    assert (headline["knowledge"].value, headline["reasoning"].value) == (1, 0)


def test_baselines_stand_beside_the_model():
    table = by_title(evaluate(Model(SAID, LIKELY)))["Without audio, by the same questions"]
    assert list(table.columns) == ["all", "knowledge", "reasoning"]
    quarter = [0.25, 0.25, 0.25]
    result = values(table)
    assert result["this model, official rule"] == [0.75, 1, 1]
    assert result["shortest option"] == result["longest option"] == quarter
    assert result["always A"] == [0.25, 0.5, 0]
    assert result["always C"] == [0.25, 0, 0.5]
    assert result["this model without audio, official rule"] == [0.25, 0.5, 0]
    assert result["this model without audio, likelihood"] == [0.25, 0.5, 0]


def test_without_blind_model():
    model = Model(SAID, LIKELY)
    result = by_title(evaluate(model, text_only=False))
    assert len(model.calls[0]) == 4
    rows = values(result["Without audio, by the same questions"])
    assert "always D" in rows
    assert not any("without audio" in name for name in rows)


def test_kinds_of_what_is_chosen():
    result = values(by_title(evaluate(Model(SAID, LIKELY)))["What is chosen"])
    # By likelihood: a1 and b1 right; a2 has x, c1 has w: second and first of the wrong kinds.
    assert result == {
        "right": [0.75, 0.5, 0.5],
        "incorrect but related": [0, 0, 0.25],
        "correct but unrelated": [0, 0, 0.25],
        "incorrect and unrelated": [0, 0, 0],
        "unanswered": [0.25, 0.5, 0],
    }


def test_a_letter_that_is_not_shown_is_an_answer_and_wrong():
    two = [one._replace(options=("w", "x"), kinds=one.kinds[:2]) for one in QUESTIONS[:2]]

    def reply(asked):
        return [Response("(C) x" if one.audio else "A", (-1.0, -2.0)) for one in asked]

    result = evaluate(reply, two)
    chosen = values(by_title(result)["What is chosen"])
    assert chosen["a letter not shown"] == [1, None, None]
    assert chosen["unanswered"] == [0, 1, 0]
    assert result.headline["accuracy"].value == 0
    letters = {one.title: one for one in result.confusions}["Letters, official rule"]
    assert letters.labels == [*"ABC", "unanswered"]
    assert letters.counts == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_radar_and_letters():
    result = evaluate(Model(SAID, LIKELY))
    (radar,) = result.radars
    assert list(radar.axes) == ["melody", "lyrics", "mood"]
    assert radar.series["strict letter rule"] == [0.5, 1, 0.5]
    letters = {one.title: one for one in result.confusions}["Letters, official rule"]
    assert letters.labels == [*"ABCD", "unanswered"]
    assert [row.index(1) for row in letters.counts[:4]] == [0, 1, 2, 4]


def test_worst_answers_are_those_most_firmly_wrong():
    said = dict.fromkeys(SAID, "nothing")
    worst = evaluate(Model(said, LIKELY)).worst
    # Right option's lead over the best other: c1 -5, a2 -2, then a1 and b1 (likely, yet not said).
    assert [one.question for one in worst[:2]] == ["About c.wav, 1?", "About a.wav, 2?"]
    assert [one.score for one in worst] == [-5, -2, 1, 1]
    assert (worst[0].expected, worst[0].predicted, worst[0].audio) == ("(D) z", "nothing", "c.wav")


def test_at_most_twenty_worst():
    many = [asked_about("a.wav", 1, number) for number in range(30)]
    model = Model(
        {f"a.wav, {n}": "A" for n in range(30)}, {f"a.wav, {n}": (0, 1) for n in range(30)}
    )
    assert len(evaluate(model, many).worst) == 20


def test_likelihood_alone():
    model = Model(SAID, LIKELY)
    result = evaluate(model, generate=False)
    assert all(one.score_only for one in model.calls[0])
    assert result.headline["accuracy, likelihood"].value == 0.5
    for name in ("accuracy", "knowledge", "accuracy, strict letter rule", "unanswered"):
        assert result.headline[name].value is None
        assert "no answers were generated" in result.headline[name].note
    assert list(by_title(result)["Accuracy by rule"].columns) == ["likelihood"]


def test_missing_audio_is_told_first_and_the_rest_scored():
    result = evaluate(Model(SAID, LIKELY, missing=["a.wav"], cut=["b.wav"]))
    assert result.notices[0].startswith("2 of 4 questions skipped: 2 whose recording is missing")
    assert result.notices[1] == "Of 1 of 2 recordings only the beginning was encoded"
    assert result.headline["accuracy"].count == 2
    assert result.headline["accuracy"].value == 0.5
    rows = by_title(result)["Skipped"].rows
    assert {name: row[0].value for name, row in rows.items()} == {
        "a.wav: no such file; check the path": 2
    }


def test_no_audio_at_all():
    model = Model(SAID, LIKELY, missing=["a.wav", "b.wav", "c.wav"])
    assert "no question could be asked: a.wav: no such file" in refusal(evaluate, model)
    assert "no questions" in refusal(evaluate, model, [])


def test_long_prompts_are_left_out_and_told():
    model = Model(SAID, LIKELY)
    long = QUESTIONS[1]._replace(question="About b.wav, 1? " + "now " * 129)
    result = evaluate(model, [QUESTIONS[0], long, *QUESTIONS[2:]])
    assert len(model.calls[0]) == 2 * 3
    assert not any("now" in one.prompt for one in model.calls[0])
    assert result.notices[0].startswith("1 of 4 questions skipped: 1 whose prompt is too long")
    (why,) = by_title(result)["Skipped"].rows
    assert why.startswith("b.wav#1: its prompt has ")
    # A prompt of just 129 is asked.
    length = words(choice_prompt(QUESTIONS[0]))
    fits = QUESTIONS[0]._replace(question="About a.wav, 1?" + " now" * (129 - length))
    assert words(choice_prompt(fits)) == 129
    assert not any("questions skipped" in notice for notice in evaluate(model, [fits]).notices)


def test_example_stands_before_each_prompt():
    model = Model(SAID, LIKELY)
    result = evaluate(model, one_shot=True)
    assert all(one.prompt.count("Options:") == 2 for one in model.calls[0])
    assert result.settings["prompt"] == "as official, with a worked example"


def test_lists_without_tags_say_so(tmp_path):
    path = tmp_path / "q.jsonl"
    record = {"audio": "a.wav", "question": "Which?", "choices": ["x", "y", "z"], "answer": "C"}
    path.write_text("".join(json.dumps(record | {"audio": name}) + "\n" for name in ("a", "b")))
    model = EvalModel("tiny", lambda asked: [Response("C", (-1.0, -2.0, -3.0))] * len(asked), words)
    result = evaluate_muchomusic(model, read_choices(path, "clips"))
    assert "No question has tags of knowledge or of reasoning" in result.notices[0]
    assert list(by_title(result)) == [
        "Accuracy by rule",
        "Without audio, by the same questions",
        "What is chosen",
    ]
    assert list(by_title(result)["What is chosen"].rows) == ["unanswered"]
    assert not result.published
    assert "knowledge" not in result.headline
    assert not result.radars


def test_answers_are_kept_with_the_order_of_options(tmp_path):
    path = tmp_path / "answers.jsonl"
    evaluate_muchomusic(EvalModel("tiny", Model(SAID, LIKELY), words), QUESTIONS, answers=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["a.wav#1", "b.wav#1", "a.wav#2", "c.wav#1"]
    assert lines[2] == {
        "id": "a.wav#2",
        "audio": "a.wav",
        "question": "About a.wav, 2?",
        "options": ["w", "x", "y", "z"],
        "kinds": [KINDS[1], KINDS[2], "right", KINDS[3]],
        "right": 2,
        "answer": "(C) y",
        "log_likelihoods": [-9, -7, -9, -9],
        "chosen": {"official rule": 2, "strict letter rule": 2, "likelihood": 1},
    }


def test_real_questions_through_the_run(shared_dir):
    questions = read_choices(shared_dir / "data" / "muchomusic_questions.jsonl", "clips")
    right = {choice_prompt(one): one for one in questions}

    def by_texts(asked):
        result = [right[one.prompt] for one in asked]
        return [
            Response(q.options[q.right], tuple(float(n == q.right) for n in range(4)))
            for q in result
        ]

    result = evaluate_muchomusic(
        EvalModel("perfect", by_texts, words), questions, ChoiceConfig(text_only=False)
    )
    shares = {name: 100 * measure.value for name, measure in result.headline.items()}
    assert shares["accuracy"] == pytest.approx(81.3, abs=0.1)
    assert shares["accuracy, likelihood"] == 100
    assert shares["accuracy, strict letter rule"] == 0
    low, high = result.headline["accuracy"].low, result.headline["accuracy"].high
    assert high - low == pytest.approx(2 * 1.96 * (0.813 * 0.187 / 1187) ** 0.5, rel=0.05)
