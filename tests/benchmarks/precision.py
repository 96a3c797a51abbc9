"""Losses of a nano-sized model that is trained in float32, bfloat16 and float16.

    python tests/benchmarks/precision.py --output outputs/precision

The runs have the same weights, questions and order; prints the mean loss of the last 40 of 400
steps, and draws the losses over each other.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.train_nano import make_data, read_vocab_size
from tinymu_jax.training.config import InitConfig, OptimConfig, StepConfig, TrainConfig
from tinymu_jax.training.plots import read_losses
from tinymu_jax.training.run import train
from tinymu_jax.utils.plotting import new_figure, save_figure

DTYPES = ("float32", "bfloat16", "float16")
STEPS, LAST = 400, 40


def run_config(data: Path, output: Path, dtype: str) -> TrainConfig:
    """Returns the run of a nano from random weights, all but the encoder trained."""
    paths, size = nano_recipe.run_paths(data, output), read_vocab_size(data)
    config = nano_recipe.stages(paths, size, 4.0)[nano_recipe.JOIN]
    return replace(
        config,
        init=InitConfig(tokenizer=str(paths.tokenizer)),
        model=nano_recipe.model(size),
        output=str(output / dtype),
        step=StepConfig(remat="none", encoder_dtype=dtype, decoder_dtype=dtype),
        optim=OptimConfig(learning_rate=1e-3, warmup_fraction=0.1),
        loop=replace(config.loop, log_every=1),
        steps=STEPS,
    )


def draw(output: Path) -> None:
    """Draws the losses of all runs and their differences from float32's, as means of ten steps."""
    figure, axes = new_figure(8, 4.5)
    axes.remove()
    axes, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    steps, _ = read_losses(output / DTYPES[0])
    losses = {dtype: np.array(read_losses(output / dtype)[1]) for dtype in DTYPES}
    means = {dtype: values.reshape(-1, 10).mean(1) for dtype, values in losses.items()}
    for number, dtype in enumerate(DTYPES):
        # Lines that lie on each other become thinner.
        axes.plot(steps[9::10], means[dtype], label=dtype, linewidth=5 - 2 * number)
        difference = 100 * (means[dtype] / means[DTYPES[0]] - 1)
        lower.plot(steps[9::10], difference, linewidth=1)
        print(f"{dtype}: {losses[dtype][-LAST:].mean():.4f} over the last {LAST} steps")
    axes.set(yscale="log", ylabel="loss")
    lower.set(xlabel="steps", ylabel="% from float32")
    axes.legend()
    for part in (axes, lower):
        part.spines[["top", "right"]].set_visible(False)
    save_figure(figure, output / "precision.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/precision"))
    output = parser.parse_args().output
    make_data(output / "data", SynthesisConfig(clips=150, texts=40, seconds=2.0))
    for dtype in DTYPES:
        if not (output / dtype / "model").exists():
            train(run_config(output / "data", output, dtype), True, jax.devices()[:1])
    draw(output)


if __name__ == "__main__":
    main()
