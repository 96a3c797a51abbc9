"""Parts of the page as HTML that stands alone, for notebooks."""

import base64
import mimetypes
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

from tinymu_jax.audio.plot import log_mel_png
from tinymu_jax.inference.whole_recording import WholeAnswer
from tinymu_jax.server import page_html as html
from tinymu_jax.server.track import read_track


def track_html(
    recording: str | Path, max_seconds: float = 10.0, whole: WholeAnswer | None = None
) -> str:
    """Return a player of a recording, and its log-mel with a playhead that follows the player.

    Args:
        recording: path of the recording, which becomes part of the HTML.
        max_seconds: seconds that the model hears at once.
        whole: answer about the whole recording, shown as a timeline in which one can click.

    Raises:
        InputError: the recording cannot be read.
    """
    track, log_mel = read_track(str(recording), max_seconds, nullcontext())
    sound = base64.b64encode(Path(recording).read_bytes()).decode()
    kind = mimetypes.guess_type(recording)[0] or "audio/wav"
    parts = [
        f'<audio controls src="data:{kind};base64,{sound}" style="width:100%"></audio>',
        html.track_picture(track.name, track.seconds, max_seconds, log_mel_png(log_mel)),
    ]
    if whole is not None:
        parts += [html.strip(whole.timeline, track.seconds), html.window_list(whole)]
    script = f"<script>{asset('page.js')}</script>"
    return _styled(f"<div data-track>{''.join(parts)}</div>{script}")


def bars_html(probabilities: Mapping[str, float]) -> str:
    """Return options as bars, the most probable first."""
    return _styled(html.bars(probabilities))


def asset(name: str) -> str:
    """Return the text of page.css or page.js."""
    return (files("tinymu_jax.server") / name).read_text("utf-8")


def _styled(body: str) -> str:
    return f'<style>{asset("page.css")}</style><div class="alone">{body}</div>'
