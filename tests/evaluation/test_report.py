"""Evaluation reports: all results are written, and text from outside stays text."""

import base64
import io
import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from report_cases import answer, eval_result, written

from tinymu_jax.evaluation.report.examples import load_sound, marked_options
from tinymu_jax.evaluation.report.text import checkpoint_name, without_folders
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Radar, Table

EVIL = "<script>alert('x')</script><img src=http://evil.example/x.png>"


def test_numbers_are_in_percent_with_intervals(tmp_path):
    page, _ = written(tmp_path, eval_result())
    assert page.texts("div", "card") == [
        "accuracy 58.6 % 95 %: [55.8, 61.4] · n = 1,187 published 59.0 of a preprint",
        "BLEU 6.25",
    ]
    assert page.texts("tr")[:3] == [
        "official strict n",
        "all 58.6 [55.8, 61.4] 50.0 1,187",
        "lyrics not available1",
    ]
    assert page.texts("ol", "notes")[0] == "unavailable: none was asked"
    assert "Read with care." in page.texts("p", "note")


def test_notices_come_first(tmp_path):
    page, text = written(tmp_path, eval_result())
    tags = [tag for tag, _, _ in page.elements]
    assert tags.index("aside") < tags.index("section")
    assert page.texts("aside", "notices") == [
        "Read first 2 questions are left out: a.mp3 is missing"
    ]
    lines = [line for line in text.splitlines() if line]
    assert lines[:2] == ["# MuChoMusic", "> **Read first**"]
    assert "2 questions are left out" in lines[3]


def test_markdown_has_the_same_tables(tmp_path):
    _, text = written(tmp_path, eval_result(worst=(answer("/data/a.wav"),)))
    assert "| accuracy | 58.6 \\[55.8, 61.4\\] | 1,187 | 59.0 <sup>1</sup> |" in text
    assert "|  | official | strict | n |\n| --- | ---: | ---: | ---: |" in text
    assert "| lyrics | not available <sup>1</sup> |  |  |" in text
    assert "1. unavailable: none was asked" in text
    assert "| mood | 40.0 | 30.0 |" in text
    assert "| rock | 3 | 1 |" in text
    assert "| 25.0 | 20.0 | 10 |" in text
    assert "   * option: `fast` **(correct)**\n   * option: `slow` **(predicted)**" in text


def test_text_from_outside_is_only_text(tmp_path):
    name = "<script>alert(1)<:script>.wav"
    (tmp_path / name).write_bytes(b"no recording")
    heat = Confusion(EVIL, (EVIL, "b"), ((1, 0), (0, 1)))
    radar = Radar(EVIL, (EVIL, "b", "c"), {EVIL: (0.1, 0.2, 0.3)})
    page, text = written(
        tmp_path,
        eval_result(
            title=EVIL,
            checkpoint=EVIL,
            notices=(EVIL,),
            headline={EVIL: Metric(None, note=EVIL)},
            tables=(Table(EVIL, (EVIL,), {EVIL: (Metric(0.5, note=EVIL),)}, EVIL),),
            radars=(radar,),
            confusions=(heat,),
            settings={EVIL: EVIL},
            worst=(Example(str(tmp_path / name), EVIL, EVIL, EVIL, options=(EVIL, "b")),),
        ),
    )
    assert not {"script", "img"} & {tag for tag, _, _ in page.elements}
    assert page.texts("h1") == [EVIL]
    assert name in page.texts("figcaption")[-1]
    # In Markdown it is escaped or code.
    assert "<script" not in re.sub(r"`[^`]*`", "", text)


def test_control_characters_are_escaped(tmp_path):
    page, text = written(tmp_path, eval_result(worst=(answer(predicted="a\x00b\x1b[0m\ud800"),)))
    assert "a\\x00b\\x1b[0m\\ud800" in page.texts("dd")
    assert "`a\\x00b\\x1b[0m\\ud800`" in text


def test_a_page_needs_nothing_from_outside(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16_000)
    page, text = written(tmp_path, eval_result(worst=(answer(tmp_path / "a.wav"),)))
    for tag, attributes, _ in page.elements:
        for key in ("src", "href", "xlink:href", "data", "srcset", "poster", "action"):
            assert (attributes.get(key) or "data:").startswith(("data:", "#")), (tag, key)
        for value in attributes.values():
            assert "url(" not in (value or "").replace("url(#", "")
        assert not any(key.startswith("on") for key in attributes)
    (style,) = page.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    whole = (tmp_path / "out" / "report.html").read_text("utf-8") + text
    for folder in (str(tmp_path), "/home/", "/data/", "/tmp/"):
        assert folder not in whole
    assert "a.wav" in page.texts("figcaption")


def test_a_page_is_well_built(tmp_path):
    page, _ = written(
        tmp_path, eval_result(worst=(answer(),)), eval_result(kind="list", title="Own")
    )
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    heads = [attributes for tag, attributes, _ in page.elements if tag == "th"]
    assert {one.get("scope") for one in heads} == {"col", "row"}
    ids = [one["id"] for _, one, _ in page.elements if "id" in one]
    assert len(set(ids)) == len(ids)
    links = {one["href"][1:] for tag, one, _ in page.elements if tag == "a"}
    assert links == {"part-1", "part-2"} <= set(ids)
    whole = (tmp_path / "out" / "report.html").read_text("utf-8")
    drawn = re.findall(r"<svg.*?</svg>", whole, re.DOTALL)
    assert drawn
    for picture in map(ElementTree.fromstring, drawn):
        assert picture.get("role") == "img"
        assert [part.tag.rpartition("}")[2] for part in picture[:2]] == ["title", "desc"]
        assert picture[0].text
        assert picture[1].text


def test_the_first_seconds_of_a_recording_are_embedded(tmp_path):
    rate, seconds = 44_100, 12
    times = np.arange(rate * seconds) / rate
    both = np.stack([0.5 * np.sin(math.tau * 440 * times), np.zeros_like(times)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, rate)
    page, _ = written(tmp_path, eval_result(worst=(answer(tmp_path / "a.wav"),)))
    (source,) = [one["src"] for tag, one, _ in page.elements if tag == "audio"]
    kind, data = source.split(",")
    assert kind == "data:audio/ogg;base64"
    raw = base64.b64decode(data)
    assert len(raw) < 60_000
    samples, rate = soundfile.read(io.BytesIO(raw))
    assert rate == 16_000
    assert samples.shape == (160_000,)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() / 10 == pytest.approx(440, abs=0.2)


def test_what_can_be_read_of_a_damaged_recording_is_embedded(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(32_000, 0.1), 16_000)
    path.write_bytes(path.read_bytes()[:40_000])
    sound = load_sound(str(path))
    assert sound.problem == ""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound.source.split(",")[1])))
    assert (len(samples), rate) == ((40_000 - 44) // 2, 16_000)


def test_an_unreadable_recording_is_reported_in_its_place(tmp_path):
    worst = (answer(tmp_path / "gone.wav"), answer(""))
    page, _ = written(tmp_path, eval_result(worst=worst))
    assert "audio" not in [tag for tag, _, _ in page.elements]
    missing, none = page.texts("p", "problem")
    assert missing.startswith("Cannot be played: gone.wav: no such file")
    assert "no recording was given" in none


def test_a_report_with_empty_tables_and_nothing_else_is_written(tmp_path):
    page, text = written(
        tmp_path, EvalResult("list", "Own list", "m", {}, (Table("None", ("a",), {}),))
    )
    assert page.texts("h2") == ["None"]
    assert "No rows." in page.texts("p")
    assert "## None\n\nNo rows." in text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("AndreasXi/TinyMU", "AndreasXi/TinyMU"),
        ("runs/sft/checkpoints/1200", "runs/sft/checkpoints/1200"),
        ("/home/me/runs/sft/checkpoints/1200", "sft/checkpoints/1200"),
        ("/home/me/tinymu.pt", "tinymu.pt"),
        ("C:\\Users\\me\\tinymu.pt", "tinymu.pt"),
    ],
)
def test_checkpoints_are_named_without_the_folders_of_a_machine(path, name):
    assert checkpoint_name(path) == name


def test_only_folders_are_removed_from_a_text():
    text = "4/4 and/or https://a.example/b/c of '/home/me/a.wav', C:\\me\\b.wav"
    assert without_folders(text) == "4/4 and/or https://a.example/b/c of 'a.wav', b.wav"


@pytest.mark.parametrize(
    ("predicted", "number"),
    [
        ("slow", 1),
        ("Slow.", 1),
        ("(B)", 1),
        ("b", 1),
        ("B) slow", 1),
        ("(B) slow", 1),
        ("(B) fast", None),
        ("It is slow", None),
        ("", None),
    ],
)
def test_an_option_is_named_by_its_words_or_its_letter(predicted, number):
    options = marked_options(
        Example("", "?", "(A) fast", predicted, options=("(A) fast", "(B) slow"))
    )
    assert [option.text for option in options] == ["fast", "slow"]
    assert [option.is_correct for option in options] == [True, False]
    assert [option.is_predicted for option in options] == [n == number for n in range(2)]


def test_words_go_before_letters():
    options = marked_options(Example("", "Which key?", "A", "B", options=("C", "A", "B")))
    assert [option.is_correct for option in options] == [False, True, False]
    assert [option.is_predicted for option in options] == [False, False, True]
