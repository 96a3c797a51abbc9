"""Losses of a nano-sized model that is trained in float32, bfloat16 and float16.

    python tests/benchmarks/precision.py --output outputs/precision
    python tests/benchmarks/precision.py --output outputs/precision_wide --wide

The runs have the same weights, questions and order; prints the mean loss of the last 40 of 400
steps, and draws the losses over each other. `--wide`: 200 steps of a model of the published widths
with 4 encoder and 6 decoder layers, and nano's vocabulary.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.train_nano import make_data, read_vocab_size
from tinymu_jax.training.config import InitConfig, OptimConfig, StepConfig, TrainConfig
from tinymu_jax.training.plots import read_losses
from tinymu_jax.training.run import train
from tinymu_jax.utils.plotting import new_figure, save_figure

DTYPES = ("float32", "bfloat16", "float16")
STEPS, WIDE_STEPS, LAST = 400, 200, 40


def wide_model(vocab_size: int) -> TinyMUConfig:
    """Returns the published widths, with fewer layers and a small vocabulary."""
    config = TinyMUConfig()
    return replace(
        config,
        encoder=replace(config.encoder, depth=4),
        decoder=replace(config.decoder, depth=6, vocab_size=vocab_size),
    )


def run_config(data: Path, output: Path, dtype: str, wide: bool) -> TrainConfig:
    """Returns the run of a model from random weights, all but the encoder trained."""
    paths, size = nano_recipe.run_paths(data, output), read_vocab_size(data)
    config = nano_recipe.stages(paths, size, 4.0)[nano_recipe.JOIN]
    packing = replace(config.data.packing, rows=1, max_clips=8, max_labels=128)
    return replace(
        config,
        init=InitConfig(tokenizer=str(paths.tokenizer)),
        model=wide_model(size) if wide else nano_recipe.model(size),
        data=replace(config.data, packing=packing) if wide else config.data,
        output=str(output / dtype),
        step=StepConfig(remat="none", encoder_dtype=dtype, decoder_dtype=dtype),
        optim=OptimConfig(learning_rate=3e-4 if wide else 1e-3, warmup_fraction=0.1),
        loop=replace(config.loop, log_every=1),
        steps=WIDE_STEPS if wide else STEPS,
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
    parser.add_argument("--wide", action="store_true")
    args = parser.parse_args()
    output = args.output
    make_data(output / "data", SynthesisConfig(clips=150, texts=40, seconds=2.0))
    for dtype in DTYPES:
        if not (output / dtype / "model").exists():
            train(run_config(output / "data", output, dtype, args.wide), True, jax.devices()[:1])
    draw(output)


if __name__ == "__main__":
    main()
