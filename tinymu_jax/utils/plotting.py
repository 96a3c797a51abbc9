"""Creates and saves matplotlib figures without a display."""

from pathlib import Path
from typing import Any

from tinymu_jax.utils.files import write_atomic


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Returns an empty matplotlib figure of the given size in inches, and the figure's axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a figure to an image file; the path's suffix selects the format, by default png.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".") or "png"
    write_atomic(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
