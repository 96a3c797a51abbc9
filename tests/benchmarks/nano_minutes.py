"""How well nano hears after so many minutes from nothing: a table and a picture of tours' results.

    tinymu quickstart --output curve/4_0 --only train --minutes 4 --seed 0      # and so on
    python tests/benchmarks/nano_minutes.py curve/* --picture docs/pictures/nano_minutes.png

Each folder is one of `tinymu quickstart`. Minutes are those of the recipe on two cores: a stage has
so many steps, however long they take. Seeds of the same minutes are averaged in the picture.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinymu_jax.quickstart.ablations import COLUMNS, fractions_of
from tinymu_jax.utils.files import read_json_object
from tinymu_jax.utils.plotting import new_figure, save_figure


def as_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line for each run, as Markdown; below them what guessing gets."""
    lines = [
        f"| minutes | seed | {' | '.join(COLUMNS.values())} |",
        "|---:|---:|" + "---:|" * len(COLUMNS),
    ]
    rows = [
        (
            f"{r['options']['minutes']:g}",
            str(r["options"]["seed"]),
            fractions_of(r["scores"]["by_format"]),
        )
        for r in runs
    ]
    rows.append(("guessing", "", fractions_of(runs[-1]["scores"]["by_format"], "chance")))
    for minutes, seed, shares in rows:
        cells = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        lines.append(f"| {minutes} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the picture: a line for each format over the minutes, seeds as dots."""
    figure, axes = new_figure(7, 4)
    for place, name in enumerate(COLUMNS.values()):
        result: dict[float, list[float]] = defaultdict(list)
        for run in runs:
            share = fractions_of(run["scores"]["by_format"])[place]
            if share is not None:
                result[run["options"]["minutes"]].append(100 * share)
        minutes = sorted(result)
        means = [sum(result[x]) / len(result[x]) for x in minutes]
        (line,) = axes.plot(minutes, means, label=name)
        dots = [(x, share) for x in minutes for share in result[x]]
        axes.plot(*zip(*dots, strict=True), "o", color=line.get_color(), markersize=4)
    ticks = sorted({run["options"]["minutes"] for run in runs})
    axes.set(xscale="log", ylim=(0, 102), ylabel="right answers, percent")
    axes.set_xlabel("minutes of training from nothing, two cores")
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, path)


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="of tinymu quickstart")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    paths = [folder / "results" / "train.json" for folder in args.folders]
    runs = [read_json_object(path, "run tinymu quickstart --only train") for path in paths]
    runs.sort(key=lambda run: (run["options"]["minutes"], run["options"]["seed"]))
    print(as_table(runs))
    if args.picture:
        plot(runs, args.picture)


if __name__ == "__main__":
    main()
