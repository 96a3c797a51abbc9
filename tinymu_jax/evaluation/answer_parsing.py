"""Rules that decide which option an answer chooses: MuChoMusic's official rule and two others.

The official rule takes any capital A to D for an option's letter, even the "A" of "Acoustic
guitar". A model that always answers with the text of the right option therefore gets only 81.3 % of
MuChoMusic's 1,187 questions right.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinymu_jax.data.question_formats import LETTERS

OFFICIAL, STRICT, LIKELIHOOD = "official rule", "strict letter rule", "likelihood"
RULES = (OFFICIAL, STRICT, LIKELIHOOD)
"""Names of all rules, in the order of the fields of `Reading`."""
ANNOUNCEMENT = "The correct answer is:"
"""Last words of a prompt. If an answer repeats them, only the text after them is read."""
YES_OR_NO = ("yes", "no")
_BRACKETED = re.compile(rf"\(([{LETTERS}])\)")
_LEADING = re.compile(rf"([{LETTERS}])(?:[).](?!\S)|$)")
_FIRST_WORD = re.compile(r"\w[\w'-]*")


class Reading(NamedTuple):
    """The option that each rule reads from an answer, as an index; None if it reads none."""

    official: int | None
    """2 or 3 (C or D), even if fewer options were shown; such an answer is never right."""
    strict: int | None
    likelihood: int | None


def read_answer(options: Sequence[str], answer: str, log_likelihoods: Sequence[float]) -> Reading:
    """Return the index of the option that each rule in `RULES` reads from an answer.

    `options` are the option texts in the order shown. `log_likelihoods` has one value per option;
    () if the options were not scored.
    """
    return Reading(
        read_officially(options, answer),
        read_letter(options, answer),
        most_probable(log_likelihoods) if log_likelihoods else None,
    )


def read_officially(options: Sequence[str], answer: str) -> int | None:
    """Return the index of the option that an answer chooses, by MuChoMusic's official rule.

    The rule looks for the capital letters A to D, even inside words. If exactly one of them occurs,
    the answer chooses that letter, even if there is no such option. Otherwise, the answer chooses
    the first option whose text it contains, ignoring case. Return None if it contains no option's
    text.
    """
    text = _after_announcement(answer)
    letters = [number for number, letter in enumerate(LETTERS) if letter in text]
    if len(letters) == 1:
        return letters[0]
    lower = text.lower()
    named = (n for n, option in enumerate(options) if option.lower().strip() in lower)
    return next(named, None)


def read_letter(options: Sequence[str], answer: str) -> int | None:
    """Return the index of the option whose letter an answer gives, by the strict letter rule.

    A letter must be written as "(B)" anywhere, as "B)" or "B." at the beginning, or as "B" alone.
    Return None if there is no such letter, if there are several, or if the answer is the whole text
    of an option, such as "A. Vivaldi".
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
    """Return "yes" or "no" if it is the first word of an answer, ignoring case; else None."""
    first = _FIRST_WORD.search(answer)
    word = first[0].lower() if first else None
    return word if word in YES_OR_NO else None


def most_probable(log_likelihoods: Sequence[float]) -> int:
    """Return the index of the highest log-likelihood; in a tie, the first."""
    return max(range(len(log_likelihoods)), key=log_likelihoods.__getitem__)


def _after_announcement(answer: str) -> str:
    return answer.split(ANNOUNCEMENT)[-1].strip()
