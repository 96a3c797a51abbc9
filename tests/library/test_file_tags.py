"""Tags written into files of each format: read back, audio unchanged, undone, and bad input."""

import fcntl
import json
import os
import shutil
import signal
import stat
import struct
import sys
from types import SimpleNamespace

import av
import mutagen
import numpy as np
import pytest
import soundfile
from helpers import refusal, run_cli, run_process
from mutagen import id3
from mutagen.flac import FLAC
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover
from mutagen.ogg import OggPage
from mutagen.oggspeex import OggSpeex

from tinymu_jax.audio.files import composed
from tinymu_jax.errors import InputError
from tinymu_jax.library.file_tags import plan_changes, restore, undo_log, write_changes
from tinymu_jax.library.packets import read_packets
from tinymu_jax.library.playlists import Entry, playlist_names, relative_path, write_playlists
from tinymu_jax.library.tag_formats import Id3File
from tinymu_jax.library.tag_values import read_renames, tag_values, to_id3_key
from tinymu_jax.utils.files import printable

RATE = 48_000
CODECS = {
    "a.mp3": "libmp3lame",
    "a.flac": "flac",
    "a.opus": "libopus",
    "a.m4a": "aac",
    "a.wav": "pcm_s16le",
    "a.aiff": "pcm_s16be",
}
FORMATS = [*CODECS, "plain.mp3", "plain.flac", "a.ogg", "a.oga"]
VALUES = {
    "genre": ["Jazz"],
    "mood": ["calm"],
    "comment": ["Ein Klavier,\nsehr ruhig ♫"],
    "bpm": ["127.63"],
    "key": ["F#m"],
    "instruments": ["piano"],
}
# Where the formats put them, as each specification says; read below without the code under test.
ID3_NAMES = ["TCON", "TMOO", "COMM::eng", "TBPM", "TKEY", "TXXX:INSTRUMENTS"]
VORBIS_NAMES = ["GENRE", "MOOD", "COMMENT", "BPM", "INITIALKEY", "INSTRUMENTS"]
MP4_NAMES = [
    *("\xa9gen", "----:com.apple.iTunes:MOOD", "\xa9cmt", "tmpo"),
    *("----:com.apple.iTunes:initialkey", "----:com.apple.iTunes:INSTRUMENTS"),
]
# FFmpeg's names for them. It reads no tmpo.
FFMPEG_NAMES = {
    "id3": {"genre", "tmoo", "comment", "tbpm", "tkey", "instruments"},
    "vorbis": {"genre", "mood", "comment", "bpm", "initialkey", "instruments"},
    "mp4": {"genre", "mood", "comment", "initialkey", "instruments"},
}


def kind_of(path):
    if path.suffix in (".mp3", ".wav", ".aiff"):
        return "id3"
    return "mp4" if path.suffix == ".m4a" else "vorbis"


def encode(path, codec, samples):
    """Writes a recording with FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        context = stream.codec_context
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        fifo, resampler = av.AudioFifo(), av.AudioResampler(context.format, "mono", RATE)
        fifo.write(frame)
        while (part := fifo.read(context.frame_size or 1024, partial=True)) is not None:
            for converted in resampler.resample(part):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))


def remux_to_ogg(source, path):
    with av.open(str(source)) as old, av.open(str(path), "w", format="ogg") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def write_speex(path):
    """Writes an ogg of Speex, which FFmpeg cannot encode, with packets of noise."""
    numbers = struct.pack("<13i", 1, 80, 16_000, 1, 4, 1, -1, 320, 0, 1, 0, 0, 0)
    header = b"Speex   " + b"1.2".ljust(20, b"\0") + numbers
    comments = struct.pack("<I", 1) + b"v" + struct.pack("<I", 1) + struct.pack("<I", 5) + b"A=old"
    audio = [bytes([number]) * 70 for number in range(50)]
    pages = [
        *OggPage.from_packets([header]),
        *OggPage.from_packets([comments], 1),
        *OggPage.from_packets(audio, 2),
    ]
    for page in pages:
        page.serial = 7
    pages[0].first, pages[-1].last, pages[-1].position = True, True, 50 * 320
    path.write_bytes(b"".join(page.write() for page in pages))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One second of a tone in every format, by FFmpeg and by libsndfile."""
    folder = tmp_path_factory.mktemp("formats")
    samples = np.float32(0.3) * np.sin(np.arange(RATE, dtype=np.float32) * 0.06)
    for name, codec in CODECS.items():
        encode(folder / name, codec, samples)
    for name in ("plain.mp3", "a.ogg", "plain.flac"):
        soundfile.write(folder / name, samples, RATE)
    FLAC(folder / "plain.flac").delete(folder / "plain.flac")
    remux_to_ogg(folder / "a.flac", folder / "a.oga")
    return folder


@pytest.fixture
def library(originals, tmp_path):
    """A copy of the recordings of all formats."""
    return shutil.copytree(originals, tmp_path / "library")


def write(path, values=VALUES, overwrite=False, log=None):
    """Writes values into a file; returns the changes and the undo record."""
    log = log or undo_log(path.parent / "undo.jsonl")
    changes = plan_changes(path, values, overwrite)
    with log.writing():
        write_changes(path, changes, log)
    return {change.field: change for change in changes}, log.read()[os.path.realpath(path)]


def raw_texts(path):
    """Reads the tags that `VALUES` go to with mutagen, by field."""
    tags = mutagen.File(path).tags
    names = {"id3": ID3_NAMES, "vorbis": VORBIS_NAMES, "mp4": MP4_NAMES}[kind_of(path)]
    values = [tags.get(name, []) for name in names]
    texts = [
        [v.decode() if isinstance(v, bytes) else str(v) for v in getattr(value, "text", value)]
        for value in values
    ]
    return dict(zip(VALUES, texts, strict=True))


def ffmpeg_texts(path):
    with av.open(str(path)) as container:
        metadata = dict(container.metadata)
        for stream in container.streams:
            metadata |= stream.metadata
        return {name.lower(): text for name, text in metadata.items()}


def decode(path):
    """Decodes a recording; returns its packets too."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.size]
        content = [bytes(p) for p in packets]
        samples = [f.to_ndarray() for p in packets for f in p.decode()]
    return np.concatenate(samples, axis=1), content


def all_tags(path):
    """All tags of a file as text."""
    tags = mutagen.File(path).tags
    return "" if tags is None else tags.pprint()


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_read_back_and_undone_and_the_audio_stays(name, library):
    path = library / name
    before, tags_before, (samples, packets) = path.read_bytes(), all_tags(path), decode(path)
    path.chmod(0o640)
    changes, undo = write(path)
    assert {c.action for c in changes.values()} == {"write"}

    expected = dict(VALUES)
    if kind_of(path) != "vorbis":
        expected["bpm"] = ["128"]  # the format holds integers
    assert raw_texts(path) == expected
    names = FFMPEG_NAMES[kind_of(path)]
    texts = ffmpeg_texts(path)
    assert names <= texts.keys()
    assert {texts[n] for n in names - {"tbpm", "bpm"}} <= {v[0] for v in VALUES.values()}

    new_samples, new_packets = decode(path)
    assert new_packets == packets
    np.testing.assert_array_equal(new_samples, samples)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    left, is_exact = restore(undo)
    assert left == []
    assert all_tags(path) == tags_before
    # mutagen puts a free atom of 8 bytes into an m4a, and a free block of 4 into a flac.
    size = path.stat().st_size - len(before)
    assert size in {"a.m4a": (0, 8), "plain.flac": (0, 4)}.get(name, (0,))
    assert is_exact == (path.read_bytes() == before)
    assert is_exact or size
    assert decode(path)[1] == packets


def test_speex_in_an_ogg(tmp_path):
    path = tmp_path / "a.spx"
    write_speex(path)
    before, (_, undo) = path.read_bytes(), write(path)
    tags = OggSpeex(path)
    assert {name: tags[name.lower()] for name in VORBIS_NAMES} == dict(
        zip(VORBIS_NAMES, VALUES.values(), strict=True)
    )
    assert tags["a"] == ["old"]
    with av.open(str(path)) as container:
        assert [bytes(p)[0] for p in container.demux() if p.size] == list(range(50))
    assert restore(undo) == ([], True)
    assert path.read_bytes() == before


def full_id3(path, version, v1=0):
    """Gives an mp3 a title, a year, a cover, a genre by number, a comment and a private frame."""
    tags = id3.ID3()
    tags.add(id3.TIT2(encoding=1, text=["Tïtle"]))
    tags.add(id3.TPE1(encoding=1, text=["AC/DC", "B"]))
    tags.add(id3.TDRC(encoding=0, text=["2001-02-03"]))
    tags.add(id3.APIC(encoding=0, mime="image/png", type=3, desc="c", data=b"\x89PNG" * 500))
    tags.add(id3.TCON(encoding=0, text=["(17)"]))
    tags.add(id3.COMM(encoding=1, lang="XXX", desc="", text=["old"]))
    tags.add(id3.TXXX(encoding=1, desc="Mood", text=["dark"]))
    tags.add(id3.PRIV(owner="x", data=b"\0\1"))
    if version == 3:
        tags.update_to_v23()
    tags.save(path, v1=v1, v2_version=version, v23_sep=None)


@pytest.mark.parametrize("version", [3, 4])
def test_other_frames_the_version_and_id3v1_stay(version, library):
    path = library / "plain.mp3"
    full_id3(path, version, v1=2)
    before = path.read_bytes()
    frames = id3.ID3(path, translate=False)
    changes, undo = write(path, overwrite=True)
    assert changes["genre"].before == ["Rock"]
    assert changes["comment"].before == ["old"]
    assert changes["mood"].before == ["dark"]
    after = id3.ID3(path, translate=False)
    assert after.version == frames.version == (2, version, 0)
    others = {"TIT2", "TPE1", "APIC:c", "PRIV:x:\0\1", "TYER" if version == 3 else "TDRC"}
    assert others <= frames.keys()
    assert all(after[name] == frames[name] for name in others)
    # One comment instead of the other, whatever its language.
    assert [frame.text for frame in after.getall("COMM")] == [VALUES["comment"]]
    assert path.read_bytes()[-128:] == before[-128:]
    assert restore(undo) == ([], True)
    assert path.read_bytes() == before


def test_a_file_with_id3v1_alone_loses_no_title(library):
    path = library / "plain.mp3"
    full_id3(path, 4, v1=2)
    id3.ID3(path).delete(path, delete_v1=False)
    before = path.read_bytes()
    changes, undo = write(path)
    assert changes["genre"].action == "keep"
    tags = id3.ID3(path, load_v1=False)
    assert tags["TIT2"].text == ["Tïtle"]
    assert tags["TCON"].genres == ["Rock"]
    assert tags["TMOO"].text == ["calm"]
    assert path.read_bytes()[-128:] == before[-128:]
    assert restore(undo) == ([], True)


def test_cover_and_binary_values_of_an_m4a_are_restored(library):
    path = library / "a.m4a"
    file = MP4(path)
    file["covr"] = [MP4Cover(b"\x89PNG" * 400, 14)]
    file["----:com.apple.iTunes:Mood"] = [b"\xff\x00binary"]
    file.save()
    before = path.read_bytes()
    _, undo = write(path, overwrite=True)
    assert MP4(path)["----:com.apple.iTunes:Mood"] == [b"calm"]
    assert restore(undo) == ([], True)
    assert path.read_bytes() == before


def test_values_in_the_file_are_kept_unless_asked(library):
    path = library / "a.flac"
    file = FLAC(path)
    file["genre"], file["MOOD"] = ["Blues", "Soul"], [""]
    file.save()
    changes, _ = write(path)
    assert (changes["genre"].action, changes["genre"].after) == ("keep", ["Blues", "Soul"])
    assert changes["mood"].action == "write"  # an empty value is none
    assert FLAC(path)["genre"] == ["Blues", "Soul"]
    again = plan_changes(path, VALUES, overwrite=True)
    assert {c.field: c.action for c in again if c.action != "same"} == {"genre": "write"}


def test_the_order_of_comments_is_restored(library):
    path = library / "a.ogg"
    file = mutagen.File(path)
    pairs = [("Genre", "a"), ("TITLE", "b"), ("MOOD", "c"), ("genre", "d"), ("ARTIST", "e")]
    file.tags[:] = pairs
    file.save()
    before = path.read_bytes()
    _, undo = write(path, overwrite=True)
    assert restore(undo) == ([], True)
    assert mutagen.File(path).tags[:] == pairs
    assert path.read_bytes() == before


def test_an_empty_tag_stays_a_tag(library):
    path = library / "plain.mp3"
    tags = id3.ID3()
    tags.add(id3.TIT2(encoding=3, text=["x"]))
    tags.save(path)
    tags.clear()
    tags.save(path)
    before = path.read_bytes()
    assert before.startswith(b"ID3")
    _, undo = write(path)
    assert restore(undo) == ([], True)
    assert path.read_bytes() == before


def test_several_values_are_separate(library):
    for name in ("a.mp3", "a.flac", "a.m4a"):
        write(library / name, {"genre": ["Jazz", "AC/DC; live"]})
        assert raw_texts(library / name)["genre"] == ["Jazz", "AC/DC; live"]


def test_undo_leaves_what_was_changed_since(library):
    path = library / "a.ogg"
    _, undo = write(path)
    file = mutagen.File(path)
    file["genre"], file["title"] = "Polka", "New"
    file.save()
    left, is_exact = restore(undo)
    assert left == ["genre is 'Polka' now, not what was written; it stays"]
    assert not is_exact
    tags = mutagen.File(path)
    assert (tags["genre"], tags["title"], "mood" in tags) == (["Polka"], ["New"], False)


def test_what_a_format_cannot_hold_is_refused(library):
    flac = plan_changes(library / "a.flac", {"größe": ["klein"], "mood": ["calm"]}, False)
    assert [change.action for change in flac] == ["refuse", "write"]
    assert "names of ASCII" in flac[0].reason
    assert plan_changes(library / "a.mp3", {"größe": ["klein"]}, False)[0].action == "write"
    mp3 = plan_changes(library / "a.mp3", {"genre": ["17"], "mood": ["\ud83d"]}, False)
    assert "number of its list" in mp3[0].reason
    assert "is not UTF-8 text" in mp3[1].reason
    assert plan_changes(library / "a.flac", {"genre": ["17"]}, False)[0].action == "write"


def test_files_without_tags_broken_and_changed_ones_are_refused(library):
    soundfile.write(library / "a.au", np.zeros(RATE, np.float32), RATE)
    message = refusal(plan_changes, library / "a.au", VALUES, False)
    assert "holds no tags that tinymu writes; convert it" in message
    (library / "cut.flac").write_bytes((library / "a.flac").read_bytes()[:3000])
    assert "is the file damaged?" in refusal(plan_changes, library / "cut.flac", VALUES, False)
    (library / "no.mp3").write_text("nothing")
    assert "is the file damaged?" in refusal(plan_changes, library / "no.mp3", VALUES, False)
    message = refusal(plan_changes, library / "a.wav", VALUES, False, 30.0)
    assert "lasts 1.0 s, but 30.0 s when it was described" in message
    # A wrong suffix decides nothing.
    (library / "a.wav").rename(library / "wav.flac")
    assert plan_changes(library / "wav.flac", VALUES, False)[3].after == ["128"]


def test_comments_that_are_not_utf8_are_not_rewritten(library):
    path = library / "a.flac"
    file = FLAC(path)
    file["artist"] = "Caf_"
    file.save()
    path.write_bytes(path.read_bytes().replace(b"Caf_", b"Caf\xe9"))
    assert "are not UTF-8" in refusal(plan_changes, path, VALUES, False)


def test_read_only_locked_and_linked_files(library):
    path = library / "a.flac"
    before = path.read_bytes()
    path.chmod(0o444)
    assert "is read-only" in refusal(write, path)
    path.chmod(0o644)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process is changing it" in refusal(write, path)
    assert path.read_bytes() == before
    link, other = library / "link.flac", library / "hard.flac"
    link.symlink_to("a.flac")
    os.link(path, other)
    _, undo = write(link)
    assert link.is_symlink()
    assert FLAC(path)["genre"] == ["Jazz"]
    assert other.read_bytes() == before
    assert undo.path == str(path)


def test_a_writing_that_would_change_the_audio_is_dropped(library, monkeypatch):
    path = library / "a.wav"
    before, save = path.read_bytes(), Id3File.save

    def damage(self, padding=None):
        save(self, padding)
        content = bytearray(self.path.read_bytes())
        content[2_000] ^= 1
        self.path.write_bytes(content)

    monkeypatch.setattr(Id3File, "save", damage)
    log = undo_log(library / "undo.jsonl")
    changes = plan_changes(path, VALUES, False)
    with log.writing():
        assert "would change its audio" in refusal(write_changes, path, changes, log)
    assert path.read_bytes() == before
    assert log.read() == {}


def test_a_file_that_changes_while_it_is_written_is_left(library, monkeypatch):
    path = library / "a.flac"
    content = b"written by another program"

    def change(copy):
        path.write_bytes(content)
        return read_packets(copy)

    log = undo_log(library / "undo.jsonl")
    changes = plan_changes(path, VALUES, False)
    monkeypatch.setattr("tinymu_jax.library.file_tags.read_packets", change)
    with log.writing():
        assert "another process is changing it" in refusal(write_changes, path, changes, log)
    assert path.read_bytes() == content


KILLED = """
import os, signal, sys
from pathlib import Path
from tinymu_jax.library.file_tags import plan_changes, undo_log, write_changes
path = Path(sys.argv[1])
log = undo_log(path.parent / "undo.jsonl")
changes = plan_changes(path, {"genre": ["Jazz"]}, False)
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with log.writing():
    write_changes(path, changes, log)
"""


def test_a_killed_run_leaves_the_file_as_it_was(library):
    path = library / "a.mp3"
    before = path.read_bytes()
    names = set(os.listdir(library))
    (library / "kill.py").write_text(KILLED)
    assert run_process(library / "kill.py", path).returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    # The record is there before the change: undoing what did not happen does nothing.
    (undo,) = undo_log(library / "undo.jsonl").read().values()
    assert restore(undo) == ([], True)
    os.remove(library / "undo.jsonl")
    write(path, {"genre": ["Jazz"]})
    assert MP3(path)["TCON"].text == ["Jazz"]
    assert set(os.listdir(library)) == names | {"kill.py", "undo.jsonl"}


# --- values ------------------------------------------------------------------------------------


def test_keys_are_in_id3s_notation():
    keys = {"C major": "C", "F# minor": "F#m", "B♭ minor": "Bbm", "E♭ major": "Eb", "H-Moll": ""}
    assert {key: to_id3_key(key) for key in keys} == keys


def row(file, **values):
    """A description as `tinymu caption` writes it."""
    fields = {
        name: {"value": values.pop(name), "probability": 0.7, "agreement": 1.0}
        for name in ("genre", "mood")
        if name in values
    }
    return {
        "file": file,
        "seconds": 1.0,
        "caption": values.pop("caption", "A calm piano."),
        "fields": fields,
        "bpm": 120.0,
        "key": "A minor",
        "time_signature": None,
        "silent": False,
        "timeline": [],
    } | values


def test_values_are_renamed_and_unknown_ones_left_out(tmp_path):
    path = tmp_path / "genre.yaml"
    path.write_text("genre: {electronic: [Electronica, Dance], other: []}\nmood: {calm: Calm}\n")
    renames = read_renames(path)
    values = tag_values(row("x", genre="electronic", mood=None), ["genre", "mood"], renames)
    assert values == {"genre": ("Electronica", "Dance")}
    assert tag_values(row("x", genre="other", mood="calm"), ["genre", "mood"], renames) == {
        "mood": ("Calm",)
    }
    assert tag_values(row("x", genre="folk"), ["genre"], renames) == {"genre": ("folk",)}
    text = tag_values(row("x", caption="a\0b ", bpm=float("nan"), key=None), ["comment", "bpm"], {})
    assert text == {"comment": ("ab",)}
    assert tag_values(row("x", genre="folk", silent=True), ["genre", "bpm"], {}) == {}
    path.write_text("genre: {no: 80, b: [c, '']}")
    assert "genre has '', which is no value" in refusal(read_renames, path)
    path.write_text("genre: {no: 80}")
    assert read_renames(path) == {"genre": {"no": ["80"]}}
    path.write_text("electronic: Electronica")
    assert "is no map of maps" in refusal(read_renames, path)


# --- playlists ---------------------------------------------------------------------------------


def test_playlists_name_files_relative_to_themselves(library):
    odd = ["#1.mp3", "100%.mp3", "a\nb.mp3", "caf\udce9.mp3", " x.mp3", "a:b.mp3"]
    for name in odd:
        shutil.copy(library / "plain.mp3", library / name)
    full_id3(library / "plain.mp3", 4)
    values = {"mood": ("calm", "AC/DC")}
    entries = [Entry(library / name, 1.4, values) for name in ["plain.mp3", *odd]]
    entries.append(Entry(library / "a.wav", 1.0, {}))
    folder = library / "lists"
    paths, left_out = write_playlists(entries, "mood", folder, False)
    assert sorted(p.name for p in paths) == ["mood - AC_DC.m3u8", "mood - calm.m3u8"]
    lines = (folder / "mood - calm.m3u8").read_text("utf-8").split("\n")
    assert lines[0] == "#EXTM3U"
    assert lines[-3:] == ["#EXTINF:1,AC/DC - Tïtle", "../plain.mp3", ""]
    files = [line for line in lines if line and not line.startswith("#")]
    assert {os.path.normpath(folder / name) for name in files} == {
        str(library / name) for name in ["plain.mp3", *odd] if name not in odd[2:4]
    }
    assert ["has a line break" in text for text in left_out] == [True, False]
    assert "is not UTF-8" in left_out[1]
    # Beside the playlist, names could be read as a comment, a URL, or without their spaces.
    assert [relative_path(library / name, library) for name in ("#1.mp3", " x.mp3", "a:b.mp3")] == [
        *("./#1.mp3", "./ x.mp3", "./a:b.mp3")
    ]
    message = refusal(write_playlists, entries[:2], "mood", folder, False)
    assert "is another playlist; pass --overwrite" in message
    assert len(write_playlists(entries, "mood", folder, False)[0]) == 2
    names = playlist_names("mood", ["a?", "a*", "A:", "x" * 300])
    assert len({name.lower() for name in names.values()}) == 4
    assert max(map(len, names.values())) < 120


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def described(library):
    """Descriptions of the library's recordings."""
    names = [name for name in sorted(os.listdir(library)) if name != "a.oga"]
    rows = [row(name, genre="electronic", mood="calm") for name in names]
    path = library.parent / "captions.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_the_command_writes_a_folder_and_undoes_it(library, described, capsys, monkeypatch):
    contents = {path.name: path.read_bytes() for path in library.iterdir()}
    arguments = ["tag", library, "--write", "genre,comment", "--descriptions", described]

    code, out, err = run_cli(capsys, monkeypatch, *arguments, "--dry-run")
    assert code == 2
    assert "a.oga: has no description" in err
    assert "  genre        - -> electronic" in out
    assert out.endswith("9 to be written, 1 failed\n")
    assert {path.name: path.read_bytes() for path in library.iterdir()} == contents

    code, out, err = run_cli(capsys, monkeypatch, *arguments, "--json")
    results = {os.path.basename(r["file"]): r for r in map(json.loads, out.splitlines())}
    assert {name for name, result in results.items() if result.get("written")} == {
        name for name in contents if name != "a.oga"
    }
    assert "has no description" in results["a.oga"]["error"]
    assert results["a.flac"]["changes"][0] == {
        "field": "genre",
        "before": [],
        "after": ["electronic"],
        "action": "write",
    }
    (undo,) = library.glob("tinymu-undo-*.jsonl")
    assert f"to undo: tinymu tag --undo {undo}" in err
    assert FLAC(library / "a.flac")["comment"] == ["A calm piano."]

    code, out, _ = run_cli(capsys, monkeypatch, *arguments)
    assert out == "9 unchanged, 1 failed\n"
    assert list(library.glob("tinymu-undo-*.jsonl")) == [undo]

    code, out, _ = run_cli(capsys, monkeypatch, "tag", "--undo", undo)
    assert code == 0
    assert out.startswith("9 as before the run (")
    assert all(
        path.read_bytes() == contents[path.name]
        for path in library.iterdir()
        if path.name not in ("a.m4a", "plain.flac", undo.name)
    )


@pytest.mark.parametrize("name", ["caf\udce9.mp3", "cafe\u0301.mp3"])
def test_odd_names_are_looked_up(name, library, tmp_path, capsys, monkeypatch):
    shutil.copy(library / "plain.mp3", library / name)
    descriptions = tmp_path / "captions.jsonl"
    # As `tinymu caption` names them: bytes that are not UTF-8 are escapes.
    descriptions.write_text(json.dumps(row(printable(composed(name)), genre="folk")) + "\n")
    arguments = ["tag", library, "--write", "genre", "--descriptions", descriptions]
    _, out, _ = run_cli(capsys, monkeypatch, *arguments)
    assert out.startswith("1 written, 10 failed")
    assert MP3(library / name)["TCON"].text == ["folk"]
    (undo,) = library.glob("tinymu-undo-*.jsonl")
    assert run_cli(capsys, monkeypatch, "tag", "--undo", undo)[0] == 0
    assert (library / name).read_bytes() == (library / "plain.mp3").read_bytes()


def test_recordings_are_described_where_no_descriptions_are_given(library, capsys, monkeypatch):
    options = []

    def describe_recordings(assistant, recordings, chosen):
        options.append(chosen)
        for name, _ in recordings:
            if name.endswith("a.wav"):
                yield InputError(f"{name}: cannot be heard")
            else:
                yield SimpleNamespace(to_json=lambda: row("x", genre="folk", key="D minor"))

    description = SimpleNamespace(
        CAPTION_PROMPT="Describe.", DescribeOptions=dict, describe_recordings=describe_recordings
    )
    monkeypatch.setitem(sys.modules, "tinymu_jax.library.description", description)
    monkeypatch.setattr("tinymu_jax.cli.options.Model.load_assistant", lambda self: None)
    code, out, err = run_cli(capsys, monkeypatch, "tag", library, "--write", "genre,key")
    assert code == 2
    assert out.startswith("9 written, 1 failed")
    assert "a.wav: cannot be heard" in err
    assert raw_texts(library / "a.m4a")["key"] == ["Dm"]
    # Only what is needed is computed.
    assert [field.name for field in options[0]["fields"]] == ["genre"]
    assert (options[0]["prompt"], options[0]["tempo_and_key"]) == (None, True)


def test_the_command_writes_playlists(library, described, capsys, monkeypatch):
    arguments = ["tag", library / "a.mp3", "--descriptions", described, "--playlist", "mood"]
    code, _, err = run_cli(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "name the same folder" in err
    arguments[1] = library
    arguments += ["--playlist-folder", library / "lists"]
    code, out, _ = run_cli(capsys, monkeypatch, *arguments)
    assert out == f"playlists of mood: 1 in {library / 'lists'}\n"
    text = (library / "lists" / "mood - calm.m3u8").read_text()
    assert "#EXTINF:1,a\n../a.flac\n" in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["--write", "genre,tempo"],
            "--write tempo: is no field; there are comment, bpm, key, genre",
        ),
        (["--write", "genre,,mood"], "name each field once"),
        (["--write", "genre,genre"], "name each field once"),
        (["--playlist", "tempo"], "--playlist tempo: is no field"),
        (["--write", "genre", "--map", "tempo.yaml"], "tempo.yaml: tempo: is no field"),
        (["--write", "genre", "--undo-file", "captions.jsonl"], "name another file with"),
        (["--overwrite"], "--descriptions goes with --write or --playlist"),
        (["--write", "genre", "--output", "x.csv"], "--output is for the tags of windows"),
        (["--undo", "captions.jsonl"], "pass nothing else with it"),
    ],
)
def test_wrong_options_write_nothing(options, problem, described, library, capsys, monkeypatch):
    monkeypatch.chdir(described.parent)
    (described.parent / "tempo.yaml").write_text("tempo: {slow: Slow}")
    before = {path.name: path.read_bytes() for path in library.iterdir()}
    arguments = ["tag", library, "--descriptions", described, *options]
    code, _, err = run_cli(capsys, monkeypatch, *arguments)
    assert code == 2
    assert problem in err
    assert {path.name: path.read_bytes() for path in library.iterdir()} == before


def test_an_undo_file_must_be_one(described, capsys, monkeypatch):
    code, _, err = run_cli(capsys, monkeypatch, "tag", "--undo", described)
    assert code == 2
    assert "line 1 is not a record of written tags; name an undo file" in err


def test_two_folders_with_the_same_names_are_refused(library, described, capsys, monkeypatch):
    shutil.copytree(library, library.parent / "copy")
    arguments = ["tag", library, library.parent / "copy", "--write", "genre"]
    code, _, err = run_cli(capsys, monkeypatch, *arguments, "--descriptions", described)
    assert code == 2
    assert "name one folder at a time" in err
