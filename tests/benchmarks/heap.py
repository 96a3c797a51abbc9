"""What it is worth that a training on processors keeps its memory (`tinymu_jax/utils/malloc.py`).

    python tests/benchmarks/heap.py

Steps of nano's stages, with and without, in turn and in a process each; medians.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.quickstart import nano_recipe
from tinymu_jax.quickstart.train_nano import make_data, read_vocab_size, train_stages
from tinymu_jax.utils.malloc import keep_heap

CLIPS = 400
KEPT, GIVEN_BACK = "kept", "given back"


def train_briefly(folder: Path, output: Path, steps: int) -> None:
    """Does so many steps of each stage."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    data = folder / "data"
    runs = nano_recipe.stages(nano_recipe.run_paths(data, output), read_vocab_size(data), 4)
    short = {name: replace(run, steps=steps) for name, run in runs.items()}
    train_stages(short)


def milliseconds(output: Path) -> dict[str, float]:
    """Returns the median time of a step, by stage; the first ten steps compile."""
    result = {}
    for path in sorted(output.glob("*/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        result[path.parent.name] = 1e3 * median(line["seconds_per_step"] for line in lines[1:])
    return result


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        folder, output, how = args.child
        if how == KEPT and not keep_heap():
            raise SystemExit("error: not here: another C library, or MALLOC_... is set")
        train_briefly(Path(folder), Path(output), args.steps)
        return
    taken: dict[str, dict[str, list[float]]] = {KEPT: {}, GIVEN_BACK: {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clips = SynthesisConfig(clips=CLIPS, texts=CLIPS, seconds=nano_recipe.SECONDS)
        make_data(folder / "data", clips)
        for turn in range(args.turns):
            for how, part in taken.items():
                output = folder / f"{turn} {how}"
                command = [sys.executable, __file__, "--steps", str(args.steps)]
                subprocess.run([*command, "--child", place, str(output), how], check=True)
                for stage, time in milliseconds(output).items():
                    part.setdefault(stage, []).append(time)
    print("| stage | memory given back, ms a step | kept | |\n| --- | ---: | ---: | ---: |")
    for stage, times in taken[GIVEN_BACK].items():
        without, remaining = median(times), median(taken[KEPT][stage])
        print(f"| {stage} | {without:.0f} | {remaining:.0f} | {without / remaining:.2f} x |")


if __name__ == "__main__":
    main()
