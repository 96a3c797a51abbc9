"""Asks questions about a clip's facts in MusicSkills' four formats, with balanced answers.

A question's wording is independent of its answer, so no model beats chance without audio.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS, Facts
from tinymu_jax.data.synthetic.templates import BINARY, CAPTION, CHOICE, NAMES, OPEN


class SyntheticQuestion(NamedTuple):
    """A question about a synthetic clip, with its answer."""

    task: str
    """MusicSkills' name of the question's format, such as "MCQ"."""
    prompt: str
    answer: str
    facts: tuple[str, ...]
    """Names of the facts (timbre, tempo, ...) that the question is about."""
    options: tuple[str, ...] = ()
    """Lettered options of a multiple-choice question; empty in other formats."""


class QuestionMix(NamedTuple):
    """Numbers of questions per clip, by format."""

    captions: int = 1
    open: int = 3
    choice: int = 2
    binary: int = 3


def _pick(rng: np.random.Generator, among: Sequence) -> Any:
    return among[int(rng.random() * len(among))]


def _shuffle(rng: np.random.Generator, items: Sequence[str]) -> list[str]:
    return [items[i] for i in np.argsort([rng.random() for _ in items])]


def name_of(fact: str, value: str) -> str:
    """Return the word for a fact's value in questions and answers ("trumpet" for brass)."""
    return NAMES[fact][value]


def values_of(fact: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the possible values of a fact; for the timbre, they include `extra` timbres."""
    return (*FACTS[fact], *extra) if fact == "timbre" else FACTS[fact]


def _wrong_values(
    rng: np.random.Generator, facts: Facts, fact: str, extra: Sequence[str], count: int = 1
) -> list[str]:
    """Draw at most `count` distinct values of a fact that the clip does not have."""
    wrong = [value for value in values_of(fact, extra) if value != getattr(facts, fact)]
    return _shuffle(rng, wrong)[:count]


def ask_open(rng: np.random.Generator, facts: Facts, fact: str) -> SyntheticQuestion:
    """Write an open question about a fact (tempo, ...); the answer is the clip's value in words."""
    answer = name_of(fact, getattr(facts, fact))
    return SyntheticQuestion(QA, _pick(rng, OPEN[fact]), answer, (fact,))


def ask_binary(
    rng: np.random.Generator, facts: Facts, fact: str, extra: Sequence[str] = ()
) -> SyntheticQuestion:
    """Write a yes/no question about a value of a fact; both answers are equally likely.

    A wrong value of the timbre may also be one of `extra`.
    """
    true = rng.random() < 0.5
    value = getattr(facts, fact) if true else _wrong_values(rng, facts, fact, extra)[0]
    prompt = _pick(rng, BINARY[fact]).format(name_of(fact, value))
    return SyntheticQuestion(YES_NO, prompt, "Yes." if true else "No.", (fact,))


def ask_choice(
    rng: np.random.Generator, facts: Facts, about: Sequence[str], extra: Sequence[str] = ()
) -> SyntheticQuestion:
    """Write a multiple-choice question with four options in random order, one of them right.

    `about` names the one fact (with four or more values) whose values are the options, or four
    different facts. Of four, the first gives the right option: its value in the clip. Each of the
    others gives a wrong option: a value that the clip lacks. Wrong timbres may come from `extra`.
    """
    right = name_of(about[0], getattr(facts, about[0]))
    if len(about) == 1:
        wrong = [name_of(about[0], v) for v in _wrong_values(rng, facts, about[0], extra, 3)]
    else:
        wrong = [name_of(fact, _wrong_values(rng, facts, fact, extra)[0]) for fact in about[1:]]
    texts = _shuffle(rng, (right, *wrong))
    options = tuple(f"({x}) {text}" for x, text in zip(LETTERS, texts, strict=True))
    prompt = f"Question: {_pick(rng, CHOICE)} Options: {' '.join(options)}. The correct answer is:"
    return SyntheticQuestion(MCQ, prompt, options[texts.index(right)], tuple(about), options)


def _sentence(facts: Facts, names: Sequence[str]) -> str:
    return f"You hear {', '.join(name_of(fact, getattr(facts, fact)) for fact in names)}."


def describe(rng: np.random.Generator, facts: Facts) -> str:
    """Describe a clip in a sentence that gives the values of all its facts in random order."""
    return _sentence(facts, _shuffle(rng, list(FACTS)))


def ask_caption(rng: np.random.Generator, facts: Facts) -> SyntheticQuestion:
    """Write a captioning question; the chosen prompt decides which facts the answer describes."""
    prompt = _pick(rng, list(CAPTION))
    return SyntheticQuestion(CAPTIONING, prompt, _sentence(facts, CAPTION[prompt]), CAPTION[prompt])


def make_questions(
    rng: np.random.Generator, facts: Facts, mix: QuestionMix, extra: Sequence[str] = ()
) -> list[SyntheticQuestion]:
    """Write questions about random facts of a clip; `mix` gives the number in each format.

    Wrong timbres in questions may come from `extra`.
    """

    def draw(count: int) -> list[str]:
        return _shuffle(rng, list(FACTS))[:count]

    questions = [ask_caption(rng, facts) for _ in range(mix.captions)]
    questions += [ask_open(rng, facts, fact) for fact in draw(mix.open)]
    for number in range(mix.choice):
        about = ["timbre"] if number == 0 else draw(4)
        questions.append(ask_choice(rng, facts, about, extra))
    questions += [ask_binary(rng, facts, fact, extra) for fact in draw(mix.binary)]
    return questions
