import pytest
from helpers import refusal

from tinymu_jax.library.fields import read_fields

GOOD = """
voice:
  prompt: Is there a voice?
  threshold: 0.7
  options:
    none: no
    male: "Yes, a man's."
year:
  prompt: When was it made?
  normalize: sum
  options: [80, 1990]
"""


def test_fields_are_read_as_texts(tmp_path):
    (tmp_path / "f.yaml").write_text(GOOD)
    voice, year = read_fields(tmp_path / "f.yaml")
    assert (voice.name, voice.values, voice.options) == (
        "voice", ("none", "male"), ("no", "Yes, a man's.")
    )  # fmt: skip
    assert (voice.threshold, voice.normalize) == (0.7, "pmi")
    assert (year.values, year.options, year.normalize) == (("80", "1990"),) * 2 + ("sum",)


def test_the_fields_that_come_along():
    fields = read_fields()
    assert len(fields) == 6
    assert sum(len(field.options) for field in fields) >= 70


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no fields"),
        ("- a", "holds no fields"),
        ("a: [", "is not yaml"),
        ("a: b", "f.yaml: a: has no prompt and options"),
        ("a: {options: [x, y]}", "a: has no prompt"),
        ("a: {prompt: p}", "a: has no list of options"),
        ("a: {prompt: p, options: [x]}", "at least two"),
        ("a: {prompt: p, options: [x, x]}", "all different"),
        ("a: {prompt: p, options: [x, ' ']}", "none empty"),
        ("a: {prompt: p, options: {x: same, y: same}}", "two options, all different"),
        ("a: {prompt: p, options: {x: 1, x: 2}}", "line 1: x is there twice"),
        ("a: {prompt: p, options: [x, [y]]}", "an option is no text"),
        ("a: {prompt: p, options: [x, y], threshold: much}", "threshold 'much' is no number"),
        ("a: {prompt: p, options: [x, y], threshold: 2}", "give a probability"),
        ("a: {prompt: p, options: [x, y], threshold: nan}", "give a probability"),
        ("a: {prompt: p, options: [x, y], normalize: z}", "use one of sum, length, pmi"),
        ("a: {prompt: p, options: [x, y], colour: z}", "colour is unknown"),
        ("a: {prompt: p, options: [x, y]}\na: {prompt: q, options: [x, y]}", "a is there twice"),
    ],
)
def test_bad_fields(tmp_path, text, expected):
    (tmp_path / "f.yaml").write_text(text)
    assert expected in refusal(read_fields, tmp_path / "f.yaml")


def test_a_missing_file_of_fields(tmp_path):
    assert "no such file" in refusal(read_fields, tmp_path / "f.yaml").lower()
