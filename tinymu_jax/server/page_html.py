"""Renders the parts of the page as HTML: the picture, answers, bars, the timeline, the fields."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from tinymu_jax.inference.whole_recording import WholeAnswer, WindowAnswer
from tinymu_jax.library.description import Description

TICKS = 5
"""Number of times written under the picture."""
NUM_COLOURS = 8
"""Number of colours by which equal answers are recognized in the timeline."""

DENSE = 60
"""Number of windows above which there is no space between the blocks of the timeline."""


class Answer(NamedTuple):
    """A question and the answer so far."""

    question: str
    answer: str


def clock(seconds: float, total: float = 60.0) -> str:
    """Return a time as minutes and seconds, or with hours, such as 3:07 or 1:03:07.

    In a recording of less than 20 s (`total`), it has a tenth of a second, such as 2.5 s.
    """
    if total < 20:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def notice(text: str) -> str:
    """Render a sentence that says what is wrong and what to do."""
    return f'<p class="notice" role="alert">{escape(text)}</p>'


def hint(text: str) -> str:
    """Render a quiet sentence, such as what will appear in an empty place."""
    return f'<p class="hint">{escape(text)}</p>'


EMPTY = hint("Answers appear here.")


def title(name: str, max_seconds: float) -> str:
    """Render the page's heading; `max_seconds` is the length of what the model hears at once."""
    return (
        f"<h1>TinyMU</h1><p>Ask about a piece of music. {escape(name)} listens to "
        f"{max_seconds:g} s at a time, on this machine.</p>"
    )


def track_picture(name: str, seconds: float, max_seconds: float, png: bytes) -> str:
    """Render the log-mel of a recording, with the playhead (page.js moves it) and a time axis.

    Questions are about the first `max_seconds`, which are marked if they are not everything.
    """
    image = base64.b64encode(png).decode()
    part = ""
    if max_seconds < seconds:
        part = f'<div class="rest" style="left:{100 * max_seconds / seconds:.3f}%"></div>'
    ticks = "".join(
        f"<span>{clock(seconds * tick / (TICKS - 1), seconds)}</span>" for tick in range(TICKS)
    )
    about = clock(seconds, seconds)
    if max_seconds < seconds:
        about += f" &middot; Ask is about the first {max_seconds:g} s, Timeline about everything"
    return (
        f'<figure class="track"><figcaption><b>{escape(name)}</b> {about}'
        '<span class="mute"> &middot; this browser cannot play the file; everything else works'
        f'</span></figcaption><div class="picture" data-seconds="{seconds:.3f}">'
        f'<img alt="Log-mel spectrogram" src="data:image/png;base64,{image}">{part}'
        f'<div class="playhead"></div></div><div class="ticks">{ticks}</div></figure>'
    )


def answers(log: Sequence[Answer], writing: bool = False) -> str:
    """Render questions and answers, the newest first; `writing`: the newest is not complete."""
    items = []
    for number, (question, answer) in enumerate(log):
        state = ' class="writing"' if writing and number == 0 else ""
        items.append(
            f"<article><h3>{escape(question)}</h3><p{state}>{escape(answer)}</p></article>"
        )
    return f'<div class="answers" aria-live="polite">{"".join(items)}</div>'


def bars(probabilities: Mapping[str, float]) -> str:
    """Render options as bars, the most probable first."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    rows = (
        f'<div class="bar"><span>{escape(option)}</span><b>{100 * p:.1f}%</b>'
        f'<div><i style="width:{100 * p:.2f}%"></i></div></div>'
        for option, p in ranked
    )
    return f'<div class="bars">{"".join(rows)}</div>'


def strip(timeline: Sequence[WindowAnswer], seconds: float) -> str:
    """Render windows as blocks under the picture; equal answers have the same colour."""
    colours = _colours(timeline)
    blocks, shown = [], 0.0
    for window in timeline:
        # A last window that was moved back to be full shows its part that is new.
        left, shown = max(window.start, shown), window.end
        label = escape(f"{_times(window)}: {_text(window)}")
        blocks.append(
            f'<button type="button" class="block {colours[window.answer]}" title="{label}" '
            f'aria-label="{label}" data-start="{window.start:.3f}" data-from="{left:.3f}" '
            f'data-end="{window.end:.3f}" style="left:{100 * left / seconds:.3f}%;'
            f'width:{100 * (shown - left) / seconds:.3f}%"></button>'
        )
    dense = " dense" if len(timeline) > DENSE else ""
    return f'<div class="strip{dense}">{"".join(blocks)}</div>'


def window_list(whole: WholeAnswer) -> str:
    """Render the answer about the whole track, and the windows' answers as a list to click in."""
    colours = _colours(whole.timeline)
    rows, shown = [], 0.0
    for window in whole.timeline:
        left, shown = max(window.start, shown), window.end
        rows.append(
            f'<li><button type="button" data-start="{window.start:.3f}" data-from="{left:.3f}" '
            f'data-end="{window.end:.3f}"><i class="{colours[window.answer]}"></i>'
            f"<time>{_times(window)}</time><span>{escape(_text(window))}</span></button></li>"
        )
    head = hint("Listening …")
    if whole.text is not None:
        head = f'<p class="caption"><small>Whole track</small>{escape(whole.text)}</p>'
    return f'{head}<ol class="windows">{"".join(rows)}</ol>'


def fields_table(description: Description) -> str:
    """Render a recording's caption, its fields and what was measured."""
    caption = description.caption
    head = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    rows = [
        _row(name, field.value, f"{100 * field.probability:.0f}%")
        for name, field in description.fields.items()
    ]
    bpm = None if description.bpm is None else f"{description.bpm:g}"
    measured = {"bpm": bpm, "key": description.key, "meter": description.time_signature}
    rows += [_row(name, value, "measured") for name, value in measured.items() if value]
    return (
        f'{head}<table class="fields"><thead><tr><th>Field</th><th>Value</th>'
        f"<th>Probability</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _row(name: str, value: str | None, note: str) -> str:
    shown = '<em class="unknown">unknown</em>' if value is None else escape(str(value))
    return (
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{shown}</td><td>{escape(note)}</td></tr>"
    )


def _times(window: WindowAnswer) -> str:
    return f"{clock(window.start)} to {clock(window.end)}"


def _text(window: WindowAnswer) -> str:
    return "(silence)" if window.answer is None else window.answer


def _colours(timeline: Iterable[WindowAnswer]) -> dict[str | None, str]:
    """Return the CSS class of each distinct answer; those beyond `NUM_COLOURS` share one."""
    distinct = dict.fromkeys(window.answer for window in timeline if window.answer is not None)
    classes = {text: f"c{min(number, NUM_COLOURS)}" for number, text in enumerate(distinct)}
    return classes | {None: "silence"}
