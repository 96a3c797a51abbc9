"""Rules that read an answer's option: MuChoMusic's official one, a strict one, and likelihood.

The official rule takes any capital A to D for a letter, the "A" of "Acoustic guitar" too: a perfect
model that answers with the options' texts gets 81.3 % of MuChoMusic's 1,187 questions. The other
two have no such flaw.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinymu_jax.data.question_formats import LETTERS

OFFICIAL, STRICT, LIKELIHOOD = "official rule", "strict letter rule", "likelihood"

RULES = (OFFICIAL, STRICT, LIKELIHOOD)
"""Their names, in the order of `Reading`."""

ANNOUNCEMENT = "The correct answer is:"
"""The end of a prompt; only what follows an answer's last one is read."""

YES_OR_NO = ("yes", "no")

_BRACKETED = re.compile(rf"\(([{LETTERS}])\)")

_LEADING = re.compile(rf"([{LETTERS}])(?:[).](?!\S)|$)")

_FIRST_WORD = re.compile(r"\w[\w'-]*")


class Reading(NamedTuple):
    """The option that each rule reads in an answer, from 0; None: it reads none."""

    official: int | None
    strict: int | None
    likelihood: int | None


def read_answer(options: Sequence[str], answer: str, log_likelihoods: Sequence[float]) -> Reading:
    """Reads an answer by all rules.

    Args:
        options: their texts, in the order shown.
        answer: the generated text.
        log_likelihoods: of the options; () where they were not scored.
    """
    return Reading(
        read_officially(options, answer),
        read_letter(options, answer),
        most_probable(log_likelihoods) if log_likelihoods else None,
    )


def read_officially(options: Sequence[str], answer: str) -> int | None:
    """Returns the option that MuChoMusic's official rule reads in an answer.

    It is the only letter of those shown that occurs in the answer, as any character; where none or
    several do, the first option whose text occurs in it, ignoring case.
    """
    text = _after_announcement(answer)
    letters = [number for number in range(len(options)) if LETTERS[number] in text]
    if len(letters) == 1:
        return letters[0]
    lower = text.lower()
    named = (n for n, option in enumerate(options) if option.lower().strip() in lower)
    return next(named, None)


def read_letter(options: Sequence[str], answer: str) -> int | None:
    """Returns the option whose letter an answer gives: the strict letter rule.

    A letter is "(B)" anywhere, and "B", "B)" or "B." at the beginning. None for two different
    letters, for a letter without an option, and for an option's whole text: "A. Vivaldi" begins
    like a letter.
    """
    text = _after_announcement(answer)
    if len(text) > 1 and text.casefold() in (option.strip().casefold() for option in options):
        return None
    leading = _LEADING.match(text)
    letters = set(_BRACKETED.findall(text)) | ({leading[1]} if leading else set())
    if len(letters) != 1:
        return None
    number = LETTERS.index(letters.pop())
    return number if number < len(options) else None


def read_yes_no(answer: str) -> str | None:
    """Returns "yes" or "no" if that is the first word, ignoring case."""
    first = _FIRST_WORD.search(answer)
    word = first[0].lower() if first else None
    return word if word in YES_OR_NO else None


def most_probable(log_likelihoods: Sequence[float]) -> int:
    """Returns the most probable option; the first of equal ones."""
    return max(range(len(log_likelihoods)), key=log_likelihoods.__getitem__)


def _after_announcement(answer: str) -> str:
    return answer.split(ANNOUNCEMENT)[-1].strip()
