"""One walk of a folder for all commands, and names that lists and disks spell differently."""

import os
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from helpers import noise, refusal

from tinymu_jax.audio.files import canonical_name, find_file, list_audio_files
from tinymu_jax.audio.load import read_clip
from tinymu_jax.audio.plot import plot_log_mel
from tinymu_jax.data.annotations.audio_index import find_audio, index_audio
from tinymu_jax.data.annotations.registry import read_source
from tinymu_jax.data.crops import open_corpus
from tinymu_jax.data.label_batches import LabelBatches
from tinymu_jax.data.musicskills import list_recordings
from tinymu_jax.qa_builder.contamination.test_sets import read_test_sets

CAFE = unicodedata.normalize("NFC", "café")
CAFE_ON_DISK = unicodedata.normalize("NFD", "café")


def write(path, samples=8_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(samples), 16_000, format="WAV")
    return path


@pytest.fixture
def library(tmp_path):
    """Recordings in a folder and in a linked folder that links back, and what is beside them."""
    folder, other = tmp_path / "library", tmp_path / "other"
    for name in ("b.wav", "a/c.OPUS", "a/d.aiff", "e.au", "f.caf", "g.m4a", "h.oga"):
        write(folder / name)
    write(other / "i.wav")
    (folder / "linked").symlink_to(other)
    (other / "back").symlink_to(folder)
    (folder / "a" / "itself").symlink_to(folder / "a")
    (folder / "same.wav").symlink_to("b.wav")
    for name in ("a/cover.jpg", "a/info.txt", "info.txt", "no_suffix"):
        (folder / name).write_text("not heard")
    for name in ("._b.wav", ".hidden.wav", ".trash/j.wav", ".DS_Store"):
        write(folder / name)
    os.mkfifo(folder / "pipe.wav")
    (folder / "to_pipe.wav").symlink_to("pipe.wav")
    return folder


NAMES = ["a/c.OPUS", "a/d.aiff", "b.wav", "e.au", "f.caf", "g.m4a", "h.oga", "linked/i.wav"]


def names_below(folder, paths):
    return sorted(str(Path(path).relative_to(folder)) for path in paths)


def test_a_folder_lists_every_recording_once_and_counts_the_rest(library, capsys):
    assert names_below(library, list_audio_files(library)) == NAMES
    message = capsys.readouterr().err
    assert message == (
        f"note: {library}: 8 recordings; passed over: 2 .txt, 2 hidden, 2 pipe or device, 1 .jpg, "
        "1 without a suffix\n"
    )
    list_audio_files(library)
    assert capsys.readouterr().err == ""  # said once


def test_all_readers_of_folders_see_the_same_recordings(library):
    clips = list_recordings([library, library / "a"]).clips
    assert names_below(library, (clip.path for clip in clips)) == NAMES
    source = read_source("user_folder", library)
    assert names_below(library, [*(library / c.file for c in source.clips), *source.unusable]) == (
        NAMES
    )
    assert {Path(path).suffix for path in source.unusable} == set()
    corpus = open_corpus(library, 16, 16)
    assert sorted(corpus.name(i) for i in range(len(corpus))) == NAMES
    index = index_audio(library)
    assert find_audio(index, "made", "i") == library / "linked" / "i.wav"
    assert find_audio(index, "made", "same") == library / "same.wav"  # links keep their names


def test_a_test_set_is_read_through_links(tmp_path):
    write(tmp_path / "elsewhere" / "blues.00000.wav")
    (tmp_path / "gtzan").mkdir()
    (tmp_path / "gtzan" / "blues").symlink_to(tmp_path / "elsewhere")
    assert read_test_sets(gtzan=tmp_path / "gtzan")[0].ids == {"blues.00000"}


def test_a_broken_link_is_a_missing_recording_and_not_passed_over(tmp_path):
    (tmp_path / "x.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert names_below(tmp_path, list_audio_files(tmp_path)) == ["loop.wav", "x.wav"]
    assert "no such file" in refusal(read_clip, tmp_path / "x.wav")


def test_a_folder_without_recordings_says_what_it_holds(tmp_path):
    assert "has no recordings" in refusal(list_audio_files, tmp_path)
    assert "it is empty" in refusal(list_audio_files, tmp_path)
    (tmp_path / "x.txt").write_text("")
    assert "it holds 1 .txt" in refusal(list_audio_files, tmp_path)
    message = refusal(list_audio_files, tmp_path / "gone")
    assert "gone: cannot be listed (No such file or directory); name a folder" in message


def test_a_folder_that_cannot_be_read_is_named(library, capsys, monkeypatch):
    scandir = os.scandir

    def closed(place):
        if Path(place).name == "linked":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    assert names_below(library, list_audio_files(library)) == NAMES[:-1]
    assert "linked (Permission denied)" in capsys.readouterr().err


def test_the_first_formats_are_preferred_where_a_clip_has_several_files(tmp_path):
    write(tmp_path / "clip.wav")
    write(tmp_path / "clip.mp4")
    assert find_audio(index_audio(tmp_path), "made", "clip") == tmp_path / "clip.wav"
    write(tmp_path / "clip.mp3")
    assert "either may be clip" in refusal(find_audio, index_audio(tmp_path), "made", "clip")


# --- names ---------------------------------------------------------------------------------------


def test_names_are_found_in_the_other_normal_form(tmp_path):
    path = write(tmp_path / CAFE_ON_DISK / f"{CAFE_ON_DISK}.wav")
    composed = tmp_path / CAFE / f"{CAFE}.wav"
    assert not composed.exists()
    assert find_file(composed) == path
    np.testing.assert_array_equal(read_clip(composed).samples, read_clip(path).samples)
    # A file that is there is itself, and a name that appears later is found.
    assert find_file(path) == path
    missing = tmp_path / CAFE / f"{CAFE}2.wav"
    assert find_file(missing) == missing
    assert find_file(missing) != find_file(write(path.with_name(f"{CAFE_ON_DISK}2.wav")))
    assert find_file(composed.with_name(f"{CAFE}3.wav")).name == f"{CAFE}3.wav"


def test_both_forms_side_by_side_are_two_files(tmp_path):
    first, second = write(tmp_path / f"{CAFE}.wav", 900), write(tmp_path / f"{CAFE_ON_DISK}.wav")
    assert (find_file(first), find_file(second)) == (first, second)


def test_jamendos_low_quality_stands_for_its_track(tmp_path):
    low = write(tmp_path / "14" / "214.low.mp3")
    assert find_file(tmp_path / "14" / "214.mp3") == low
    for other in ("15/214.mp3", "14/214.wav", "14/x214.mp3"):
        write(tmp_path / other).with_suffix(".low.mp3").write_bytes(b"no track of MTG-Jamendo")
        (tmp_path / other).unlink()
        assert find_file(tmp_path / other) == tmp_path / other
    full = write(tmp_path / "14" / "214.mp3")
    assert find_file(full) == full
    assert find_audio(index_audio(tmp_path / "14"), "mtg", "214") == full
    full.unlink()
    assert find_audio(index_audio(tmp_path / "14"), "mtg", "214") == low


def test_a_name_that_is_not_utf8_is_a_title(tmp_path):
    plot_log_mel(np.zeros((10, 80)), tmp_path / "caf\udce9.png", "caf\udce9.ogg")
    assert (tmp_path / "caf\udce9.png").read_bytes().startswith(b"\x89PNG")


def test_an_index_compares_names_in_one_normal_form(tmp_path):
    path = write(tmp_path / f"{CAFE_ON_DISK}.wav")
    assert find_audio(index_audio(tmp_path), "made", CAFE) == path


def test_labels_are_found_under_the_names_of_a_table():
    class Clips(list):
        folder = Path("data")

    reader = SimpleNamespace(dataset=Clips([0, 1]), seed=0)
    labels = {f"{CAFE}.ogg": np.zeros(1), "214.mp3": np.ones(1)}
    batches = LabelBatches(reader, labels, 1, 1, [0], 1)
    assert batches._labels(f"music/{CAFE_ON_DISK}.ogg") is labels[f"{CAFE}.ogg"]
    assert batches._labels("14/214.low.mp3") is labels["214.mp3"]


def test_names_in_tables_and_on_disk_are_one():
    assert canonical_name(f"{CAFE_ON_DISK}.ogg") == f"{CAFE}.ogg"
    assert canonical_name("214.low.mp3") == "214.mp3"
    assert canonical_name("slow.low.mp3") == "slow.low.mp3"
