"""Matplotlib figures without a display."""

from pathlib import Path
from typing import Any

from tinymu_jax.utils.files import write_atomic


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Returns an empty matplotlib figure, its size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a figure; the path's suffix selects the format.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".") or "png"
    write_atomic(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
