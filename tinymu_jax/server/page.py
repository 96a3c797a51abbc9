"""The page of `tinymu serve`: a recording, questions about it, options, a timeline, fields.

Nothing on the page is fetched from other hosts. Results belong to one browser session.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

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


def disconnect_pages(app: FastAPI) -> None:
    """Close the connections that open pages hold, for which a server would wait when it stops.

    Call it in the server's event loop, before uvicorn's `Server.shutdown`.
    """
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(mounted, gr.routes.App):
            mounted.stop_event.set()


def _lay_out(page: gr.Blocks, do: Handlers) -> None:
    """Create the page's components, and connect them to the handlers."""
    track, description, timeline = gr.State(), gr.State(), gr.State()
    answers, scores = gr.State([]), gr.State([])
    states = [track, answers, scores, timeline, description]
    _view("title", html.title(do.name, do.assistant.max_seconds))
    recording, example = _recording(do)
    with gr.Column(elem_id="view"):
        picture, strip = _view("track"), _view("strip")
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("Ask"):
            question = _text("Question", QUESTION, "question")
            ask, stop_ask = _button_pair("Ask", "ask")
            answer_view = _view("answers", html.EMPTY)
        with gr.Tab("Options"):
            choice = _text("Question", CHOICE, "choice")
            options = _text("Options, one per line", "\n".join(OPTIONS), "options", 5)
            whole = gr.Checkbox(False, label="Listen to the whole track", elem_id="whole")
            score = gr.Button("Score the options", variant="primary", elem_id="score")
            bars = _view("bars")
        with gr.Tab("Timeline"):
            each = _text("Question about every part", QUESTION, "each")
            listen, stop_listen = _button_pair("Ask about the whole track", "listen")
            window_view = _view("windows")
        with gr.Tab("Fields", visible=do.describe is not None):
            find = gr.Button("Fill in the fields", variant="primary", elem_id="find")
            field_view = _view("fields")
    download = gr.Button("Download everything as JSON", elem_id="download", size="sm")
    export = gr.Textbox(visible=False)

    asked = {
        "fn": do.ask,
        "inputs": [track, question, answers],
        "outputs": [answer_view, answers, ask, stop_ask],
    } | _EVENT
    heard = [window_view, strip, timeline, listen, stop_listen]
    running = [
        ask.click(**asked),
        question.submit(**asked),
        score.click(do.score, [track, choice, options, whole, scores], [bars, scores], **_EVENT),
        listen.click(do.listen, [track, each], heard, **_EVENT),
        find.click(do.find_fields, [track], [field_view, description], **_EVENT),
    ]
    stop = {
        "fn": lambda: (*IDLE, *IDLE),
        "outputs": [ask, stop_ask, listen, stop_listen],
        "cancels": running,
    } | _EVENT
    stop_ask.click(**stop)
    stop_listen.click(**stop)
    views = [picture, strip, answer_view, bars, window_view, field_view]
    recording.change(**stop).then(do.open, [recording], [*views, *states], **_EVENT).then(
        None, js="() => window.drawPlayhead()"
    )
    example.click(do.synthesize, None, [recording], **_EVENT)
    save = "text => { if (text) window.saveResults(text); }"
    download.click(do.export, states, [export], **_EVENT).then(None, [export], None, js=save)
    page.unload(do.close)


def _recording(do: Handlers) -> tuple[gr.Audio, gr.Button]:
    """Create the player, into which a recording is dropped or recorded, and the example button."""
    recording = gr.Audio(
        show_label=False,
        type="filepath",
        elem_id="recording",
        editable=False,
        buttons=[],
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
    )
    return recording, gr.Button("Try a synthetic clip", size="sm", elem_id="example")


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
