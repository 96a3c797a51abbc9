"""Pictures of what the encoder reads."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import write_whole


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


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a matplotlib figure; the path's suffix says the format.

    Raises:
        InputError: the place cannot be written to.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".") or "png"
    write_whole(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
