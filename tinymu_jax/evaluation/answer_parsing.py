"""What an answer to multiple choice comes down to, by three rules.

The official rule of MuChoMusic takes any capital A to D for a letter, the "A" of "Acoustic guitar"
too: a perfect model that answers by the options' texts gets 81.3 % of its 1,187 questions. The
other two have no such fault.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinymu_jax.data.question_formats import LETTERS

OFFICIAL, STRICT, LIKELIHOOD = "official rule", "strict letter rule", "likelihood"

RULES = (OFFICIAL, STRICT, LIKELIHOOD)
"""Their names, in the order of `Reading`."""

ANNOUNCED = "The correct answer is:"
"""What prompts end with; of an answer that repeats it, what follows its last one counts."""

_BRACKETED = re.compile(rf"\(([{LETTERS}])\)")

_LEADING = re.compile(rf"([{LETTERS}])(?:[).](?!\S)|$)")


class Reading(NamedTuple):
    """The numbers of the options that an answer chooses, from 0; None: it chooses none."""

    official: int | None
    strict: int | None
    likelihood: int | None


def read_reply(options: Sequence[str], said: str, log_likelihoods: Sequence[float]) -> Reading:
    """Reads an answer by all rules.

    Args:
        options: their texts, in the order shown.
        said: the answer.
        log_likelihoods: of the options; () where they were not scored.
    """
    return Reading(
        read_officially(options, said),
        read_letter(options, said),
        most_probable(log_likelihoods) if log_likelihoods else None,
    )


def read_officially(options: Sequence[str], said: str) -> int | None:
    """Returns the option that an answer chooses by MuChoMusic's own rule.

    That is the one letter of those shown that occurs in it, as any character; where none or several
    do, the first option whose text occurs in it, upper case or lower.
    """
    text = _after_announcement(said)
    letters = [number for number in range(len(options)) if LETTERS[number] in text]
    if len(letters) == 1:
        return letters[0]
    low = text.lower()
    named = (n for n, option in enumerate(options) if option.lower().strip() in low)
    return next(named, None)


def read_letter(options: Sequence[str], said: str) -> int | None:
    """Returns the option whose letter an answer gives.

    A letter is "(B)" anywhere, and "B", "B)" or "B." at the beginning. An answer with two
    different ones, or with that of no option, chooses none; neither does one that is an option's
    whole text, of which "A. Vivaldi" begins as a letter does.
    """
    text = _after_announcement(said)
    if len(text) > 1 and text.casefold() in (option.strip().casefold() for option in options):
        return None
    leading = _LEADING.match(text)
    letters = set(_BRACKETED.findall(text)) | ({leading[1]} if leading else set())
    if len(letters) != 1:
        return None
    number = LETTERS.index(letters.pop())
    return number if number < len(options) else None


def most_probable(log_likelihoods: Sequence[float]) -> int:
    """Returns the most probable option; of equals the first."""
    return max(range(len(log_likelihoods)), key=log_likelihoods.__getitem__)


def _after_announcement(said: str) -> str:
    return said.split(ANNOUNCED)[-1].strip()
