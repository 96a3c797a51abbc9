"""Creates and saves matplotlib figures without a display."""

from pathlib import Path
from typing import Any

from tinymu_jax.utils.files import write_atomic


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Return an empty matplotlib figure, with its size given in inches, and the figure's axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save_figure(figure: Any, path: str | Path) -> None:
    """Write an image file in the format of its suffix (default: png); see `write_atomic`."""
    path = Path(path)
    kind = path.suffix.removeprefix(".") or "png"
    write_atomic(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
