"""What pre-training teaches nano's encoder about synthetic music: a table and a picture.

    python tests/benchmarks/pretrain_nano.py outputs/pretrain_nano --picture pretrain_nano.png

Clips are synthesised, the encoder is pre-trained on them as configs/pretrain_nano.py says, and a
linear probe of every fact is learnt on clips whose combinations of facts it has not heard: over its
vectors, over those of the same encoder at random, and of nothing (the fact's most frequent value).
What is there is not done again.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
FACTS = ("timbre", "drums", "tempo", "metre", "mode", "contour", "register")
FACTS += ("dynamics", "voices", "room")


def prepare_clips(folder: Path, clips: int, probed: int) -> None:
    """Synthesises what is learnt from and what is probed with."""
    from tinymu_jax.data.config import PrepareConfig, SynthesisConfig
    from tinymu_jax.data.crops import MATPAC_FEATURES
    from tinymu_jax.data.prepare import prepare
    from tinymu_jax.data.synthetic.generate import CLIPS, synthesize

    encoded = SynthesisConfig(clips, captions=0, open=1, choice=0, binary=0)
    synthesize(folder / "music", encoded, lambda done, total: None)
    prepare([], [folder / "music" / CLIPS], folder / "data", None, PrepareConfig(MATPAC_FEATURES))
    held = replace(encoded, clips=probed, held_out=True, seed=7)
    synthesize(folder / "probed", held, lambda done, total: None)


def plot_pretraining(run: Path, path: Path, title: str = "") -> None:
    """Plots losses, classes in use and wins of the hypotheses of a pre-training run."""
    from tinymu_jax.utils.plotting import new_figure, save_figure

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    figure, first = new_figure(10, 3.2)
    first.remove()
    wins = [name for name in rows[0] if name.startswith("wins_")]
    panels = {
        "loss": {"prediction_loss": "prediction", "class_loss": "classes"},
        "classes": {"classes_used": "in use in a step", "class_perplexity": "perplexity"},
        "share of patches won": {name: name.replace("wins_", "hypothesis ") for name in wins},
    }
    panels = {label: lines for label, lines in panels.items() if lines}
    for place, (label, lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, words in lines.items():
            axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=words)
        axes.set(xlabel="steps", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)


def main() -> None:
    """Does what is not there yet, and prints the table."""
    from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of, init_params
    from tinymu_jax.checkpoints.open import open_checkpoint
    from tinymu_jax.data.annotations.labelled import read_labelled_table
    from tinymu_jax.data.synthetic.generate import CLIPS, FACTS_FILE
    from tinymu_jax.evaluation.probe.probe import ProbeConfig, run_probe
    from tinymu_jax.evaluation.probe.vectors import mean_vectors
    from tinymu_jax.training.config import PretrainConfig
    from tinymu_jax.training.config_files import load_config
    from tinymu_jax.training.run import train
    from tinymu_jax.utils.malloc import keep_heap

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--probed", type=int, default=1500, help="clips for the probes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    keep_heap()
    config = load_config("pretrain_nano", PretrainConfig)
    folder = args.folder
    prepare_clips(folder, args.clips, args.probed)
    run = folder / "run"
    data = replace(config.data, train=str(folder / "data"))
    train(replace(config, output=str(run), data=data), resume=True)
    if args.picture:
        plot_pretraining(run, args.picture, f"nano's encoder, {config.steps} steps")
    learnt = encoder_of(open_checkpoint(run))
    encoders = {
        "pre-trained": learnt,
        "at random": Checkpoint(learnt.config, init_params(learnt.config, 0)),
    }
    table = folder / "probed" / FACTS_FILE
    sets = [read_labelled_table(table, folder / "probed" / CLIPS, fact) for fact in FACTS]
    paths = [item.path for item in sets[0].clips]
    vectors = {
        name: mean_vectors(part, paths, folder / f"vectors {name}")
        for name, part in encoders.items()
    }
    print("| fact | pre-trained | at random | most frequent value |\n|---|---:|---:|---:|")
    for fact, part in zip(FACTS, sets, strict=True):
        result = [run_probe(v, part, ProbeConfig(seeds=args.seeds)) for v in vectors.values()]
        cells = [f"{100 * r.mean:.1f} ± {100 * r.interval:.1f}" for r in result]
        print(f"| {fact} | {' | '.join(cells)} | {100 * result[0].chance:.1f} |", flush=True)


if __name__ == "__main__":
    main()
