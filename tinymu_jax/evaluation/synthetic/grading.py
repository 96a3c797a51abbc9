"""Marks: what an answer comes down to, and whether that is right."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS
from tinymu_jax.data.synthetic.questions import name_of, values_of
from tinymu_jax.data.synthetic.templates import NAMES
from tinymu_jax.evaluation import answer_parsing
from tinymu_jax.evaluation.synthetic.items import TestItem

CHOICE, CHOICE_SCORED, BINARY, OPEN = "mcq", "mcq_scored", "binary", "qa"

CAPTION, CAPTION_FACTS = "caption_timbre", "caption_facts"

FORMATS = (CHOICE, CHOICE_SCORED, BINARY, OPEN, CAPTION, CAPTION_FACTS)
"""What is marked: answers by their format; multiple choice also by the options' probabilities; of
captions the timbre, and all that is said."""

FORMAT_OF = {MCQ: CHOICE, YES_NO: BINARY, QA: OPEN, CAPTIONING: CAPTION}


class Point(NamedTuple):
    """One mark: of a question, or of one fact that a caption tells."""

    format: str
    """One of `FORMATS`."""
    facts: tuple[str, ...]
    """What it is about."""
    share: float
    """1 if right, 0 if wrong; of a guess, how probably it is right."""


_DENIED = "".join(
    rf"(?<!\b{word}\s)(?<!\b{word}\sa\s)(?<!\b{word}\san\s)" for word in ("no", "not", "without")
)


def _pattern(name: str) -> re.Pattern[str]:
    """Returns what finds a name as a whole word ("low" is inside "slow") that is not denied."""
    return re.compile(rf"{_DENIED}(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)


_NAMES = {
    fact: {value: _pattern(name) for value, name in values.items()}
    for fact, values in NAMES.items()
}

_LABEL = re.compile(rf"\(([{LETTERS}])\)")

_BARE = re.compile(rf"\W*([{LETTERS}])\W*")

_FIRST_WORD = re.compile(r"\w[\w'-]*")


def named(text: str, fact: str) -> list[str]:
    """Returns the values of a fact that a text names; "no drums" and "not slow" name none."""
    return [value for value, pattern in _NAMES[fact].items() if pattern.search(text)]


def claims(text: str) -> list[tuple[str, str]]:
    """Returns every fact that a text tells, with the value named; twice if it names two."""
    return [(fact, value) for fact in FACTS for value in named(text, fact)]


def read_letter(text: str) -> str | None:
    """Returns the letter of the first "(A)" to "(D)", or the one letter that is all the answer."""
    found = _LABEL.search(text) or _BARE.fullmatch(text)
    return found[1] if found else None


def read_yes_no(text: str) -> str | None:
    """Returns "yes" or "no" if that is the first word."""
    first = _FIRST_WORD.search(text)
    word = first[0].lower() if first else None
    return word if word in ("yes", "no") else None


def reading(item: TestItem, answer: str) -> str | None:
    """Returns what an answer comes down to: a letter, yes or no, the one value that it names.

    None if it is none of these: no letter, no value of the fact, or two of them.
    """
    if item.task == MCQ:
        return read_letter(answer)
    if item.task == YES_NO:
        return read_yes_no(answer)
    values = named(answer, _told(item))
    return values[0] if len(values) == 1 else None


def right_reading(item: TestItem) -> str | None:
    """Returns what the right answer comes down to."""
    if item.task in (MCQ, YES_NO):
        return reading(item, item.wanted)
    return getattr(item.truth, _told(item))


def true_reading(item: TestItem) -> str | None:
    """Returns what the clip's facts make the answer; None where no option is true."""
    truth = getattr(item.truth, _told(item))
    if item.task == YES_NO:
        return "yes" if truth in named(item.prompt, item.facts[0]) else "no"
    if item.task != MCQ:
        return truth
    texts = [option.partition(" ")[2] for option in item.options]
    right = name_of(item.facts[0], truth)
    return LETTERS[texts.index(right)] if right in texts else None


def _told(item: TestItem) -> str:
    """Returns the fact whose value an open answer or a caption must name."""
    return "timbre" if item.task == CAPTIONING else item.facts[0]


def possible_answers(item: TestItem, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns all that an answer of few words may say: yes and no, or the names of a fact's values.

    Args:
        item: the question; to other formats, it is nothing.
        extra: timbres beside those of `FACTS`.
    """
    if item.task == YES_NO:
        return ("Yes.", "No.")
    if item.task != QA:
        return ()
    fact = item.facts[0]
    return tuple(name_of(fact, value) for value in values_of(fact, extra))


def caption_beginnings(item: TestItem, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns how captions may begin, one for each timbre; to other formats, nothing.

    Arguments as `possible_answers`.
    """
    if item.task != CAPTIONING:
        return ()
    return tuple(f"You hear {name_of('timbre', value)}" for value in values_of("timbre", extra))


def is_right(item: TestItem, answer: str) -> bool:
    """Returns whether an answer is right; one that cannot be read is not."""
    found = reading(item, answer)
    return found is not None and found == right_reading(item)


def most_probable(options: Sequence[str], log_likelihoods: Sequence[float]) -> str:
    """Returns the most probable option, or its letter where `LETTERS` are given."""
    return options[answer_parsing.most_probable(log_likelihoods)]


def points_of(item: TestItem, answer: str, log_likelihoods: Sequence[float] = ()) -> list[Point]:
    """Returns all marks of an answer.

    Args:
        item: the question.
        answer: its answer's text.
        log_likelihoods: of the options of multiple choice, if they were scored.
    """
    about = ("timbre",) if item.task == CAPTIONING else item.facts
    points = [Point(FORMAT_OF[item.task], about, float(is_right(item, answer)))]
    if item.task == CAPTIONING:
        points += [
            Point(CAPTION_FACTS, (fact,), float(getattr(item.truth, fact) == value))
            for fact, value in claims(answer)
        ]
    if item.task == MCQ and log_likelihoods:
        hit = most_probable(LETTERS, log_likelihoods) == right_reading(item)
        points.append(Point(CHOICE_SCORED, item.facts, float(hit)))
    return points
