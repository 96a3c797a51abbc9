"""Questions about facts in MusicSkills' four formats, with answers that are balanced.

What is asked depends on chance alone, never on the answer: without the clip no answer is better
than another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS, Facts
from tinymu_jax.data.synthetic.templates import BINARY, CAPTION, CHOICE, NAMES, OPEN


class SyntheticQuestion(NamedTuple):
    """A question about a clip."""

    task: str
    """One of MusicSkills' four."""
    prompt: str
    answer: str
    facts: tuple[str, ...]
    """What it is about."""
    options: tuple[str, ...] = ()
    """Of multiple choice, as they may be answered."""


def _pick(rng: np.random.Generator, among: Sequence) -> object:
    return among[int(rng.random() * len(among))]


def name_of(fact: str, value: str) -> str:
    """Returns what a value is called."""
    return NAMES[fact][value]


def values_of(fact: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the values that a fact may have, and what else the timbre may be."""
    return (*FACTS[fact], *extra) if fact == "timbre" else FACTS[fact]


def _other(
    rng: np.random.Generator, facts: Facts, fact: str, extra: Sequence[str], count: int = 1
) -> list[str]:
    """Draws values that a fact does not have."""
    wrong = [value for value in values_of(fact, extra) if value != getattr(facts, fact)]
    order = np.argsort([rng.random() for _ in wrong])
    return [wrong[i] for i in order[:count]]


def ask_open(rng: np.random.Generator, facts: Facts, fact: str) -> SyntheticQuestion:
    """Asks what a fact's value is."""
    answer = name_of(fact, getattr(facts, fact))
    return SyntheticQuestion(QA, str(_pick(rng, OPEN[fact])), answer, (fact,))


def ask_binary(
    rng: np.random.Generator, facts: Facts, fact: str, extra: Sequence[str] = ()
) -> SyntheticQuestion:
    """Asks whether a value is a fact's own: it is as often as not."""
    true = rng.random() < 0.5
    value = getattr(facts, fact) if true else _other(rng, facts, fact, extra)[0]
    prompt = str(_pick(rng, BINARY[fact])).format(name_of(fact, value))
    return SyntheticQuestion(YES_NO, prompt, "Yes." if true else "No.", (fact,))


def ask_choice(
    rng: np.random.Generator, facts: Facts, asked: Sequence[str], extra: Sequence[str] = ()
) -> SyntheticQuestion:
    """Asks which of four is right.

    Args:
        rng: chance.
        facts: of the clip.
        asked: one fact with at least four values, or four facts: then the first one's value is
            right and those of the others are wrong.
        extra: values of the timbre beside those of `FACTS`.
    """
    right = name_of(asked[0], getattr(facts, asked[0]))
    if len(asked) == 1:
        wrong = [name_of(asked[0], value) for value in _other(rng, facts, asked[0], extra, 3)]
    else:
        wrong = [name_of(fact, _other(rng, facts, fact, extra)[0]) for fact in asked[1:]]
    order = np.argsort([rng.random() for _ in range(4)])
    texts = [(right, *wrong)[i] for i in order]
    options = tuple(f"({x}) {text}" for x, text in zip(LETTERS, texts, strict=True))
    prompt = f"Question: {_pick(rng, CHOICE)} Options: {' '.join(options)}. The correct answer is:"
    return SyntheticQuestion(MCQ, prompt, options[texts.index(right)], tuple(asked), options)


def facts_in_words(facts: Facts, names: Sequence[str]) -> str:
    """Returns some facts in words."""
    return ", ".join(name_of(fact, getattr(facts, fact)) for fact in names)


def describe(rng: np.random.Generator, facts: Facts) -> str:
    """Returns all facts in words, in any order."""
    names = list(FACTS)
    return f"You hear {facts_in_words(facts, [names[i] for i in np.argsort([rng.random() for _ in names])])}."


def ask_caption(rng: np.random.Generator, facts: Facts) -> SyntheticQuestion:
    """Asks for a caption: short ones and a full one, as the prompt says."""
    prompt = str(_pick(rng, list(CAPTION)))
    return SyntheticQuestion(
        CAPTIONING, prompt, f"You hear {facts_in_words(facts, CAPTION[prompt])}.", CAPTION[prompt]
    )


class QuestionMix(NamedTuple):
    """How many questions of each kind are asked about a clip."""

    captions: int = 1
    open: int = 3
    choice: int = 2
    binary: int = 3


def make_questions(
    rng: np.random.Generator, facts: Facts, mix: QuestionMix, extra: Sequence[str] = ()
) -> list[SyntheticQuestion]:
    """Asks about a clip in all formats, each time about facts drawn anew."""
    names = list(FACTS)

    def some(count: int) -> list[str]:
        return [names[i] for i in np.argsort([rng.random() for _ in names])[:count]]

    asked = [ask_caption(rng, facts) for _ in range(mix.captions)]
    asked += [ask_open(rng, facts, fact) for fact in some(mix.open)]
    for number in range(mix.choice):
        about = ["timbre"] if number == 0 else some(4)
        asked.append(ask_choice(rng, facts, about, extra))
    asked += [ask_binary(rng, facts, fact, extra) for fact in some(mix.binary)]
    return asked
