"""Data sets for probes as they unpack from their archives."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tinymu_jax.data.annotations.labelled import (
    LabelledClip,
    LabelledSet,
    read_labelled_table,
    validate,
)
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, read_text

MTT_TAGS = 50
"""The most frequent tags of MagnaTagATune, which are tested."""

MTT_PARTS = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
"""Its parts, by the folders of the recordings."""

MIN_RELEVANCE = 0.5
"""From this relevance on an instrument of OpenMIC counts as heard; below it, as not heard."""


def gtzan(folder: Path) -> LabelledSet:
    """GTZAN: ten genres, a folder each; parts by the fault-filtered lists (Kereliuk et al.).

    The lists are `train_filtered.txt`, `valid_filtered.txt` and `test_filtered.txt`.
    """
    parts = {"train": "train", "valid": "valid", "test": "test"}
    clips = []
    root = next((p for p in (folder / "genres_original", folder / "genres") if exists(p)), folder)
    for part, name in parts.items():
        lists = folder / f"{name}_filtered.txt"
        if not exists(lists):
            raise InputError(
                f"{lists}: no such file; GTZAN is split by the fault-filtered lists, which are not "
                "in its archive: put train_filtered.txt, valid_filtered.txt and test_filtered.txt "
                "there"
            )
        for line in _lines(lists):
            path = root / line
            found = path if exists(path) else path.with_suffix(".au")
            clips.append(LabelledClip(found, (Path(line).parts[0],), part))
    return LabelledSet("GTZAN", clips, multi_label=False)


def nsynth(folder: Path) -> LabelledSet:
    """NSynth: eleven families of instruments; `nsynth-train`, `nsynth-valid`, `nsynth-test`."""
    clips = []
    for part in ("train", "valid", "test"):
        own = folder / f"nsynth-{part}"
        notes = json.loads(_text(own / "examples.json"))
        clips += [
            LabelledClip(own / "audio" / f"{name}.wav", (note["instrument_family_str"],), part)
            for name, note in sorted(notes.items())
        ]
    return LabelledSet("NSynth", clips, multi_label=False)


def openmic(folder: Path) -> LabelledSet:
    """OpenMIC-2018: twenty instruments, of which some are known of each recording."""
    parts = {
        key: part
        for part in ("train", "test")
        for key in _lines(folder / "partitions" / f"split01_{part}.csv")
    }
    heard: dict[str, tuple[list[str], list[str]]] = {key: ([], []) for key in parts}
    for row in _rows(folder / "openmic-2018-aggregated-labels.csv"):
        if row["sample_key"] in heard:
            heard[row["sample_key"]][float(row["relevance"]) < MIN_RELEVANCE].append(
                row["instrument"]
            )
    clips = [
        LabelledClip(
            folder / "audio" / key[:3] / f"{key}.ogg", tuple(own), parts[key], tuple(denied)
        )
        for key, (own, denied) in sorted(heard.items())
    ]
    return LabelledSet("OpenMIC", clips, multi_label=True)


def magnatagatune(folder: Path) -> LabelledSet:
    """MagnaTagATune: its fifty most frequent tags; parts by folder, 0-b, c, d-f."""
    rows = _rows(folder / "annotations_final.csv", "\t")
    tags = [name for name in rows[0] if name not in ("clip_id", "mp3_path")]
    counts = {tag: sum(row[tag] == "1" for row in rows) for tag in tags}
    top = sorted(sorted(tags), key=lambda tag: -counts[tag])[:MTT_TAGS]
    clips = []
    for row in rows:
        path, own = Path(row["mp3_path"]), tuple(tag for tag in top if row[tag] == "1")
        clips.append(LabelledClip(folder / path, own, MTT_PARTS[path.parts[0]]))
    return LabelledSet("MagnaTagATune", clips, multi_label=True)


def fsd50k(folder: Path) -> LabelledSet:
    """FSD50K: 200 classes of sounds; `FSD50K.ground_truth`, `.dev_audio`, `.eval_audio`."""
    clips = []
    for name, audio in (("dev", "dev_audio"), ("eval", "eval_audio")):
        for row in _rows(folder / "FSD50K.ground_truth" / f"{name}.csv"):
            part = {"train": "train", "val": "valid"}[row["split"]] if name == "dev" else "test"
            path = folder / f"FSD50K.{audio}" / f"{row['fname']}.wav"
            clips.append(LabelledClip(path, tuple(row["labels"].split(",")), part))
    return LabelledSet("FSD50K", clips, multi_label=True)


def esc50(folder: Path) -> LabelledSet:
    """ESC-50: fifty sounds in five folds."""
    clips = [
        LabelledClip(folder / "audio" / row["filename"], (row["category"],), row["fold"])
        for row in _rows(folder / "meta" / "esc50.csv")
    ]
    return LabelledSet("ESC-50", clips, multi_label=False)


def urbansound8k(folder: Path) -> LabelledSet:
    """UrbanSound8K: ten sounds of cities in ten folds."""
    clips = []
    for row in _rows(folder / "metadata" / "UrbanSound8K.csv"):
        path = folder / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        clips.append(LabelledClip(path, (row["class"],), row["fold"].zfill(2)))
    return LabelledSet("UrbanSound8K", clips, multi_label=False)


def medleysolos(folder: Path) -> LabelledSet:
    """Medley-Solos-DB: eight instruments alone, in clips of three seconds."""
    parts = {"training": "train", "validation": "valid", "test": "test"}
    root = next((p for p in (folder / "audio", folder / "Medley-solos-DB") if exists(p)), folder)
    clips = []
    for row in _rows(folder / "Medley-solos-DB_metadata.csv"):
        part = row["subset"]
        name = f"Medley-solos-DB_{part}-{row['instrument_id']}_{row['uuid4']}.wav"
        clips.append(LabelledClip(root / name, (row["instrument"],), parts[part]))
    return LabelledSet("Medley-Solos-DB", clips, multi_label=False)


READERS: Mapping[str, Callable[[Path], LabelledSet]] = {
    "gtzan": gtzan,
    "nsynth": nsynth,
    "openmic": openmic,
    "magnatagatune": magnatagatune,
    "fsd50k": fsd50k,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "medleysolos": medleysolos,
}


def read_labelled_set(name: str, folder: str | Path) -> LabelledSet:
    """Reads a data set by its name.

    Raises:
        InputError: no data set of that name; a file that its archives hold is missing, or is not
            what it should be; or as `validate`.
    """
    if name not in READERS:
        raise InputError(f"set {name!r}: use one of {', '.join(READERS)}")
    try:
        return validate(READERS[name](Path(folder)))
    except InputError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: is not {name} as it unpacks ({type(error).__name__}: {error}); unpack it "
            "again, or name the folder that holds its archives' contents"
        ) from error


def read_labelled_sets(
    data: Path, audio: Path, name: str | None, labels: Sequence[str]
) -> list[LabelledSet]:
    """Reads a data set by its name, or a csv: one set for each column of labels.

    Raises:
        InputError: as `read_labelled_set` and `read_labelled_table`.
    """
    if name is not None:
        return [read_labelled_set(name, data)]
    if data.is_dir():
        raise InputError(f"{data}: is a folder; say which data set it is (--set), or name a csv")
    return [read_labelled_table(data, audio, label) for label in labels or (None,)]


def _rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_text(path)), delimiter=delimiter))


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    remedy = "name the folder that the data set's archives were unpacked to"
    if not exists(path):
        raise InputError(f"{path}: no such file; {remedy}")
    return read_text(path, remedy)
