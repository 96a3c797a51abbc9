"""Rules that answers to multiple choice are read by, and what blind ones get."""

import json
import random

import pytest

from tinymu_jax.data.choice_baselines import option_baselines
from tinymu_jax.evaluation.answer_parsing import (
    most_probable,
    read_answer,
    read_letter,
    read_officially,
)
from tinymu_jax.evaluation.multiple_choice.questions import read_choices

DRUMS = ("Snare drum", "Two congas", "Taiko", "Hi-hat")
A, B, C, D = range(4)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("B", B),
        ("(B) Two congas", B),
        ("The correct answer is: C", C),
        ("(A) is not it. The correct answer is: D", D),
        ("The correct answer is: A The correct answer is: B", B),
        ("the correct answer is: B", B),
        ("It is the taiko.", C),  # by its text, for "I" and "t" are no letters
        ("snare drum, and then a hi-hat", A),  # the first option, not the first named
        ("a hi-hat, and then a snare drum", A),
        ("A or B: two congas", B),  # two letters: by text
        ("Drums", D),  # the "D" of a word is a letter
        ("Congas", C),  # so is its "C", though (B) are the congas
        ("(A) Cymbal", None),  # two letters, no text
        ("no idea", None),
        ("", None),
        ("The correct answer is: ", None),
    ],
)
def test_official_rule(said, expected):
    assert read_officially(DRUMS, said) == expected


def test_announcement_is_cut_in_its_own_case_alone():
    # "The Correct ANSWER" brings an A of its own: with the B there are two letters.
    assert read_officially(DRUMS, "The Correct ANSWER is: B") is None
    assert read_officially(DRUMS, "The correct answer is: B") == B


def test_official_rule_counts_letters_that_are_not_shown():
    assert read_officially(("Drums", "Bass"), "C") == C
    assert read_officially(("drums", "clarinet"), "Clarinet") == C
    assert read_officially(("cymbal", "drums"), "(A) Cymbal") == A  # A and C: by text
    assert read_officially(("drums", "cymbal"), "(A) Cymbal") == B


def official(options, reply):
    """The published rule, written a second time: intersect with A to D, else look for a text."""
    reply = reply.rpartition("The correct answer is:")[2].strip()
    letters = set("ABCD") & set(reply)
    if len(letters) == 1:
        return {"A": 0, "B": 1, "C": 2, "D": 3}[letters.pop()]
    contained = [option.strip().lower() in reply.lower() for option in options]
    return contained.index(True) if True in contained else None


@pytest.mark.parametrize("number", [2, 3, 4])
def test_official_rule_on_random_replies(number):
    pieces = [
        *("A", "B", "C", "D", "E", "(A)", "(B)", "(C) ", "(D). ", "a", "c", " and ", " or ", "\n"),
        *("The correct answer is:", "the correct answer is: ", "Correct", "Drums", "no idea", ""),
        *(" snare drum", "Two Congas", "TAIKO ", "hi-hat", "Bass", "It is the ", "Option "),
    ]
    chance = random.Random(number)
    choices = set()
    for _ in range(1500):
        options = tuple(chance.sample(DRUMS, number))
        reply = "".join(chance.choices(pieces, k=chance.randint(0, 5)))
        choice = read_officially(options, reply)
        assert choice == official(options, reply), (options, reply)
        choices.add(choice)
    assert choices == {A, B, C, D, None}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("B", B),
        (" B ", B),
        ("B)", B),
        ("B.", B),
        ("B. Two congas", B),
        ("B) Two congas", B),
        ("(B) Two congas", B),
        ("The answer is (B).", B),
        ("The answer is (B), for (B) are congas", B),
        ("The correct answer is: B", B),
        ("B Two congas", None),
        ("Between", None),
        ("A.M. radio", None),
        ("Taiko", None),
        ("two congas", None),
        ("(A) or (B)", None),
        ("A. Or rather (B)", None),
        ("(E)", None),
        ("(E) or (D)", D),
        ("(E) or (D), not (A)", None),
        ("(C", None),
        ("D)", D),
        ('"B"', None),
        ("AB", None),
        ("E", None),
        ("(b)", None),
        ("b", None),
        ("", None),
    ],
)
def test_strict_letter_rule(said, expected):
    assert read_letter(DRUMS, said) == expected


def test_letter_of_no_option_is_none():
    assert read_letter(("Drums", "Bass"), "(C) Drums") is None


def test_most_probable_option():
    assert most_probable([-3.0, -1.0, -1.0, -2.0]) == B


def test_all_rules_at_once():
    assert read_answer(DRUMS, "Congas", (-1.0, -0.5, -2.0, -3.0)) == (C, None, B)
    assert read_answer(DRUMS, "(D) Hi-hat", ()) == (D, D, None)


def test_blind_rules_by_hand():
    questions = [
        (("Oboe", "Bassoon", "Horn", "Contrabassoon"), 0),  # two are shortest
        (("Oboe", "Contrabassoon", "Horn", "Flutes"), 1),
        (("Piano", "Cello", "Harp", "Lute"), 3),
    ]
    assert option_baselines(questions) == {
        "shortest option": [0.5, 0, 0.5],
        "longest option": [0, 1, 0],
        "always A": [1, 0, 0],
        "always B": [0, 1, 0],
        "always C": [0, 0, 0],
        "always D": [0, 0, 1],
    }
    assert [name for name in option_baselines([(("Yes", "No"), 0)]) if "always" in name] == [
        "always A",
        "always B",
    ]


@pytest.fixture(scope="module")
def real(shared_dir):
    path = shared_dir / "data" / "muchomusic_questions.jsonl"
    return path, read_choices(path, "audio")


def test_real_questions_are_read_in_order(real):
    path, questions = real
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(questions) == len(records) == 1187
    for question, record in zip(questions, records, strict=True):
        assert question.audio.name == record["audio"]
        assert list(question.options) == record["choices"]
        assert "ABCD"[question.right] == record["answer"]


def test_weakness_of_the_official_rule(real):
    def share(say):
        hits = [read_officially(q.options, say(q)) == q.right for q in real[1]]
        return 100 * sum(hits) / len(hits)

    assert share(lambda q: q.options[q.right]) == pytest.approx(81.3, abs=0.1)
    assert share(lambda q: "ABCD"[q.right]) == 100


def test_strict_rule_reads_perfect_letters_and_no_texts(real):
    letters = [read_letter(q.options, q.lettered[q.right]) == q.right for q in real[1]]
    texts = [read_letter(q.options, q.options[q.right]) for q in real[1]]
    assert all(letters)
    assert set(texts) == {None}


def test_blind_rules_on_the_real_questions(real):
    result = option_baselines([(question.options, question.right) for question in real[1]])
    shares = {name: 100 * sum(marks) / 1187 for name, marks in result.items()}
    assert shares["shortest option"] == pytest.approx(34.3, abs=0.1)
    assert shares["always D"] == pytest.approx(27.8, abs=0.05)
    assert sum(shares[f"always {letter}"] for letter in "ABCD") == pytest.approx(100)


def test_a_name_that_begins_as_a_letter_does_is_no_letter():
    composers = ("J. S. Bach", "A. Vivaldi")
    assert read_letter(composers, "A. Vivaldi") is None
    assert read_letter(composers, "B") == 1
    assert read_letter(composers, "A. It is Bach") == 0
