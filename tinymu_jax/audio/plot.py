"""Plots of log-mels."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tinymu_jax.audio.log_mel import HOP, NUM_MELS, SAMPLE_RATE, WINDOW, mel_filterbank
from tinymu_jax.utils.files import printable
from tinymu_jax.utils.plotting import new_figure, save_figure


def plot_log_mel(
    log_mel: Float[np.ndarray, "frames 80"], path: str | Path, title: str = ""
) -> None:
    """Write an image of a normalized log-mel, with axes in seconds and hertz.

    The suffix of `path` selects the image format. Raises `InputError` if the file is not writable.
    """
    figure, axes = new_figure(8, 3)
    seconds = len(log_mel) * HOP / SAMPLE_RATE
    extent = (0, seconds, 0, NUM_MELS)
    image = axes.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    centres = mel_filterbank().argmax(axis=0) * SAMPLE_RATE / WINDOW
    bands = [int(np.abs(centres - hertz).argmin()) for hertz in (100, 300, 1000, 3000, 7000)]
    axes.set_yticks([band + 0.5 for band in bands], [f"{centres[band]:.0f}" for band in bands])
    axes.set(xlabel="seconds", ylabel="hertz")
    # The title may be a file name that contains "$".
    axes.set_title(printable(title), parse_math=False)
    figure.colorbar(image, ax=axes, label="log energy, normalized")
    save_figure(figure, path)


def log_mel_png(log_mel: Float[np.ndarray, "frames 80"]) -> bytes:
    """Return a PNG image of a log-mel, without axes: one pixel per frame and band, low bands last.

    Colours span the log-mel's values, apart from the lowest and the highest percent.
    """
    from matplotlib.image import imsave

    low, high = np.percentile(log_mel, (1, 99))
    file = io.BytesIO()
    imsave(file, log_mel.T[::-1], vmin=low, vmax=max(high, low + 1e-3), cmap="magma", format="png")
    return file.getvalue()
