"""The page of `tinymu serve`: a recording, questions about it, options, a timeline, fields.

Nothing on the page is fetched from other hosts. Results belong to one browser session.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from fastapi import FastAPI

from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.library.description import Description
from tinymu_jax.server import page_html as html
from tinymu_jax.server.embed import asset
from tinymu_jax.server.page_handlers import IDLE, Handlers

QUESTION = "Describe the music you hear."
CHOICE = "Which instrument plays?"
OPTIONS = ("piano", "guitar", "violin", "trumpet", "drums")
SESSIONS = 16
"""Number of sessions that may use one button at once; the model answers them in turns."""
STALE_SECONDS = 86_400
"""Age at which an upload is deleted whose session did not end."""
_EVENT = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": SESSIONS}
"""Options of all events: the page shows progress itself, and is no API."""


def build_page(
    assistant: Assistant,
    name: str,
    describe: Callable[[str], Description] | None = None,
    lock: AbstractContextManager | None = None,
) -> gr.Blocks:
    """Build the page; `mount_page` puts it on a server.

    Args:
        assistant: the model that answers.
        name: the model's name, shown on the page and written to the results.
        describe: function from a recording's path to its description, as of `describe_with`;
            without it the page has no tab for fields.
        lock: held while the model computes. Pass the server's lock if others use the model too.
    """
    handlers = Handlers(assistant, name, describe, lock or threading.Lock())
    with gr.Blocks(
        title=f"TinyMU: {name}", analytics_enabled=False, delete_cache=(3_600, STALE_SECONDS)
    ) as page:
        _lay_out(page, handlers)
    _accept_uploads_only(page)
    return page


def mount_page(app: FastAPI, page: gr.Blocks, max_bytes: int | None = None) -> FastAPI:
    """Put a page from `build_page` at "/" of a server; uploads of over `max_bytes` are refused.

    Call it after the server's other routes are defined, which go before the page's.
    """
    theme = gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css=asset("page.css"),
        head=f"<script>{asset('page.js')}</script>",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size=max_bytes,
    )


class _Tab(NamedTuple):
    """What a tab has, by which the rest of the page can clear and stop it."""

    view: gr.HTML
    """Where the result appears."""
    events: Sequence[Any]
    """Events that compute."""
    buttons: Sequence[gr.Button] = ()
    """The button that starts, and the one that stops."""


def _lay_out(page: gr.Blocks, handlers: Handlers) -> None:
    """Create the page's components, and connect them to the handlers."""
    _view("title", html.title(handlers.name, handlers.assistant.max_seconds))
    recording = gr.Audio(
        show_label=False,
        type="filepath",
        elem_id="recording",
        editable=False,
        buttons=[],
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
    )
    example = gr.Button("Try a synthetic clip", size="sm", elem_id="example")
    with gr.Column(elem_id="view"):
        picture, strip = _view("track"), _view("strip")
    track, answers, scores = gr.State(), gr.State([]), gr.State([])
    timeline, description = gr.State(), gr.State()
    states = [track, answers, scores, timeline, description]
    with gr.Tabs(elem_id="tabs"):
        tabs = [
            _ask_tab(handlers, track, answers),
            _options_tab(handlers, track, scores),
            _timeline_tab(handlers, track, timeline, strip),
            _fields_tab(handlers, track, description),
        ]
    download = gr.Button("Download everything as JSON", elem_id="download", size="sm")
    export = gr.Textbox(visible=False)

    buttons = [button for tab in tabs for button in tab.buttons]
    stop = {
        "fn": lambda: IDLE * (len(buttons) // 2),
        "outputs": buttons,
        "cancels": [event for tab in tabs for event in tab.events],
    } | _EVENT
    for button in buttons[1::2]:
        button.click(**stop)
    views = [picture, strip, *(tab.view for tab in tabs)]
    recording.change(**stop).then(handlers.open, [recording], [*views, *states], **_EVENT).then(
        None, js="() => window.drawPlayhead()"
    )
    example.click(handlers.synthesize, None, [recording], **_EVENT)
    save = "text => { if (text) window.saveResults(text); }"
    download.click(handlers.export, states, [export], **_EVENT).then(None, [export], js=save)
    page.unload(handlers.close)


def _ask_tab(handlers: Handlers, track: gr.State, answers: gr.State) -> _Tab:
    with gr.Tab("Ask"):
        question = _text("Question", QUESTION, "question")
        buttons = _button_pair("Ask", "ask")
        view = _view("answers", html.EMPTY)
    event = {
        "fn": handlers.ask,
        "inputs": [track, question, answers],
        "outputs": [view, answers, *buttons],
    } | _EVENT
    return _Tab(view, [buttons[0].click(**event), question.submit(**event)], buttons)


def _options_tab(handlers: Handlers, track: gr.State, scores: gr.State) -> _Tab:
    with gr.Tab("Options"):
        question = _text("Question", CHOICE, "choice")
        options = _text("Options, one per line", "\n".join(OPTIONS), "options", 5)
        whole = gr.Checkbox(False, label="Listen to the whole track", elem_id="whole")
        start = gr.Button("Score the options", variant="primary", elem_id="score")
        view = _view("bars")
    inputs = [track, question, options, whole, scores]
    return _Tab(view, [start.click(handlers.score, inputs, [view, scores], **_EVENT)])


def _timeline_tab(handlers: Handlers, track: gr.State, timeline: gr.State, strip: gr.HTML) -> _Tab:
    with gr.Tab("Timeline"):
        question = _text("Question about every part", QUESTION, "each")
        buttons = _button_pair("Ask about the whole track", "listen")
        view = _view("windows")
    outputs = [view, strip, timeline, *buttons]
    event = buttons[0].click(handlers.answer_timeline, [track, question], outputs, **_EVENT)
    return _Tab(view, [event], buttons)


def _fields_tab(handlers: Handlers, track: gr.State, description: gr.State) -> _Tab:
    with gr.Tab("Fields", visible=handlers.describe is not None):
        start = gr.Button("Fill in the fields", variant="primary", elem_id="find")
        view = _view("fields")
    outputs = [view, description]
    return _Tab(view, [start.click(handlers.find_fields, [track], outputs, **_EVENT)])


def _view(name: str, value: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=name, apply_default_css=False)


def _accept_uploads_only(page: gr.Blocks) -> None:
    """Refuse requests that name a file of the server, or an address, in any component's value.

    A mounted Gradio would copy the file, or download what is at the address.
    """

    async def move(component: Any, path: str | Path | None) -> str | None:
        folder = Path(component.GRADIO_CACHE).resolve()
        if path is not None and not Path(path).resolve().is_relative_to(folder):
            raise gr.Error("files have to be uploaded")
        return await type(component).async_move_resource_to_block_cache(component, path)

    for component in page.blocks.values():
        component.async_move_resource_to_block_cache = partial(move, component)


def _text(label: str, value: str, name: str, lines: int = 1) -> gr.Textbox:
    return gr.Textbox(value, label=label, lines=lines, max_lines=lines + 5, elem_id=name)


def _button_pair(text: str, name: str) -> tuple[gr.Button, gr.Button]:
    """Create a button that starts, and one that stops and is hidden until then."""
    with gr.Row():
        start = gr.Button(text, variant="primary", elem_id=name)
        return start, gr.Button("Stop", visible=False, elem_id=f"stop-{name}")
