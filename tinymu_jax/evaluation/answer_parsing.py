"""Rules that decide which option an answer chooses: MuChoMusic's official rule and two others.

The official rule takes any capital A to D for an option's letter, even the "A" of "Acoustic
guitar". By this rule, a model that always answers with the right option's text gets only 81.3 % of
MuChoMusic's 1,187 questions right. The other two rules do not have this flaw.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinymu_jax.data.question_formats import LETTERS

OFFICIAL, STRICT, LIKELIHOOD = "official rule", "strict letter rule", "likelihood"
RULES = (OFFICIAL, STRICT, LIKELIHOOD)
"""The names of all rules, in the order of the fields of `Reading`."""
ANNOUNCEMENT = "The correct answer is:"
"""Words that end a prompt. If an answer repeats them, only the text behind them is read."""
YES_OR_NO = ("yes", "no")
_BRACKETED = re.compile(rf"\(([{LETTERS}])\)")
_LEADING = re.compile(rf"([{LETTERS}])(?:[).](?!\S)|$)")
_FIRST_WORD = re.compile(r"\w[\w'-]*")


class Reading(NamedTuple):
    """The index of the option that each rule reads in an answer; None if the rule reads none."""

    official: int | None
    strict: int | None
    likelihood: int | None


def read_answer(options: Sequence[str], answer: str, log_likelihoods: Sequence[float]) -> Reading:
    """Reads the chosen option from an answer, by each rule.

    Args:
        options: the texts of the question's options, in the order shown.
        answer: the generated text.
        log_likelihoods: the log-likelihood of each option; () if the options were not scored.
    """
    return Reading(
        read_officially(options, answer),
        read_letter(options, answer),
        most_probable(log_likelihoods) if log_likelihoods else None,
    )


def read_officially(options: Sequence[str], answer: str) -> int | None:
    """Returns the index of the option that MuChoMusic's official rule reads in an answer.

    If exactly one of the options' capital letters occurs anywhere in the answer, even inside a
    word, the rule reads this option. Otherwise it reads the first option whose text occurs in the
    answer, ignoring case. It reads None if the answer contains no option's text.
    """
    text = _after_announcement(answer)
    letters = [number for number in range(len(options)) if LETTERS[number] in text]
    if len(letters) == 1:
        return letters[0]
    lower = text.lower()
    named = (n for n, option in enumerate(options) if option.lower().strip() in lower)
    return next(named, None)


def read_letter(options: Sequence[str], answer: str) -> int | None:
    """Returns the index of the option whose letter an answer gives, by the strict letter rule.

    A letter counts as "(B)" anywhere, or as "B", "B)" or "B." at the beginning. Returns None if no
    letter or two different letters count, if no option has the letter, or if the answer is the
    whole text of an option, such as "A. Vivaldi".
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
    """Returns "yes" or "no" if it is the first word of the answer, ignoring case; else None."""
    first = _FIRST_WORD.search(answer)
    word = first[0].lower() if first else None
    return word if word in YES_OR_NO else None


def most_probable(log_likelihoods: Sequence[float]) -> int:
    """Returns the index of the option with the highest log-likelihood; the first one of a tie."""
    return max(range(len(log_likelihoods)), key=log_likelihoods.__getitem__)


def _after_announcement(answer: str) -> str:
    return answer.split(ANNOUNCEMENT)[-1].strip()
