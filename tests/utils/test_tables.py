"""Tables of all spreadsheets: encodings and separators are read, ambiguous rows refused."""

import csv
import io

import pytest
from helpers import refusal

from tinymu_jax.data.annotations.labelled import read_label_rows, read_labels_by_file
from tinymu_jax.data.annotations.registry import read_source
from tinymu_jax.data.label_batches import read_label_table
from tinymu_jax.evaluation.zero_shot import read_label_texts
from tinymu_jax.inference.class_names import read_class_indices, read_labels
from tinymu_jax.notebook import read_questions
from tinymu_jax.utils.tables import read_rows

ROWS = [["file", "label"], ["1.ogg", "café, noir"], ["2.ogg", 'the "cool"; jazz']]


def table(separator=",", line_end="\n", rows=ROWS):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=line_end).writerows(rows)
    return text.getvalue()


def write(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path):
    return [
        [row.text(name) for name in row.fields]
        for row in read_rows(path, ("file", "label"), "name another")
    ]


# --- encodings, separators, line ends ----------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_every_spreadsheets_table_is_read(tmp_path, encoding, separator, line_end):
    path = write(tmp_path, table(separator, line_end).encode(encoding))
    assert read(path) == ROWS[1:]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("file,label,,\n1.ogg,a,,\n2.ogg,b,,\n,,,\n", [["1.ogg", "a"], ["2.ogg", "b"]]),
        ("file,label\n1.ogg,a,\n2.ogg,b\n", [["1.ogg", "a"], ["2.ogg", "b"]]),
        (",file,label\n0,1.ogg,a\n1,2.ogg,b\n", [["1.ogg", "a"], ["2.ogg", "b"]]),  # of pandas
        ("sep=;\r\nfile;label\r\n1.ogg;a,b\r\n", [["1.ogg", "a,b"]]),  # of Excel
        ('\n\n"file","label"\n"1.ogg","a"\n', [["1.ogg", "a"]]),
        ("file;label;x, y\n1.ogg;a;1\n", [["1.ogg", "a", "1"]]),
        ("\ufefffile,label\n\ufeff1.ogg,a\u200b\n", [["1.ogg", "a"]]),  # joined files
        ("label,file,a;b;c;d\nx,1.ogg,1\n", [["x", "1.ogg", "1"]]),
    ],
)
def test_empty_columns_and_hints_are_dropped(tmp_path, content, rows):
    assert read(write(tmp_path, content)) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caf\xe9".encode("cp1252"), "line 3 is not UTF-8 text but probably WINDOWS-1252 ('café')"),
        ("Bj\xf6rk it\x92s".encode("latin-1"), "WINDOWS-1252 ('Björk it\u2019s')"),
        ("café".encode("mac_roman"), "probably MACINTOSH ('café')"),
        ("café".encode("cp850"), "probably CP850 ('café')"),
        ("джаз".encode("cp1251"), "line 3 is not UTF-8 text (perhaps Windows-1251"),
        ("é café".encode()[:-1], "line 3 ends in the middle of a character"),
    ],
)
def test_another_encoding_is_named(tmp_path, content, message):
    path = write(tmp_path, b"file,label\r\n1.ogg,a\r\n" + content)
    for reader in (read, label_rows, read_labels):
        assert message in refusal(reader, path)
    if "probably" in message:
        name = message.partition("probably ")[2].split()[0]
        assert f"iconv -f {name} -t UTF-8 table.csv" in refusal(read, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x14\x00\x08\x08\xff", "is a zip archive or a workbook, not text; export"),
        (b"\x1f\x8b\x08\x00\xff", "is compressed (gzip), not text; unpack it"),
        (b"\x00\x00\x01\x02\xff\xfe", "is not text; name another"),
    ],
)
def test_binary_files_are_named(tmp_path, content, message):
    assert message in refusal(read, write(tmp_path, content))


# --- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1.ogg,a", '2.ogg,"b', "3.ogg,c"], "line 3 is malformed"),  # to the end
        (["1.ogg,a", '2.ogg,"b', '3.ogg,"c'], "line 3 is malformed"),
        (['1.ogg,"a', '2.ogg,b"', "3.ogg,c"], "line 2 has other rows inside its label"),
        (['"1.ogg', '2.ogg",a'], "line 2 has other rows inside its file"),
        (["1.ogg,a,", "2.ogg,b,c"], "line 3 has 3 fields where there are 2 columns"),
        (["1.ogg,a", "2.ogg"], "line 3 has 1 fields where there are 2 columns"),
        (["1.ogg;a", "2.ogg;b"], "line 2 has 1 fields where there are 2 columns"),
    ],
)
def test_rows_that_are_merged_or_cut_are_refused(tmp_path, lines, message):
    assert message in refusal(read, write(tmp_path, "\n".join(["file,label", *lines])))


def test_rows_inside_a_caption_are_found_and_its_lines_kept(tmp_path):
    head, other = "file,caption,genre", "2.ogg,A bird,pop"
    path = write(tmp_path, f'{head}\n1.ogg,"A song, sad\nand slow",rock\n{other}\n')
    (first, _) = read_source("user_table", path).clips
    assert first.captions == ("A song, sad\nand slow",)
    write(tmp_path, f'{head}\n1.ogg,"A song,rock\n2.ogg,A bird",pop\n3.ogg,A cat,pop\n')
    assert "line 2 has other rows inside its caption" in refusal(read_source, "user_table", path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("file,label,label", "has two columns 'label' in its first line"),
        ("file,label, label ", "has two columns 'label' in its first line"),
        ("file,label,", "line 2 has 'x' in a column without a name"),
        (",file,label", "line 2 has '1.ogg' in a column without a name"),
        ('file,"label\n2.ogg",kind', "names a column in several lines"),
    ],
)
def test_columns_need_names_of_their_own(tmp_path, head, message):
    assert message in refusal(read, write(tmp_path, f"{head}\n1.ogg,a,x\n"))


def label_rows(path):
    return read_label_rows(path, None)


def class_texts(path):
    return read_label_texts(["a", "b"], path)


def user_table(path):
    return read_source("user_table", path)


EMPTY = ["nan", "NaN", "NAN", "NULL", "Null", "N/A", "None", "<NA>", "#REF!", "#DIV/0!", "#NAME?"]


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize(
    ("reader", "row"),
    [
        (label_rows, "file,label\n1.ogg,{}"),
        (label_rows, "file,label\n{},a"),
        (label_rows, "file,labels\n1.ogg,a;{}"),
        (label_rows, "file,label,split\n1.ogg,a,{}"),
        (class_texts, "label,text\na,{}"),
        (read_label_table, "file_name,mood\n1.ogg,{}"),
        (user_table, "file,genre\n1.ogg,{}"),
        (user_table, "file,caption\n1.ogg,{}"),
        (read_questions, "file,question,answer\n1.ogg,What?,{}"),
    ],
)
def test_cells_that_stand_for_nothing_are_refused(tmp_path, reader, row, empty):
    path = write(tmp_path, row.format(empty))
    assert refusal(reader, path).startswith(f"{path}: line 2 has {empty!r} as ")


def test_labels_may_be_separated_by_bars(tmp_path):
    path = write(tmp_path, "file;tags\n1.ogg;celesta|bells\n")
    (clip,) = user_table(path).clips
    assert clip.tags == {"": ("celesta", "bells")}
    path = write(tmp_path, "file,labels\n1.ogg,a|b; c\n")
    assert label_rows(path)[1] == [("1.ogg", ("a", "b", "c"), "")]


@pytest.mark.parametrize("spell", [str.upper, str.title])
def test_columns_may_be_spelled_in_another_case(tmp_path, spell):
    path = write(tmp_path, spell("file;label;split") + "\n1.ogg;a;train\n")
    assert label_rows(path)[1] == [("1.ogg", ("a",), "train")]
    path = write(tmp_path, spell("file_name,mood") + "\n1.ogg,sad\n")
    assert list(read_label_table(path).of) == ["1.ogg"]
    path = write(tmp_path, spell("label,text") + "\na,an A\nb,a B\n")
    assert class_texts(path) == {"a": "an A", "b": "a B"}
    path = write(tmp_path, spell("file,genre") + "\n1.ogg,rock\n")
    assert user_table(path).clips[0].tags == {"genre": ("rock",)}
    path = write(tmp_path, spell("index,name") + "\n1,b\n0,a\n")
    assert read_labels(path) == ["a", "b"]


def test_columns_that_differ_in_case_alone_are_not_guessed(tmp_path):
    path = write(tmp_path, "File,FILE,label\n1.ogg,2.ogg,a\n")
    assert "has columns 'File' and 'FILE' in its first line; call" in refusal(label_rows, path)
    path = write(tmp_path, "File,file,label\n1.ogg,2.ogg,a\n")
    assert label_rows(path)[1] == [("2.ogg", ("a",), "")]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("File,file_name,label", ("b", ("c",), "")),
        ("FILE,File,file_name,label", ("c", ("d",), "")),
        ("file,Label,labels", ("a", ("c",), "")),
        ("file,LABELS,label", ("a", ("c",), "")),
    ],
)
def test_a_column_that_is_spelled_exactly_precedes_others(tmp_path, head, row):
    path = write(tmp_path, f"{head}\na,b,c,d\n" if head.count(",") == 3 else f"{head}\na,b,c\n")
    assert label_rows(path)[1] == [row]


def test_a_list_of_classes_takes_the_column_that_is_spelled_exactly(tmp_path):
    path = write(tmp_path, "index,label,Name\n0,a,x\n1,b,y\n")
    assert read_labels(path) == ["a", "b"]


def test_two_columns_of_splits_are_not_ignored(tmp_path):
    path = write(tmp_path, "file,label,Split,SPLIT\n1.ogg,a,train,test\n")
    expected = "has columns 'Split' and 'SPLIT' in its first line; call the one to read 'split'"
    assert expected in refusal(label_rows, path)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_rows_behind_a_stray_quote_are_found_with_any_separator(tmp_path, separator):
    lines = ["file,label", '1.ogg,"a', "2.ogg,b", '3.ogg,c"', "4.ogg,d"]
    path = write(tmp_path, "\n".join(lines).replace(",", separator))
    assert "line 2 has other rows inside its label" in refusal(read, path)


@pytest.mark.parametrize("label", ["Nan", "#NAME", "#REF", "#NUM", "a\tb"])
def test_labels_that_only_resemble_empty_cells_are_read(tmp_path, label):
    path = write(tmp_path, f'file,label\n1.ogg,"{label}"\n')
    assert label_rows(path)[1] == [("1.ogg", (label,), "")]


def test_rows_of_several_labels_are_merged(tmp_path):
    rows = ["1.ogg,a", "2.ogg,b;a", "1.ogg,b", "./2.ogg,a|b"]
    path = write(tmp_path, "\n".join(["file,labels", *rows]))
    expected = [("1.ogg", ("a", "b"), ""), ("2.ogg", ("b", "a"), "")]
    assert label_rows(path)[1] == expected
    assert read_labels_by_file(path) == {"1.ogg": ("a", "b"), "2.ogg": ("b", "a")}
    path = write(tmp_path, "file,labels,split\n1.ogg,a,train\n1.ogg,b,test\n")
    assert "line 3 gives 1.ogg another label or split than line 2" in refusal(label_rows, path)


def test_files_of_similar_names_are_different(tmp_path):
    path = write(tmp_path, "file,label\n1.mp3,a\n1.low.mp3,b\n")
    assert len(label_rows(path)[1]) == 2


def test_a_control_character_in_a_label_is_refused(tmp_path):
    path = write(tmp_path, "file,label\n1.ogg,ro\0ck\n")
    assert "line 2 has a control character in its label ('ro\\x00ck')" in refusal(label_rows, path)


@pytest.mark.parametrize("other", ["1.ogg,b,test", "./1.ogg,a,train"])
def test_one_recording_has_one_label_and_split(tmp_path, other):
    path = write(tmp_path, f"file,label,split\n1.ogg,a,test\n2.ogg,b,train\n{other}\n")
    expected = f"line 4 gives {other.split(',')[0]} another label or split than line 2; keep one"
    assert expected in refusal(label_rows, path)


def test_a_table_without_rows_says_so(tmp_path):
    assert "has no rows" in refusal(label_rows, write(tmp_path, "file,label\n"))


# --- names of classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\ufeffjazz\r\nrock\r\n"),
        ("a.txt", "jazz\rrock\r"),
        ("a.txt", "jazz\n\ufeffrock\u200b\n"),
        ("a.csv", "Index,Name\n1,rock\n0,jazz\n"),
        ("a.csv", "0;jazz\n1;rock;\n"),
        ("a.csv", "0|jazz\n1|rock\n"),
        ("a.csv", "1\trock\n0\tjazz\n"),
        ("a.csv", "\ufeffindex,name\n1,rock\n0,jazz\n"),
        ("a.csv", "index;mid;display_name;\n0;/b;rock;\n1;/a;jazz;\n"),
        ("a.json", '["jazz", "rock"]'),
        ("a.json", '\ufeff{"rock": 1, "jazz": 0}'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_of_classes_of_all_kinds_are_one(tmp_path, name, content, encoding):
    content = content.removeprefix("\ufeff") if encoding == "utf-16" else content
    path = write(tmp_path, content.encode(encoding), name)
    assert read_labels(path) == ["jazz", "rock"]
    assert read_class_indices(path).items() >= {("jazz", 0), ("rock", 1)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "jazz\nrock\njazz\n", "names a class twice: 'jazz', as class 1 and 3"),
        ("a.txt", "jazz\nnan\n", "class 2 has the name 'nan'"),
        ("a.csv", '0,"jazz\n1,rock"\n', "class 1 has the name"),
        ("a.csv", "0,jazz\n1,rock,pop\n", "line 2 is not an index and a name"),
        ("a.csv", "index,mid,display_name\n0,/a\n", "line 2 has 2 fields"),
        ("a.csv", "index,mid,mid,display_name\n0,/a,/b,x\n", "has two columns 'mid'"),
        ("a.csv", "index,mid,display_name\n0,/a,\n", "line 2 has an empty display_name"),
        ("a.json", '{"jazz": 0, "jazz": 1}', "has the key 'jazz' twice"),
        ("a.json", '{"0": "jazz", "00": "rock"}', "the indices are not 0, 1, 2"),
    ],
)
def test_lists_of_classes_are_strict(tmp_path, name, content, message):
    assert message in refusal(read_labels, write(tmp_path, content, name))
