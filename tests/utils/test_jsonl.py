"""The JSONL log: records survive a kill, and nothing else is accepted as a record."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT, refusal

from tinymu_jax.utils.jsonl import JsonlLog


@pytest.fixture
def log(tmp_path):
    return make_log(tmp_path / "folder" / "log.jsonl")


def make_log(path):
    return JsonlLog(path, lambda row: int(row["value"]), "a number", "move the file away")


def write(log, **values):
    with log.writing():
        log.append({"key": key, "value": value} for key, value in values.items())


def test_records_are_read_back(log):
    assert log.read() == {}
    write(log, a=1, b=2)
    write(log, c=3, a=4)
    assert log.read() == {"a": 4, "b": 2, "c": 3}


@pytest.mark.parametrize("torn", [b'{"key": "d", "val', b'{"key": "\xc3'])
def test_an_incomplete_last_line_is_dropped(log, torn):
    write(log, a=1, b=2)
    before = log.path.read_bytes()
    log.path.write_bytes(before + torn)
    assert log.read() == {"a": 1, "b": 2}
    assert log.path.read_bytes() == before + torn, "reading writes nothing"
    write(log, c=3)
    assert log.read() == {"a": 1, "b": 2, "c": 3}
    assert log.path.read_bytes().startswith(before + b'{"key": "c"')


def test_a_file_of_one_incomplete_line_is_empty(log):
    log.path.parent.mkdir()
    log.path.write_bytes(b'{"key"')
    assert log.read() == {}
    write(log, a=1)
    assert log.read() == {"a": 1}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "text",
        "[]",
        "3",
        '{"value": 1}',
        '{"key": 1, "value": 1}',
        '{"key": "b"}',
        "\xff",
        "[" * 20_000,
    ],
)
def test_other_lines_are_refused(log, line):
    write(log, a=1)
    log.path.write_bytes(log.path.read_bytes() + line.encode("latin-1") + b"\n")
    assert refusal(log.read) == f"{log.path}: line 2 is not a number; move the file away"


def test_other_line_separators_stay_inside_a_record(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl", lambda row: row["text"], "a text", "move it")
    text = "one\u2028two\x85three\rfour\né"
    with log.writing():
        log.append([{"key": "a", "text": text}])
    assert log.read() == {"a": text}
    assert len(log.path.read_bytes().split(b"\n")) == 2


def test_two_processes_do_not_write_at_once(log):
    write(log, a=1)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from tinymu_jax.utils.jsonl import JsonlLog\n"
        "with JsonlLog(Path(sys.argv[1]), dict, 'a number', 'move it').writing():\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, log.path, ROOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"locked\n"
    assert "another process is writing it" in refusal(log.writing().__enter__)
    other.kill()
    other.wait()
    write(log, b=2)
    assert log.read() == {"a": 1, "b": 2}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "log.jsonl", tmp_path):
        assert str(tmp_path) in refusal(make_log(path).writing().__enter__)


def test_a_full_disk_is_an_input_error(log):
    with log.writing():
        log.path.unlink()
        log.path.symlink_to("/dev/full")
        rows = [{"key": str(number), "value": number} for number in range(3)]
        message = refusal(log.append, rows)
    assert message.startswith(f"{log.path}: cannot be written (No space left on device)")


def test_rows_are_one_json_object_per_line(log):
    write(log, a=1, b=2)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert rows == [{"key": "a", "value": 1}, {"key": "b", "value": 2}]
