"""Grade answers to questions about synthetic clips, whose facts (musical attributes) are known."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS
from tinymu_jax.data.synthetic.questions import name_of, values_of
from tinymu_jax.data.synthetic.templates import NAMES
from tinymu_jax.evaluation.answer_parsing import most_probable, read_letter, read_yes_no
from tinymu_jax.evaluation.synthetic.items import SyntheticItem

CHOICE, CHOICE_SCORED, BINARY, OPEN = "mcq", "mcq_scored", "binary", "qa"
CAPTION, CAPTION_FACTS = "caption_timbre", "caption_facts"
FORMATS = (CHOICE, CHOICE_SCORED, BINARY, OPEN, CAPTION, CAPTION_FACTS)
"""Formats by which scores are averaged: multiple choice by generated letter and by likelihood, yes
or no, open questions, the timbre that captions name, and all facts that captions state."""
FORMAT_OF = {MCQ: CHOICE, YES_NO: BINARY, QA: OPEN, CAPTIONING: CAPTION}


class FormatScore(NamedTuple):
    """The score of one answer, or of one fact (musical attribute) that a caption states."""

    format: str
    """One of `FORMATS`."""
    facts: tuple[str, ...]
    """Names of the facts that the question or the caption's statement is about."""
    value: float
    """1 if right, 0 if wrong; for a guess, the probability of being right."""


_NEGATED = "".join(
    rf"(?<!\b{word}\s)(?<!\b{word}\sa\s)(?<!\b{word}\san\s)" for word in ("no", "not", "without")
)

# The patterns match whole words ("low" is inside "slow") that are not negated.
_NAMES = {
    fact: {
        value: re.compile(rf"{_NEGATED}(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        for value, name in values.items()
    }
    for fact, values in NAMES.items()
}


def named_values(text: str, fact: str) -> list[str]:
    """Return the values of a fact (musical attribute) that a text names; "no drums" names none."""
    return [value for value, pattern in _NAMES[fact].items() if pattern.search(text)]


def stated_facts(text: str) -> list[tuple[str, str]]:
    """Return all pairs of fact and value that a text states, such as ("tempo", "slow")."""
    return [(fact, value) for fact in FACTS for value in named_values(text, fact)]


def parse_answer(item: SyntheticItem, answer: str) -> str | None:
    """Return the value that an answer gives; None if it gives no value, or several.

    The value is a letter for multiple choice, and "yes" or "no" for yes-or-no questions. For other
    tasks, it is a value of the fact (musical attribute) that is asked for, such as "slow".
    """
    if item.task == MCQ:
        number = read_letter(item.option_texts, answer)
        return None if number is None else LETTERS[number]
    if item.task == YES_NO:
        return read_yes_no(answer)
    values = named_values(answer, item.main_fact)
    return values[0] if len(values) == 1 else None


def expected_value(item: SyntheticItem) -> str | None:
    """Return the value that `parse_answer` finds in the right answer to a question."""
    if item.task in (MCQ, YES_NO):
        return parse_answer(item, item.expected)
    return getattr(item.truth, item.main_fact)


def value_from_facts(item: SyntheticItem) -> str | None:
    """Compute the right answer's value from the clip's facts alone; None if no option is right."""
    truth = getattr(item.truth, item.main_fact)
    if item.task == YES_NO:
        return "yes" if truth in named_values(item.prompt, item.facts[0]) else "no"
    if item.task != MCQ:
        return truth
    name = name_of(item.facts[0], truth)
    return LETTERS[item.option_texts.index(name)] if name in item.option_texts else None


def possible_answers(item: SyntheticItem, extra_timbres: Sequence[str] = ()) -> tuple[str, ...]:
    """Return all valid answers to a yes-or-no or open question; () for other tasks.

    `extra_timbres` are possible timbres beside the standard timbres in `FACTS`.
    """
    if item.task == YES_NO:
        return ("Yes.", "No.")
    if item.task != QA:
        return ()
    fact = item.facts[0]
    return tuple(name_of(fact, value) for value in values_of(fact, extra_timbres))


def caption_prefixes(item: SyntheticItem, extra_timbres: Sequence[str] = ()) -> tuple[str, ...]:
    """Return a caption's first words ("You hear ...") for each possible timbre; () for other tasks.

    `extra_timbres` are possible timbres beside the standard timbres in `FACTS`.
    """
    if item.task != CAPTIONING:
        return ()
    timbres = values_of("timbre", extra_timbres)
    return tuple(f"You hear {name_of('timbre', value)}" for value in timbres)


def is_right(item: SyntheticItem, answer: str) -> bool:
    """Return whether an answer to a question is right; an answer without a value is wrong."""
    value = parse_answer(item, answer)
    return value is not None and value == expected_value(item)


def grade(
    item: SyntheticItem, answer: str, log_likelihoods: Sequence[float] = ()
) -> list[FormatScore]:
    """Return the scores of an answer to a question, in every format that applies.

    `log_likelihoods` has one value per multiple-choice option; () if the options were not scored.
    """
    facts = ("timbre",) if item.task == CAPTIONING else item.facts
    scores = [FormatScore(FORMAT_OF[item.task], facts, float(is_right(item, answer)))]
    if item.task == CAPTIONING:
        scores += [
            FormatScore(CAPTION_FACTS, (fact,), float(getattr(item.truth, fact) == value))
            for fact, value in stated_facts(answer)
        ]
    if item.task == MCQ and log_likelihoods:
        right = LETTERS[most_probable(log_likelihoods)] == expected_value(item)
        scores.append(FormatScore(CHOICE_SCORED, item.facts, float(right)))
    return scores
