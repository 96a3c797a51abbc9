"""What is shown of a bad answer: the heard part of its recording, and its options marked."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.report.compare import file_name
from tinymu_jax.evaluation.report.markup import without_folders
from tinymu_jax.evaluation.results import Example

HEARD = 10.0
"""Seconds from the start."""

FORMAT, CODING, KIND = "OGG", "VORBIS", "audio/ogg"
"""About 50 kB for ten seconds of 16 kHz."""


class Sound(NamedTuple):
    """A recording in a page."""

    source: str | None
    """Its samples as a data URI; None: it cannot be read."""
    problem: str = ""
    """Why."""


def heard_part(path: str) -> Sound:
    """Returns what the model hears of a recording: its first ten seconds, one channel, 16 kHz."""
    import soundfile

    from tinymu_jax.audio.load import read_clip
    from tinymu_jax.audio.log_mel import SAMPLE_RATE

    if not path:
        return Sound(None, "no recording was given")
    try:
        samples = read_clip(path, HEARD).samples
    except InputError as error:
        return Sound(None, without_folders(str(error).replace(path, file_name(path))))
    written = io.BytesIO()
    soundfile.write(written, samples, SAMPLE_RATE, format=FORMAT, subtype=CODING)
    return Sound(f"data:{KIND};base64,{base64.b64encode(written.getvalue()).decode()}")


def heard_parts(paths: Iterable[str]) -> dict[str, Sound]:
    """Returns the heard part of each recording, which is read once."""
    return {path: heard_part(path) for path in dict.fromkeys(paths)}


class Option(NamedTuple):
    """An option of a question, as it is shown."""

    text: str
    """Without its letter."""
    right: bool
    said: bool


def marked(answer: Example) -> list[Option]:
    """Returns the options of a question, and which of them is right and which was said.

    A text names an option by its words or by its letter, as in "(B)" or "(B) slow"; one that
    does neither marks none.
    """
    bare = [re.sub(rf"^\(?{_letter(n)}\)\s*", "", one) for n, one in enumerate(answer.options)]
    right, said = (_named(text, bare) for text in (answer.expected, answer.predicted))
    return [Option(option, n == right, n == said) for n, option in enumerate(bare)]


def _named(text: str, options: Sequence[str]) -> int | None:
    """Returns the number of the option that a text names."""
    spoken, bare = _even(text), [_even(option) for option in options]
    if spoken in bare:
        return bare.index(spoken)
    for number, option in enumerate(bare):
        letter = _letter(number).lower()
        openings = (f"({letter})", f"{letter})", f"{letter}.", f"{letter}:")
        forms = {letter, *openings, *(f"{opening} {option}" for opening in openings)}
        if spoken in {_even(form) for form in forms}:
            return number
    return None


def _letter(number: int) -> str:
    return chr(ord("A") + number)


def _even(text: str) -> str:
    """Returns a text without what does not tell it from another."""
    return " ".join(text.split()).rstrip(".").casefold()
