"""Builds of whole sets: from real and own files, reproducible, with Beam and for TFDS."""

import csv
import json
import sys
from collections import Counter, defaultdict

import pytest
from helpers import run_cli, run_process

from tinymu_jax.data.musicskills import read_lists

TASKS = ("Captioning", "QA", "MCQ", "Binary")
MIX = (16, 31, 36, 18)


def build(capsys, monkeypatch, output, *arguments):
    """Builds without a tokenizer; returns the records and stdout."""
    code, out, err = run_cli(
        capsys, monkeypatch, "data", "build", "--output", output, "--tokenizer", "none", *arguments
    )
    assert code == 0, err
    records = [
        r for path in sorted((output / "lists").iterdir()) for r in json.loads(path.read_text())
    ]
    return records, out


def files(folder):
    """Returns all files of a built set but those of Beam and TFDS."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("beam", "tfds")
    }


def write_table(path, rows):
    """Writes a user table in which half of the genres co-occur with half of the instruments."""
    genres = ["jazz", "blues", "techno", "house", "metal", "salsa", "disco", "opera"]
    instruments = ["piano", "flute", "banjo", "cello", "viola", "organ", "tuba", "harp"]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "genre", "instrument", "mood", "caption", "artist", "licence"])
        for n in range(rows):
            genre, played = genres[n % 8], instruments[n % 8 // 4 * 4 + n // 8 % 4]
            mood = ["happy", "sad", "calm", "dark"][n % 8 // 4 * 2 + n // 32 % 2]
            reported = " ".join(f"word{n * 7 % 391}of{place}and{n}" for place in range(9))
            table.writerow([f"{n}.wav", genre, played, mood, reported, f"Artist {n}", "CC0"])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("own") / "mine.csv", 400)


# --- real files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def musiccaps(shared_dir):
    return shared_dir / "data" / "musiccaps-public.csv"


def test_musiccaps_gives_a_balanced_set_without_leaks(
    musiccaps, shared_dir, tmp_path, capsys, monkeypatch
):
    sets = (
        *("--test-sets.muchomusic", shared_dir / "data" / "muchomusic_questions.jsonl"),
        *("--test-sets.song-describer", shared_dir / "data" / "song_describer.csv"),
    )
    records, out = build(capsys, monkeypatch, tmp_path / "one", "--musiccaps", musiccaps, *sets)
    assert "leak from a test set" in out
    counts = Counter(record["task"] for record in records)
    for task, part in zip(TASKS, MIX, strict=True):
        assert abs(counts[task] / len(records) - part / sum(MIX)) < 0.005
    assert len(records) > 12_000
    report = json.loads((tmp_path / "one" / "leak_report.json").read_text())
    assert report["leaks"] == 0
    # Nothing of AudioSet's evaluation set is asked about.
    held_out = {
        row["ytid"] for row in csv.DictReader(musiccaps.open()) if row["is_audioset_eval"] == "True"
    }
    assert len(held_out) == 2858
    assert not held_out & {record["clip"] for record in records}
    check_blind(records)
    # In another process, with another order of sets in Python, it is the same to the last byte.
    again = run_process(
        *("-m", "tinymu_jax", "data", "build", "--tokenizer", "none"),
        *("--output", tmp_path / "two", "--musiccaps", musiccaps, *sets),
    )
    assert again.returncode == 0, again.stderr
    assert files(tmp_path / "one") == files(tmp_path / "two")


def check_blind(records):
    """Asserts that rules without audio do not beat chance."""
    asked = [record for record in records if record["task"] == "MCQ"]
    right = [record["kinds"].index("right") for record in asked]
    rules = {letter: right.count(place) for place, letter in enumerate("ABCD")}
    for name, best in (("shortest", min), ("longest", max)):
        lengths = [list(map(len, record["options"])) for record in asked]
        rules[name] = sum(
            (local[place] == best(local)) / local.count(best(local))
            for local, place in zip(lengths, right, strict=True)
        )
    for name, wins in rules.items():
        assert abs(wins / len(asked) - 0.25) < 0.02, name
    for record, place in zip(asked, right, strict=True):
        assert record["target_text"][:3].strip("()")[0] == "ABCD"[place]
    binary = defaultdict(Counter)
    for record in records:
        if record["task"] == "Binary":
            binary[record["category"], record["tags"][0]][record["target_text"]] += 1
    totals = sum(binary.values(), Counter())
    assert abs(totals["Yes."] / totals.total() - 0.5) < 0.01
    for tag, answers in binary.items():
        if answers.total() >= 100:
            assert abs(answers["Yes."] / answers.total() - 0.5) < 0.05, tag
    assert any(answers.total() >= 100 for answers in binary.values())


@pytest.mark.slow  # builds the whole of MusicCaps twice
def test_every_balanced_row_leaks_with_keep_held_out(musiccaps, tmp_path, capsys, monkeypatch):
    arguments = ("data", "build", "--musiccaps", musiccaps, "--tokenizer", "none", "--mix")
    arguments += (1, 0, 0, 0, "--output", tmp_path, "--keep-held-out")
    code, _, err = run_cli(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "questions leak from a test set" in err
    assert not (tmp_path / "lists").exists()
    balanced = json.loads((tmp_path / "leak_report.json").read_text())["test_sets"][
        "MusicCaps balanced"
    ]
    assert balanced["leaks"]["id"] == 1000
    code, _, _ = run_cli(capsys, monkeypatch, *arguments, "--on-leak", "drop")
    assert code == 0
    remaining = json.loads((tmp_path / "lists" / "MusicCaps.json").read_text())
    assert len(remaining) == 5521 - 2858


# --- user files --------------------------------------------------------------------------------


def test_lists_are_valid_musicskills_and_pages_name_sources(table, tmp_path, capsys, monkeypatch):
    records, out = build(capsys, monkeypatch, tmp_path / "set", "--user-table", table)
    (path,) = (tmp_path / "set" / "lists").iterdir()
    assert str(path) in out
    (tmp_path / "audio").mkdir()
    lists = read_lists([path], [tmp_path / "audio"])
    assert sum(len(clip.questions) for clip in lists.clips) == len(records)
    assert {record["task"] for record in records} == set(TASKS)
    assert len(records) > 200
    card = (tmp_path / "set" / "data_card.md").read_text()
    assert "CC0" in card
    stats = (tmp_path / "set" / "stats.md").read_text()
    assert "| shortest option |" in stats
    assert str(tmp_path) not in card + stats + (tmp_path / "set" / "build.json").read_text()


def test_beam_gives_the_same_set(table, tmp_path, capsys, monkeypatch):
    pytest.importorskip("apache_beam")
    build(capsys, monkeypatch, tmp_path / "plain", "--user-table", table)
    build(capsys, monkeypatch, tmp_path / "beam", "--user-table", table, "--beam")
    assert files(tmp_path / "beam") == files(tmp_path / "plain")


def test_tfds_gives_the_same_records(table, tmp_path, capsys, monkeypatch):
    import tensorflow_datasets as tfds

    records, _ = build(capsys, monkeypatch, tmp_path, "--user-table", table, "--tfds")
    source = tfds.data_source("musicskills", data_dir=str(tmp_path / "tfds"), split="train")
    assert len(source) == len(records)
    for result, expected in zip(source, records, strict=True):
        for name in ("file_name", "input_text", "target_text", "dataset", "task", "clip"):
            assert result[name].decode() == expected[name]
        assert [option.decode() for option in result["options"]] == expected.get("options", [])
    assert "tensorflow" not in sys.modules
    # A set that is built anew takes the place of the old one.
    fewer, _ = build(capsys, monkeypatch, tmp_path, "--user-table", table, "--tfds", "--size", 40)
    assert len(
        tfds.data_source("musicskills", data_dir=str(tmp_path / "tfds"), split="train")
    ) == len(fewer)


def test_long_questions_are_dropped_and_counted(table, tmp_path, capsys, monkeypatch):
    from tokenizer_fixture import tokenizer_text

    (tmp_path / "tokenizer.json").write_text(tokenizer_text())
    code, _, err = run_cli(
        capsys,
        monkeypatch,
        *(
            "data",
            "build",
            "--user-table",
            table,
            "--output",
            tmp_path / "set",
            "--mix",
            0,
            0,
            0,
            0,
        ),
        *("--tokenizer", tmp_path / "tokenizer.json", "--max-tokens", 30),
    )
    assert code == 0, err
    stats = (tmp_path / "set" / "stats.md").read_text()
    records = [r for p in (tmp_path / "set" / "lists").iterdir() for r in json.loads(p.read_text())]
    rows = dict(line.strip("| ").split(" | ") for line in stats.splitlines() if "too many" in line)
    # Multiple choice has far more than thirty tokens.
    assert int(rows["MCQ: too many tokens"]) > 300
    assert all(record["task"] != "MCQ" for record in records)


def test_unknown_labels_are_listed(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.csv"
    write_table(path, 60)
    text = path.read_text().replace("wav,jazz,", "wav,jazz;krkrkr,", 3)
    path.write_text(text)
    build(capsys, monkeypatch, tmp_path / "set", "--user-table", path, "--mix", 0, 0, 0, 0)
    assert "krkrkr,3" in (tmp_path / "set" / "unknown_labels.csv").read_text()
    assert "krkrkr (3)" in (tmp_path / "set" / "stats.md").read_text()
    extra = tmp_path / "more.csv"
    extra.write_text("category,name,parents,synonyms\ngenre,krkrkr,,\n")
    arguments = ("--user-table", path, "--mix", 0, 0, 0, 0, "--vocabulary", extra)
    records, _ = build(capsys, monkeypatch, tmp_path / "set", *arguments)
    assert any("krkrkr" in record.get("tags", ()) for record in records)
    assert (tmp_path / "set" / "unknown_labels.csv").read_text() == "label,clips\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no source: give one or more of --musiccaps"),
        (("--user-table", "missing.csv"), "missing.csv"),
        (("--user-table", "{table}", "--max-tag-ratio", 0), "max_tag_ratio is 0.0"),
        (("--user-table", "{table}", "--tokenizer", "gone.json"), "gone.json: no such file"),
        (("--user-table", "{empty}"), "no clip has a known tag or a caption"),
        (
            ("--user-table", "{table}", "--beam", "--llm-url", "http://127.0.0.1:9"),
            "use one of them",
        ),
        (("--user-table", "{table}", "--ontology", "o.json"), "has no effect without --audioset"),
        (("--user-table", "{table}", "--llm-model", "m"), "has no effect without --llm-url"),
        (("--user-table", "{table}", "--beam-options", "runner=R"), "has no effect without --beam"),
        (
            ("--user-table", "{table}", "--user-folder", "{twin}"),
            "another source would write the same list",
        ),
    ],
)
def test_input_errors_are_one_line(arguments, message, table, tmp_path, capsys, monkeypatch):
    empty = tmp_path / "empty.csv"
    empty.write_text("file,genre\na.wav,\n")
    twin = tmp_path / "mine"
    twin.mkdir()
    (twin / "broken.wav").write_bytes(b"no sound")
    arguments = [str(one).format(table=table, empty=empty, twin=twin) for one in arguments]
    if "--tokenizer" not in arguments:
        arguments += ["--tokenizer", "none"]
    code, _, err = run_cli(
        capsys, monkeypatch, "data", "build", "--output", tmp_path / "set", *arguments
    )
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_foreign_lists_are_not_overwritten(table, tmp_path, capsys, monkeypatch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "own.json").write_text("[]")
    arguments = (
        "data",
        "build",
        "--user-table",
        table,
        "--output",
        tmp_path,
        "--tokenizer",
        "none",
    )
    code, _, err = run_cli(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "own.json: was not written by a build" in err
    assert (tmp_path / "lists" / "own.json").exists()
    # Those of an earlier build are.
    (tmp_path / "build.json").write_text("{}")
    assert run_cli(capsys, monkeypatch, *arguments)[0] == 0
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["mine.json"]


# --- leaks -------------------------------------------------------------------------------------


def test_lists_are_checked_for_leaks(tmp_path, capsys, monkeypatch):
    held = tmp_path / "musiccaps-public.csv"
    columns = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id"
    caption = "A harpsichord plays a brisk prelude while rain drums softly on a tin roof outside."
    held.write_text(
        f"{columns},is_balanced_subset,is_audioset_eval\n"
        f"-abcdefghij,0,10,/m/1,\"['a']\",{caption},1,True,True\n"
    )
    record = {"input_text": "?", "target_text": "Yes.", "dataset": "D", "task": "Binary"}
    clean, bad = tmp_path / "clean.json", tmp_path / "bad.json"
    clean.write_text(json.dumps([record | {"file_name": "other.wav"}]))
    bad.write_text(json.dumps([record | {"file_name": "-abcdefghij.wav"}]))
    report = tmp_path / "report.json"
    arguments = ("--test-sets.musiccaps", held, "--output", report)
    assert run_cli(capsys, monkeypatch, "data", "check-leaks", clean, *arguments)[0] == 0
    code, out, _ = run_cli(capsys, monkeypatch, "data", "check-leaks", clean, bad, *arguments)
    assert code == 1
    assert "1 of 2 questions leak from a test set" in out
    assert json.loads(report.read_text())["leaks"] == 1
    code, _, err = run_cli(capsys, monkeypatch, "data", "check-leaks", clean)
    assert code == 2
    assert "no test set" in err
