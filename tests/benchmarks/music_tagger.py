"""How well an encoder with a head names instruments, families, drums, voices and music.

    python tests/benchmarks/music_tagger.py MODEL --clips CLIPS      clips of `tinymu data render`
    python tests/benchmarks/music_tagger.py MODEL --index INDEX.csv  real recordings, by their index

Chance is the share of the most frequent answer. Intervals are 95 % by the bootstrap, over clips, or
over recordings where several clips are of one.
"""

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np

from tinymu_jax.audio.load import load_audio
from tinymu_jax.data.real_music.instruments import FAMILIES, INSTRUMENTS
from tinymu_jax.evaluation.bootstrap import mean_metrics
from tinymu_jax.evaluation.calibration import calibration

FAMILIES_OF = {
    "orchestra": {"bowed strings", "woodwind", "brass"},
    "chamber orchestra": {"bowed strings", "woodwind", "brass"},
    "string orchestra": {"bowed strings"},
    "celesta": {"mallets"},
}
"""Word of the index that is no instrument -> families of which any is a right answer."""
NO_MUSIC = ("non-music", "effect", "speech", "ambience")


def predict(model, paths):
    """Returns the probability of each label, for each recording."""
    rows = []
    for start in range(0, len(paths), 16):
        clips = [load_audio(path) for path in paths[start : start + 16]]
        rows += [dict(row) for row in model.tag_all(clips, None)]
    return rows


def first(row, names):
    """Returns the most probable of names, and its share of their probability."""
    best = max(names, key=row.__getitem__)
    return best, row[best] / sum(row[name] for name in names)


class Table:
    """Answers with their confidence, by what was asked."""

    def __init__(self):
        self.answers = {}

    def add(self, question, group, right, confidence, truth):
        self.answers.setdefault(question, []).append((group, bool(right), confidence, truth))

    def binary(self, row, name, group, truth):
        right = (row[name] > 0.5) == truth
        self.add(f"{name} or not", group, right, max(row[name], 1 - row[name]), truth)

    def to_json(self):
        """Returns accuracy, interval, chance, calibration error and count of each question."""
        result = {}
        for question, answers in self.answers.items():
            groups, right, confidence, truths = zip(*answers, strict=True)
            (metric,) = mean_metrics({question: [float(r) for r in right]}, groups).values()
            counts = Counter(map(str, truths))
            ece = calibration(question, np.array(confidence), np.array(right)).ece
            result[question] = {
                "accuracy": round(metric.value, 3),
                "interval": [round(metric.low, 3), round(metric.high, 3)]
                if metric.low is not None
                else None,
                "chance": round(max(counts.values()) / len(truths), 3),
                "ece": round(ece, 3),
                "clips": len(truths),
            }
        return result


def score_clips(model, folder):
    """Returns the table, and the confusions of families, of a folder of rendered clips."""
    rows = list(csv.DictReader((folder / "labels.csv").open()))
    predicted = predict(model, [folder / "clips" / row["file"] for row in rows])
    table, confusions = Table(), Counter()
    for row, scores in zip(rows, predicted, strict=True):
        present, unknown = (set(filter(None, row[k].split(";"))) for k in ("labels", "unknown"))
        group = row["file"]
        if row["kind"] == "solo":
            (name,) = present & set(INSTRUMENTS)
            answer, share = first(scores, list(INSTRUMENTS))
            table.add("instrument of 20, solo", group, answer == name, share, name)
            family, share = first(scores, FAMILIES)
            truth = INSTRUMENTS[name].family
            table.add("family of 8, solo", group, family == truth, share, truth)
            confusions[truth, family] += 1
        for name in ("music", "drums", "voice"):
            if name not in unknown:
                table.binary(scores, name, group, name in present)
        for names in (("slow", "moderate", "fast"), ("major", "minor"), ("triple", "quadruple")):
            truth = present & set(names)
            if truth and row["kind"] != "sound":
                answer, share = first(scores, names)
                table.add(" ".join(names), group, answer in truth, share, *truth)
    return table.to_json(), confusions


def score_index(model, index, folder):
    """Returns the table of the real recordings below `folder` of an index, and every answer."""
    rows = [r for r in csv.DictReader(index.open()) if r["file"].startswith(f"{folder}/")]
    predicted = predict(model, [index.parent / row["file"] for row in rows])
    table, answers = Table(), []
    for row, scores in zip(rows, predicted, strict=True):
        group = (row["source"], row["title"] or row["source_file"])
        names = list(filter(None, row["instrument"].split("|")))
        music = not any(word in name for name in names for word in NO_MUSIC)
        table.binary(scores, "music", group, music)
        families = set()
        for name in names:
            single = {INSTRUMENTS[name].family} if name in INSTRUMENTS else set()
            families |= FAMILIES_OF.get(name, single)
        family, share = first(scores, FAMILIES)
        if families:
            table.add("family first", group, family in families, share, sorted(families)[0])
        if music and (names or row["vocals"]):
            table.binary(scores, "voice", group, row["vocals"].startswith("yes"))
        if music and names:
            table.binary(scores, "drums", group, "drums" in names)
        top = sorted(scores, key=scores.get, reverse=True)[:6]
        truth = row["instrument"] or row["vocals"] or row["genre"]
        answers.append((row["source_file"], truth, {k: round(scores[k], 2) for k in top}))
    return table.to_json(), answers


def main():
    """Prints the tables."""
    import tinymu_jax

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clips", type=Path, help="folder of tinymu data render")
    parser.add_argument("--index", type=Path, help="index.csv of real recordings")
    parser.add_argument("--folder", default="test", help="folder of the index to score")
    args = parser.parse_args()
    model = tinymu_jax.load(args.model)
    if args.clips:
        table, confusions = score_clips(model, args.clips)
        print(json.dumps(table, indent=1))
        for (truth, answer), count in confusions.most_common():
            print(f"{truth} -> {answer}: {count}")
    if args.index:
        table, answers = score_index(model, args.index, args.folder)
        for file, truth, top in answers:
            print(f"{file[:40]:40} {truth[:30]:30} {top}")
        print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
