"""Plots of log-mels."""

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
