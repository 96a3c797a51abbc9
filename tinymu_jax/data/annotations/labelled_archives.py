"""Reads public data sets for probes, each from the folder with its unpacked archives."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tinymu_jax.data.annotations.clip import UNSORTED
from tinymu_jax.data.annotations.labelled import (
    SPLITS,
    LabelledClip,
    LabelledSet,
    check_audio_folder,
    read_labelled_table,
    validate,
)
from tinymu_jax.data.annotations.magnatagatune import ANNOTATIONS, read_magnatagatune
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, read_json_object, read_text
from tinymu_jax.utils.tables import read_rows

MTT_TAGS = 50
"""Number of MagnaTagATune's most frequent tags that are used as labels."""
MTT_SPLITS = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "valid",
    **dict.fromkeys("def", "test"),
}
"""Folder of a MagnaTagATune recording (0 to f) -> split of the recording."""
MIN_RELEVANCE = 0.5
"""Relevance (0 to 1) from which an instrument in an OpenMIC recording counts as present."""
_REMEDY = "name the folder that the data set's archives were unpacked to"


def gtzan(folder: Path) -> LabelledSet:
    """Read GTZAN: ten genres, with the recordings of each genre in one folder.

    `train_filtered.txt`, `valid_filtered.txt` and `test_filtered.txt` list the recordings of the
    fault-filtered splits (Kereliuk et al.). Raises `InputError` if one of these files is missing.
    """
    clips = []
    root = next((p for p in (folder / "genres_original", folder / "genres") if exists(p)), folder)
    for split in SPLITS:
        names = folder / f"{split}_filtered.txt"
        if not exists(names):
            raise InputError(
                f"{names}: no such file; GTZAN is split by the fault-filtered lists, which are not "
                "in its archive: put train_filtered.txt, valid_filtered.txt and test_filtered.txt "
                "there"
            )
        for line in _lines(names):
            path = root / line
            path = path if exists(path) else path.with_suffix(".au")
            clips.append(LabelledClip(path, (Path(line).parts[0],), split))
    return LabelledSet("GTZAN", clips, multi_label=False)


def nsynth(folder: Path) -> LabelledSet:
    """Read NSynth (notes of eleven instrument families) from the folders of its three splits."""
    clips = []
    for split in SPLITS:
        part = folder / f"nsynth-{split}"
        notes = read_json_object(_existing(part / "examples.json"), _REMEDY)
        clips += [
            LabelledClip(part / "audio" / f"{name}.wav", (note["instrument_family_str"],), split)
            for name, note in sorted(notes.items())
        ]
    return LabelledSet("NSynth", clips, multi_label=False)


def openmic(folder: Path) -> LabelledSet:
    """Read OpenMIC-2018, which labels some of twenty instruments as present or absent."""
    splits = {
        key: split
        for split in ("train", "test")
        for key in _lines(folder / "partitions" / f"split01_{split}.csv")
    }
    present: dict[str, list[str]] = {key: [] for key in splits}
    absent: dict[str, list[str]] = {key: [] for key in splits}
    for row in _rows(folder / "openmic-2018-aggregated-labels.csv"):
        if row["sample_key"] in splits:
            labels = present if float(row["relevance"]) >= MIN_RELEVANCE else absent
            labels[row["sample_key"]].append(row["instrument"])
    clips = [
        LabelledClip(
            folder / "audio" / key[:3] / f"{key}.ogg",
            tuple(present[key]),
            split,
            tuple(absent[key]),
        )
        for key, split in sorted(splits.items())
    ]
    return LabelledSet("OpenMIC", clips, multi_label=True)


def magnatagatune(folder: Path) -> LabelledSet:
    """Read MagnaTagATune with its fifty most frequent tags, split by folder (`MTT_SPLITS`)."""
    annotated = read_magnatagatune(_existing(folder / ANNOTATIONS)).clips
    counts = Counter(tag for clip in annotated for tag in clip.tags.get(UNSORTED, ()))
    top = sorted(sorted(counts), key=lambda tag: -counts[tag])[:MTT_TAGS]
    clips = []
    for clip in annotated:
        tags = set(clip.tags.get(UNSORTED, ()))
        labels = tuple(tag for tag in top if tag in tags)
        clips.append(LabelledClip(folder / clip.file, labels, MTT_SPLITS[Path(clip.file).parts[0]]))
    return LabelledSet("MagnaTagATune", clips, multi_label=True)


def fsd50k(folder: Path) -> LabelledSet:
    """Read FSD50K: sounds of 200 classes, with any number of classes per recording."""
    clips = []
    for part in ("dev", "eval"):
        for row in _rows(folder / "FSD50K.ground_truth" / f"{part}.csv"):
            split = {"train": "train", "val": "valid"}[row["split"]] if part == "dev" else "test"
            path = folder / f"FSD50K.{part}_audio" / f"{row['fname']}.wav"
            clips.append(LabelledClip(path, tuple(row["labels"].split(",")), split))
    return LabelledSet("FSD50K", clips, multi_label=True)


def esc50(folder: Path) -> LabelledSet:
    """Read ESC-50: fifty classes of environmental sounds in five cross-validation folds."""
    clips = [
        LabelledClip(folder / "audio" / row["filename"], (row["category"],), row["fold"])
        for row in _rows(folder / "meta" / "esc50.csv")
    ]
    return LabelledSet("ESC-50", clips, multi_label=False)


def urbansound8k(folder: Path) -> LabelledSet:
    """Read UrbanSound8K: ten classes of city sounds in ten cross-validation folds."""
    clips = []
    for row in _rows(folder / "metadata" / "UrbanSound8K.csv"):
        path = folder / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        clips.append(LabelledClip(path, (row["class"],), row["fold"].zfill(2)))
    return LabelledSet("UrbanSound8K", clips, multi_label=False)


def medleysolos(folder: Path) -> LabelledSet:
    """Read Medley-Solos-DB: clips of three seconds, each of one of eight solo instruments."""
    splits = {"training": "train", "validation": "valid", "test": "test"}
    root = next((p for p in (folder / "audio", folder / "Medley-solos-DB") if exists(p)), folder)
    clips = []
    for row in _rows(folder / "Medley-solos-DB_metadata.csv"):
        subset = row["subset"]
        name = f"Medley-solos-DB_{subset}-{row['instrument_id']}_{row['uuid4']}.wav"
        clips.append(LabelledClip(root / name, (row["instrument"],), splits[subset]))
    return LabelledSet("Medley-Solos-DB", clips, multi_label=False)


READERS: Mapping[str, Callable[[Path], LabelledSet]] = {
    reader.__name__: reader
    for reader in (gtzan, nsynth, openmic, magnatagatune, fsd50k, esc50, urbansound8k, medleysolos)
}


def read_labelled_set(name: str, folder: str | Path) -> LabelledSet:
    """Read the data set `name` (a key of `READERS`) from the folder with its unpacked archives.

    Raises:
        InputError: the name is unknown, or a file is missing or malformed; see also `validate`.
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
    """Read one public data set, or a user's csv.

    With a `name` (a key of `READERS`), `data` is the folder of that public data set. Otherwise,
    `data` is a csv of recordings in the folder `audio`, and each of its label columns gives one
    data set. `labels` names these columns (if empty: `label` or `labels`). For errors, see
    `read_labelled_set` and `read_labelled_table`.
    """
    if name is not None:
        return [read_labelled_set(name, data)]
    if data.is_dir():
        raise InputError(
            f"{data}: is a folder; say which data set it is (--dataset), or name a csv"
        )
    check_audio_folder(audio, data)
    return [read_labelled_table(data, audio, label) for label in labels or (None,)]


def _rows(path: Path) -> list[Mapping[str, str]]:
    return [row.fields for row in read_rows(_existing(path), (), _REMEDY)]


def _lines(path: Path) -> list[str]:
    text = read_text(_existing(path), _REMEDY)
    return [line.strip() for line in text.split("\n") if line.strip()]


def _existing(path: Path) -> Path:
    if not exists(path):
        raise InputError(f"{path}: no such file; {_REMEDY}")
    return path
