"""Pictures of what the encoder reads."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tinymu_jax import audio
from tinymu_jax.errors import InputError
from tinymu_jax.files import write_whole


def need_matplotlib() -> None:
    """Raises `InputError` if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise InputError(
            "pictures need matplotlib: pip install 'tinymu_jax[pictures]', or leave --plot out"
        )


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Returns an empty matplotlib figure of so many inches, and its axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw(say: Callable[[str], Any], plot: Callable[..., None], *arguments: Any) -> None:
    """Draws a picture among other results; without matplotlib it is left out, and that is said.

    Args:
        say: prints a line.
        plot: writes the picture.
        *arguments: of `plot`.

    Raises:
        InputError: as `plot`.
    """
    try:
        need_matplotlib()
    except InputError:
        say("no picture drawn: they need matplotlib (pip install 'tinymu_jax[pictures]')")
        return
    plot(*arguments)


def plot_log_mel(
    log_mel: Float[np.ndarray, "frames 80"], path: str | Path, title: str = ""
) -> None:
    """Writes a picture of a normalised log-mel, time in seconds, bands by their frequency.

    Args:
        log_mel: of `tinymu_jax.log_mel`.
        path: of the picture; its suffix says the format.
        title: above the picture.

    Raises:
        InputError: matplotlib is not installed; the place cannot be written to.
    """
    figure, axes = new_figure(8, 3)
    seconds = len(log_mel) * audio.HOP / audio.SAMPLE_RATE
    extent = (0, seconds, 0, audio.NUM_MELS)
    image = axes.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    centres = audio.mel_filterbank().argmax(axis=0) * audio.SAMPLE_RATE / audio.WINDOW
    bands = [int(np.abs(centres - hertz).argmin()) for hertz in (100, 300, 1000, 3000, 7000)]
    axes.set_yticks([band + 0.5 for band in bands], [f"{centres[band]:.0f}" for band in bands])
    axes.set(xlabel="seconds", ylabel="hertz")
    # A file's name is no formula, whatever signs it has.
    axes.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axes, label="log energy, normalised")
    save_figure(figure, path)


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a matplotlib figure; the path's suffix says the format.

    Raises:
        InputError: the place cannot be written to.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".") or "png"
    write_whole(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
