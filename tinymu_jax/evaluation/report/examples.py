"""Prepare the worst answers for a report: encode their audio and mark their options."""

import base64
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import soundfile

from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.report.text import file_name, without_folders
from tinymu_jax.evaluation.results import Example

SECONDS = 10.0
"""Seconds of audio embedded per answer, from its start; about 50 kB in Ogg Vorbis at 16 kHz."""


class Sound(NamedTuple):
    """The audio of a recording, to be embedded in a report's HTML page."""

    source: str | None
    """Ogg Vorbis as a data URI; None if the recording cannot be read."""
    problem: str = ""
    """Reason why the recording cannot be read; empty if it can be read."""


def load_sound(path: str) -> Sound:
    """Return the first ten seconds of a recording (mono, 16 kHz), or why they cannot be read."""
    if not path:
        return Sound(None, "no recording was given")
    try:
        samples = read_clip(path, SECONDS, keep_damaged=True).samples
    except InputError as error:
        return Sound(None, without_folders(str(error).replace(path, file_name(path))))
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="OGG", subtype="VORBIS")
    return Sound(f"data:audio/ogg;base64,{base64.b64encode(file.getvalue()).decode()}")


class Option(NamedTuple):
    """An option of a multiple-choice question, as a report shows it."""

    text: str
    """The option's words, without its letter."""
    is_correct: bool
    is_predicted: bool

    @property
    def marks(self) -> list[str]:
        """The words "correct" and "predicted", as far as they apply to the option."""
        roles = (("correct", self.is_correct), ("predicted", self.is_predicted))
        return [word for word, applies in roles if applies]


def marked_options(example: Example) -> list[Option]:
    """Return the options of a question, with the correct and the predicted option marked.

    An answer marks the option that it names by words or letter, as in "slow", "(B)" or "(B) slow".
    """
    options = [
        re.sub(rf"^\(?{_letter(number)}\)\s*", "", text)
        for number, text in enumerate(example.options)
    ]
    correct, predicted = (
        _named_option(text, options) for text in (example.expected, example.predicted)
    )
    return [Option(text, n == correct, n == predicted) for n, text in enumerate(options)]


def _named_option(text: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that an answer names by words or letter; None if none."""
    text, options = _normalize(text), [_normalize(option) for option in options]
    if text in options:
        return options.index(text)
    for number, option in enumerate(options):
        letter = _letter(number).lower()
        openings = (f"({letter})", f"{letter})", f"{letter}.", f"{letter}:")
        forms = {letter, *openings, *(f"{opening} {option}" for opening in openings)}
        if text in {_normalize(form) for form in forms}:
            return number
    return None


def _letter(number: int) -> str:
    return chr(ord("A") + number)


def _normalize(text: str) -> str:
    """Return a text in lower case, without repeated spaces and final full stops."""
    return " ".join(text.split()).rstrip(".").casefold()
