"""Formats of descriptions, read back by the rules of the programs that read them."""

import csv
import json
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import mutagen.id3
import numpy as np
import pytest
import soundfile
from helpers import noise, refusal

from tinymu_jax.library.description import Description, FieldValue
from tinymu_jax.library.formats.options import FormatOptions
from tinymu_jax.library.formats.outputs import (
    check_outputs,
    conflicting_recordings,
    default_table,
    existing_outputs,
    write_table,
)
from tinymu_jax.library.formats.sidecars import read_tags, sidecar_path, sidecar_text
from tinymu_jax.utils.files import write_text

FORMATS = ("jsonl", "csv", "parquet", "txt", "acestep", "musicgen", "webdataset")
OPTIONS = FormatOptions(fields=("genre", "mood", "voice"))
TRIGGERED = FormatOptions("zxqstyle", "before", OPTIONS.fields)
LATIN1 = os.fsdecode(b"caf\xe9.wav")
NAMES = ("a b.mp3", "Live/x.v2.flac", "Live/b.ogg", "new\nline.wav", LATIN1, ".dot.wav", "q.wav")
CAPTION = 'A calm piano,\nwith "strings"; it\'s slow \u2028 \u266f.'
ONE_LINE = 'A calm piano, with "strings"; it\'s slow \u266f.'


def write_sidecar(format, recording, description, options):
    """Writes the file beside a recording, and returns its path; None if there is none."""
    text, path = (
        sidecar_text(format, recording, description, options),
        sidecar_path(format, recording),
    )
    if text is None:
        return None
    write_text(path, text)
    return path


def describe(name, **changes):
    """Returns the description of a recording of two seconds."""
    fields = {
        "genre": FieldValue("classical", 0.9, 1.0),
        "mood": FieldValue(None, 0.2, 0.5),
        "voice": FieldValue("instrumental", 0.8, 1.0),
    }
    description = Description(
        file=name,
        seconds=2.0,
        caption=CAPTION,
        fields=fields,
        bpm=117.6,
        key="F# minor",
        time_signature=None,
        silent=False,
        timeline=({"start": 0.0, "end": 2.0, "caption": CAPTION},),
    )
    return description._replace(**changes)


def describe_silence(name):
    nothing = {"caption": None, "fields": {}, "bpm": None, "key": None, "timeline": ()}
    return describe(name, silent=True, **nothing)


@pytest.fixture
def library(tmp_path):
    """A folder of recordings with odd names, and their descriptions; the last is silent."""
    folder = tmp_path / "music"
    (folder / "Live").mkdir(parents=True)
    for name in NAMES:
        kind = {".mp3": "MP3", ".ogg": "OGG", ".flac": "FLAC"}.get(Path(name).suffix, "WAV")
        soundfile.write(os.fsencode(folder / name), noise(32_000), 16_000, format=kind)
    tags = mutagen.File(folder / "a b.mp3", easy=True)
    tags.add_tags()
    tags.update({"title": "Étude", "artist": "Anna", "genre": "salon"})
    tags.save()
    described = [(folder / name, describe(name)) for name in NAMES[:-1]]
    # Lone surrogates are escapes in a description's file, as the command lists it.
    described = [(path, one._replace(file=printable_name(one.file))) for path, one in described]
    return folder, [*described, (folder / "q.wav", describe_silence("q.wav"))]


def printable_name(name):
    return name.encode("utf-8", "backslashreplace").decode()


def write(format, library, options=OPTIONS):
    """Writes all that a format writes; returns the table, if it has one."""
    folder, described = library
    table = default_table(format, folder)
    for path, description in described:
        write_sidecar(format, path, description, options)
    if table is not None:
        write_table(format, table, described, options)
    return table


def bytes_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- files beside the recordings


def simpletuner_captions(path):
    """Returns the captions that SimpleTuner's `textfile` strategy reads for a recording."""
    text = Path(os.path.splitext(path)[0] + ".txt").read_bytes().decode("utf-8")
    return [line for line in text.split("\n") if line] if "\n" in text else text


def test_txt_is_one_caption_for_simpletuner_and_stable_audio(library):
    write("txt", library)
    for path, description in library[1]:
        if description.silent:
            assert not Path(os.path.splitext(path)[0] + ".txt").exists()
        else:
            assert simpletuner_captions(path) == ONE_LINE
            # As a metadata module for Stable Audio Tools does it.
            assert path.with_suffix(".txt").read_text("utf-8") == ONE_LINE


@pytest.mark.parametrize(
    ("place", "caption", "expected"),
    [
        ("before", "Drums.", "zxq style, Drums."),
        ("after", "Drums.", "Drums, zxq style"),
        ("instead", "Drums.", "zxq style"),
        ("before", None, "zxq style"),
    ],
)
def test_trigger_word(library, place, caption, expected):
    path, description = library[1][0]
    options = FormatOptions(" zxq\nstyle ", place)
    write_sidecar("txt", path, description._replace(caption=caption), options)
    assert simpletuner_captions(path) == expected


def test_no_caption_and_no_trigger_is_no_file(library):
    path, description = library[1][0]
    assert write_sidecar("txt", path, description._replace(caption=None), OPTIONS) is None
    assert existing_outputs("txt", [path], None) == []


@dataclass
class AudioSample:
    """What ACE-Step 1.5 knows of a recording, with its defaults; other keys are dropped."""

    id: str = ""
    audio_path: str = ""
    filename: str = ""
    caption: str = ""
    genre: str = ""
    lyrics: str = "[Instrumental]"
    raw_lyrics: str = ""
    formatted_lyrics: str = ""
    bpm: int | None = None
    keyscale: str = ""
    timesignature: str = ""
    duration: int = 0
    language: str = "unknown"
    is_instrumental: bool = True
    custom_tag: str = ""
    labeled: bool = False
    prompt_override: str | None = None


def load_acestep(path):
    """Loads a dataset file as ACE-Step 1.5 does."""
    content = json.loads(path.read_text("utf-8"))
    samples = [AudioSample(**sample) for sample in content["samples"]]
    return content["metadata"], {sample.audio_path: sample for sample in samples}


def test_acestep_dataset_file(library):
    folder, described = library
    metadata, samples = load_acestep(write("acestep", library, TRIGGERED))
    assert metadata["custom_tag"] == "zxqstyle"
    assert metadata["tag_position"] == "prepend"
    assert metadata["num_samples"] == len(samples) == len(described) - 1
    sample = samples[str(folder / "Live/x.v2.flac")]
    assert os.path.isfile(sample.audio_path)
    assert sample.filename == "x.v2.flac"
    assert sample.caption == ONE_LINE  # the trainer adds the tag
    assert sample.custom_tag == "zxqstyle"
    assert (sample.bpm, sample.keyscale, sample.timesignature) == (118, "F# minor", "")
    assert (sample.genre, sample.language, sample.duration) == ("classical", "unknown", 2)
    assert sample.is_instrumental
    assert sample.labeled
    ids = {sample.id for sample in samples.values()}
    assert len(ids) == len(samples)
    assert all(re.fullmatch("[0-9a-f]{16}", id) for id in ids)  # names of files of the trainer


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"bpm": 301.2}, {"bpm": None}),
        ({"bpm": None, "key": None}, {"bpm": None, "keyscale": ""}),
        ({"key": "H major"}, {"keyscale": ""}),
        ({"time_signature": "6/8"}, {"timesignature": "6"}),
        ({"time_signature": "5/4"}, {"timesignature": ""}),
        ({"fields": {}}, {"genre": "", "is_instrumental": True}),
        (
            {"fields": {"voice": FieldValue("female", 0.9, 1.0)}},
            {"is_instrumental": False, "lyrics": ""},
        ),
        ({"caption": None}, {"caption": "", "labeled": False}),
    ],
)
def test_acestep_values_are_those_that_it_allows(library, tmp_path, changes, expected):
    path, description = library[1][0]
    write_table("acestep", tmp_path / "d.json", [(path, description._replace(**changes))], OPTIONS)
    _, samples = load_acestep(tmp_path / "d.json")
    sample = samples[str(path)]
    assert {name: getattr(sample, name) for name in expected} == expected


def test_acestep_scan_reads_captions_and_takes_none_for_lyrics(library):
    write("acestep", library)
    for path, description in library[1]:
        base = os.path.splitext(path)[0]
        lyrics = [base + ".lyrics.txt", base + ".txt"]
        assert not any(map(os.path.exists, lyrics))
        if not description.silent:
            assert Path(base + ".caption.txt").read_text("utf-8").strip() == ONE_LINE


def test_acestep_scan_reads_the_csv_beside_the_recordings(library):
    folder, described = library
    # The sniffer misreads quotes beside commas.
    unquoted = CAPTION.replace('"', "")
    described = [(path, one._replace(caption=unquoted)) for path, one in described]
    path = write("csv", (folder, described))
    # As ACE-Step's load_csv_metadata reads it.
    with path.open(encoding="utf-8-sig") as file:
        dialect = csv.Sniffer().sniff(file.read(4096), delimiters=",;\t")
        file.seek(0)
        rows = {row["file"]: row for row in csv.DictReader(file, dialect=dialect)}
    row = rows["a b.mp3"]
    assert (int(float(row["bpm"])), row["key"]) == (117, "F# minor")
    assert row["caption"] == ONE_LINE.replace('"', "")


MUSIC_INFO = {
    *("title", "artist", "key", "bpm", "genre", "moods", "description", "name", "instrument")
}
"""Keys that AudioCraft's MusicDataset requires (`keywords` is optional)."""


def audiocraft_info(content):
    """Returns what AudioCraft's MusicInfo holds for a recording's json."""

    def string(value):
        return value.strip() if isinstance(value, str) and value not in ("", "None") else None

    def keyword(value):
        return string(value) and string(value).lower()

    def keywords(values):
        values = re.split(r"[,\s]", values) if isinstance(values, str) else values
        return [word for word in map(keyword, values) if word] or None

    def number(value):
        try:
            return None if value is None else float(value)
        except ValueError:
            return None

    assert content.keys() >= MUSIC_INFO
    readers = {"bpm": number, "moods": keywords, "key": keyword, "genre": keyword}
    readers |= {"name": keyword, "instrument": keyword}
    return {name: readers.get(name, string)(content[name]) for name in MUSIC_INFO} | {
        "keywords": keywords(content["keywords"])
    }


def test_musicgen_json(library):
    write("musicgen", library, TRIGGERED)
    folder = library[0]
    content = json.loads((folder / "a b.json").read_text("utf-8"))
    assert (content["sample_rate"], content["file_extension"]) == (16_000, "mp3")
    assert content["duration"] == 2.0
    info = audiocraft_info(content)
    assert info["description"] == f"zxqstyle, {ONE_LINE}"
    assert (info["key"], info["bpm"], info["genre"]) == ("f# minor", 117.6, "classical")
    assert (info["title"], info["artist"], info["name"]) == ("Étude", "Anna", "a b")
    assert info["moods"] is info["keywords"] is info["instrument"] is None
    other = json.loads((folder / "Live/b.json").read_text("utf-8"))
    assert audiocraft_info(other)["title"] is None
    assert not (folder / "q.json").exists()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_titles_are_read_in_many_kinds_of_files(kind, tmp_path):
    path = tmp_path / f"x.{kind}"
    soundfile.write(path, noise(16_000), 16_000)
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    if kind in ("flac", "ogg"):
        file.tags["title"] = "Étude"
    else:
        file.tags.add(mutagen.id3.TIT2(text="Étude"))
    file.save()
    assert read_tags(path) == {"title": "Étude"}


def test_musicgen_genre_of_the_file_stands_in(library):
    path, description = library[1][0]
    bare = description._replace(fields={}, bpm=None, key=None, caption=None)
    info = audiocraft_info(json.loads(write_sidecar("musicgen", path, bare, OPTIONS).read_text()))
    assert info["genre"] == "salon"
    assert info["bpm"] is info["key"] is info["description"] is None


# --- tables


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_datasets_library_reads_tables(format, library, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    path = write(format, library, TRIGGERED)
    builder = "json" if format == "jsonl" else format
    rows = datasets.load_dataset(
        builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    described = {one.file: one for _, one in library[1]}
    assert rows["file"] == sorted(described)
    assert rows["silent"] == [described[name].silent for name in sorted(described)]
    row = rows[rows["file"].index("a b.mp3")]
    assert row["caption"] == f"zxqstyle, {ONE_LINE}"
    assert (row["bpm"], row["seconds"], row["key"]) == (117.6, 2.0, "F# minor")
    genre = row["fields"]["genre"]["value"] if format == "jsonl" else row["genre"]
    assert genre == "classical"
    if format != "csv":
        assert row["timeline"] == [{"start": 0.0, "end": 2.0, "caption": CAPTION}]
    quiet = rows[rows["file"].index("q.wav")]
    assert quiet["caption"] is quiet["bpm"] is quiet["key"] is None
    if format == "parquet":
        kinds = {name: rows.features[name].dtype for name in ("bpm", "mood", "time_signature")}
        assert kinds == {"bpm": "float64", "mood": "string", "time_signature": "string"}
        assert rows.features["silent"].dtype == "bool"
        assert quiet["genre_probability"] is None


def test_parquet_of_more_rows_than_a_group(tmp_path):
    from pyarrow import parquet

    described = [(Path(f"{n:05}.wav"), describe(f"{n:05}.wav", bpm=n / 8)) for n in range(1_001)]
    write_table("parquet", tmp_path / "t.parquet", reversed(described), OPTIONS)
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table["bpm"].to_pylist() == [n / 8 for n in range(1_001)]


def test_csv_rows_of_odd_names(tmp_path):
    names = ["a\rb.wav", 'c"d.wav', "e,f\n.wav", "g\\\r.wav"]
    described = [(Path(name), describe(name)) for name in names]
    write_table("csv", tmp_path / "t.csv", described, OPTIONS)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file)]
    assert b"\r" not in (tmp_path / "t.csv").read_bytes()
    assert [row[0] for row in rows[1:]] == ["a\\rb.wav", 'c"d.wav', "e,f\n.wav", "g\\\\r.wav"]


# --- webdataset


def read_webdataset(folder):
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(map(str, folder.glob("*.tar")))
    return [*webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)]


def test_webdataset_reads_shards(library):
    _, described = library
    samples = read_webdataset(write("webdataset", library, TRIGGERED))
    heard = sorted((one.file, path) for path, one in described if not one.silent)
    contents = [json.loads(sample["json"]) for sample in samples]
    assert [content["file"] for content in contents] == [name for name, _ in heard]
    for sample, content, (_, path) in zip(samples, contents, heard, strict=True):
        assert sample[path.suffix[1:]] == path.read_bytes()
        assert sample["txt"].decode() == content["text"] == f"zxqstyle, {ONE_LINE}"
        assert "." not in sample["__key__"]
        assert content["bpm"] == 117.6


def test_webdataset_shards_have_the_size_that_is_asked_for(library):
    _, described = library
    sizes = [path.stat().st_size for path, one in described if not one.silent]
    options = FormatOptions(fields=OPTIONS.fields, shard_bytes=2 * max(sizes) + 5_000)
    table = write("webdataset", library, options)
    shards = sorted(table.iterdir())
    assert [shard.name for shard in shards[:2]] == ["captions-000000.tar", "captions-000001.tar"]
    for shard in shards:
        with tarfile.open(shard) as tar:
            members = tar.getmembers()
        payload = sum(member.size for member in members)
        assert payload <= options.shard_bytes
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert len(read_webdataset(table)) == len(sizes)
    # A second run with one shard leaves none of the others; other files stay.
    (table / "mine.tar").write_bytes(b"")
    write("webdataset", library)
    assert {path.name for path in table.iterdir()} == {"captions-000000.tar", "mine.tar"}


def test_a_recording_that_is_gone_is_named(library):
    folder, described = library
    (folder / "a b.mp3").unlink()
    message = refusal(write_table, "webdataset", folder / "w", described, OPTIONS)
    assert "a b.mp3: cannot be read (No such file or directory)" in message


# --- all formats


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_do_not_depend_on_order_or_time(format, library):
    folder, described = library
    write(format, library)
    first = bytes_below(folder)
    for path in existing_outputs(format, [p for p, _ in described], default_table(format, folder)):
        path.unlink()
    for path, _ in described:
        os.utime(path, (1, 1))
    write(format, (folder, described[::-1]))
    assert bytes_below(folder) == first


@pytest.mark.parametrize("format", FORMATS)
def test_outputs_are_known_before_and_after(format, library):
    folder, described = library
    recordings, table = [path for path, _ in described], default_table(format, folder)
    check_outputs(format, recordings, table, OPTIONS)
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert existing_outputs(format, recordings, table) == []
    write(format, library)
    after = {path for path in folder.rglob("*") if path.is_file()}
    assert set(existing_outputs(format, recordings, table)) == after - before
    assert after - before


@pytest.mark.parametrize("format", ["txt", "acestep", "musicgen"])
def test_of_two_recordings_with_one_name_the_first_is_described(format, library):
    folder, described = library
    paths = [path for path, _ in described] + [folder / "a b.flac"]
    errors = conflicting_recordings(format, paths)
    assert conflicting_recordings(format, reversed(paths)).keys() == errors.keys()
    assert list(errors) == [folder / "a b.mp3"]
    name = sidecar_path(format, folder / "a b.mp3").name
    message = str(errors[folder / "a b.mp3"])
    assert f"a b.mp3: would be described in {name}, as a b.flac is; rename" in message
    # Names in other folders are other files, and one recording may be listed twice.
    assert not conflicting_recordings(format, [folder / "a b.mp3", folder / "Live/a b.ogg"])
    assert not conflicting_recordings(format, [folder / "a b.mp3"] * 2)
    assert not conflicting_recordings("jsonl", paths)


def test_acestep_tells_of_equal_names(capsys):
    check_outputs("acestep", [Path("1/x.mp3"), Path("2/x.mp3")], None, OPTIONS)
    assert "1 file names occur in several folders, such as x.mp3" in capsys.readouterr().err


def test_options_and_places_of_no_use_are_refused(tmp_path):
    assert "there is no trigger" in refusal(FormatOptions, "", "after")
    assert "give 1 byte or more" in refusal(FormatOptions, shard_bytes=0)
    for fields in (("caption",), ("genre", "genre"), ("x", "x_agreement"), ("timeline",)):
        options = FormatOptions(fields=fields)
        message = refusal(check_outputs, "csv", [], tmp_path / "t.csv", options)
        assert "there is a column of this name; rename the field" in message
    assert "is a folder; name a file" in refusal(check_outputs, "jsonl", [], tmp_path, OPTIONS)
    (tmp_path / "file").write_text("")
    message = refusal(check_outputs, "webdataset", [], tmp_path / "file", OPTIONS)
    assert "it is a file; name another folder" in message


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    message = refusal(write_sidecar, "txt", tmp_path / "gone/x.mp3", describe("x.mp3"), OPTIONS)
    assert "x.txt: cannot be written (No such file or directory)" in message
    message = refusal(write_sidecar, "acestep", tmp_path / ("x" * 250), describe("x"), OPTIONS)
    assert "shorten its name" in message


def test_sample_rate_of_a_damaged_recording_is_unknown(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(np.arange(100).tobytes())
    write_sidecar("musicgen", path, describe("x.wav"), OPTIONS)
    assert json.loads((tmp_path / "x.json").read_text())["sample_rate"] is None
