"""What zero-shot classification asks about: recordings with one label each, and labels as words."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from tinymu_jax.data.labelled import PARTS, Item, LabelledSet, read_rows
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.probe_readers import read_set
from tinymu_jax.files import read_text

TEST = "test"
WORDS = {"hiphop": "Hip-hop", "rnb": "R&B"}
"""Labels whose words do not follow from their letters."""
COLUMNS = ("label", "text")
"""Of a csv that says how labels are called."""


def read_recordings(
    data: str | Path, audio: str | Path = ".", name: str | None = None, label: str | None = None
) -> LabelledSet:
    """Reads a data set by its name, or a csv of `file`, `label` and, if it has one, `split`.

    Args:
        data: folder of the data set, or the csv. Its recordings without a split are all tested.
        audio: folder of the recordings that a csv names.
        name: of the data set: see `tinymu_jax.evaluation.probe_readers.READERS`.
        label: name of the csv's column of labels, where it is another.

    Raises:
        InputError: it cannot be read; fewer than two labels; a recording with no or several labels.
    """
    if name is not None:
        found = read_set(name, data)
    elif Path(data).is_dir():
        raise InputError(f"{data}: is a folder; say which data set it is (--set), or name a csv")
    else:
        _, rows = read_rows(data, label)
        items = [Item(Path(audio) / file, own, split or TEST) for file, own, split in rows]
        # No name of a data set that figures are published of, and another for another column.
        title = ", ".join(filter(None, (Path(data).name, label)))
        found = LabelledSet(title, items, several=False)
    unfit = next((item for item in found.items if len(item.labels) != 1), None)
    if unfit is not None:
        raise InputError(
            f"{found.name}: {unfit.path} has {len(unfit.labels)} labels, and one is chosen; name "
            "a data set or column with one label for each recording"
        )
    if len(found.classes) < 2:
        raise InputError(
            f"{found.name}: has {len(found.classes)} label; there must be two or more to choose "
            "from"
        )
    return found


def recordings_to_test(found: LabelledSet, every_part: bool = False) -> list[Item]:
    """Returns the recordings of the test part, or all of a data set in folds.

    Args:
        found: the data set.
        every_part: whether those of the other parts are to be tested too.

    Raises:
        InputError: there is no test part; parts and folds are mixed.
    """
    folds = set(found.folds)
    if folds & set(PARTS) and folds - set(PARTS):
        raise InputError(
            f"{found.name}: its splits are {', '.join(sorted(folds))}; name parts "
            f"({', '.join(PARTS)}) or folds, not both"
        )
    items = [item for item in found.items if every_part or found.folds or item.split == TEST]
    if not items:
        raise InputError(
            f"{found.name}: has no recording of split {TEST!r}; add some, or ask about every part"
        )
    return items


def as_words(label: str) -> str:
    """Returns a label as an answer would name it: "synth_lead" as "Synth lead"."""
    words = WORDS.get(label.lower()) or " ".join(label.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def label_words(classes: Iterable[str], path: str | Path | None = None) -> dict[str, str]:
    """Returns how each label is called: as a csv says, or else `as_words`.

    Args:
        classes: the labels.
        path: of a csv of `COLUMNS`, which may leave labels out.

    Raises:
        InputError: it is no such csv; it names an unknown label, or one twice; two labels are
            called the same.
    """
    words = {label: as_words(label) for label in classes}
    if path is not None:
        words |= _read_words(path, words)
    called: dict[str, str] = {}
    for label, own in words.items():
        other = called.setdefault(own, label)
        if other != label:
            raise InputError(
                f"labels {other!r} and {label!r} are both called {own!r}, so that neither can be "
                f"chosen; name them apart in a csv of {','.join(COLUMNS)}"
            )
    return words


def _read_words(path: str | Path, known: Iterable[str]) -> dict[str, str]:
    """Returns what a csv calls labels."""
    text = read_text(path, f"name a csv of {','.join(COLUMNS)}").removeprefix("\ufeff")
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; its first line is to name "
            f"{','.join(COLUMNS)}"
        )
    found: dict[str, str] = {}
    for row in rows:
        where = f"{path}: line {rows.line_num}"
        label, own = ((row[column] or "").strip() for column in COLUMNS)
        if None in row or not label or not own:
            raise InputError(f"{where} has empty or more fields; repair it")
        if label not in known:
            raise InputError(
                f"{where}: {label!r} is no label of the data set; use {', '.join(sorted(known))}"
            )
        if label in found:
            raise InputError(f"{where}: names {label!r} twice; keep one line of each label")
        found[label] = own
    return found
