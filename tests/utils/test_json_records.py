"""Lists of records: JSON lists, JSON lines and wrapped lists are read alike."""

import json

import pytest
from helpers import refusal

from tinymu_jax.data.musicskills import read_list, read_lists
from tinymu_jax.evaluation.multiple_choice.questions import read_choices
from tinymu_jax.utils.json_records import read_json_records

RECORDS = [{"a": "x\u2028y", "b": [1, 2]}, {"a": "café", "b": []}]
LINES = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
FORMS = {
    "list": json.dumps(RECORDS),
    "indented": json.dumps(RECORDS, indent=1),
    "lines": LINES + "\n",
    "lines with gaps": "\n" + LINES.replace("\n", "\n\n"),
    "wrapped": json.dumps({"version": [1], "data": RECORDS}, indent=2),
}


def records(path):
    return [record for _, record in read_json_records(path, "name another")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path, form, line_end, encoding):
    for name in ("a.json", "a.jsonl")[: 1 if form == "wrapped" else 2]:
        path = tmp_path / name
        path.write_bytes(FORMS[form].replace("\n", line_end).encode(encoding))
        assert records(path) == RECORDS


def test_places_are_lines_or_numbers(tmp_path):
    path = tmp_path / "a.json"
    for form, places in (("list", ["record 0", "record 1"]), ("lines with gaps", [2, 4])):
        path.write_text(FORMS[form])
        expected = [f"{path}: {p if form == 'list' else f'line {p}'}" for p in places]
        assert [where for where, _ in read_json_records(path, "")] == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": 1}\n{"a": ', "line 2: is not json"),
        ("a.jsonl", '{"a": ', "line 1: is not json"),
        ("a.json", '[{"a": 1},]', "is not json"),
        ("a.json", '{"a": 1}', "is not a list of records"),
        ("a.json", '{"a": [{}], "b": [{}]}', "is not a list of records"),
        ("a.json", "3", "is not a list of records"),
        ("a.json", "[" * 50_000, "is not json"),
        ("a.json", f"[{'9' * 5000}]", "is not json"),
        ("a.json", '[{"a": 1, "a": 2}]', "an object has the key 'a' twice"),
        ("a.json", '["caf\xe9"]', "line 1 is not UTF-8 text but probably WINDOWS-1252"),
    ],
)
def test_other_content_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="latin-1")
    refused = refusal(records, path)
    assert refused.startswith(f"{path}: ")
    assert message in refused


def test_question_lists_may_be_json_lines(tmp_path):
    keys = ("file_name", "input_text", "target_text", "dataset", "task")
    rows = [
        dict(zip(keys, (f"{n}.ogg", "What?", "Jazz.", "mine", "QA"), strict=True)) for n in "ab"
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")
    assert [record for _, record in read_list(path)] == rows
    assert len(read_lists([path], [tmp_path]).clips) == 2
    path.write_text("\n".join(map(json.dumps, [rows[0], {"file_name": "b.ogg"}])))
    assert f"{path}: line 2: has no 'input_text'" in refusal(read_lists, [path], [tmp_path])


def test_choices_may_be_a_json_list(tmp_path):
    rows = [{"audio": "a.ogg", "question": "Which?", "choices": ["x", "y"], "answer": "B"}]
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "lines.jsonl").write_text(json.dumps(rows[0]))
    first, second = (read_choices(tmp_path / name, "") for name in ("list.json", "lines.jsonl"))
    assert first == second
    assert first[0].right == 1
