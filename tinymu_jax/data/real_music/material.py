"""Reads the index of free recordings: notes of instruments, drums, tracks, and what is no music.

Only recordings whose licence lets weights that learnt from them be shipped are used: public domain,
CC0, CC-BY, and licences like MIT's. What validates is never used for training: of notes all of some
sources, of longer recordings all windows of some.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16

from tinymu_jax.audio.load import load_audio
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.real_music.instruments import BY_RECORDED_NAME, DRUMS
from tinymu_jax.errors import InputError
from tinymu_jax.utils.compilation_cache import import_librosa
from tinymu_jax.utils.tables import read_rows

INDEX = "index.csv"
COLUMNS = ("file", "instrument", "source", "source_file", "licence")
NOTES, TRACKS, NOT_MUSIC = "oneshots", "tracks", "not_music"
"""Folders beside the index: single notes and hits, music, and sounds that are no music."""
PERMISSIVE = re.compile(
    r"\b(CC0|CC[- ]BY|Creative Commons (Zero|Attribution)|public domain|MIT|BSD|ISC|Apache"
    r"|Unlicense)\b",
    re.IGNORECASE,
)
RESTRICTED = re.compile(
    r"\b(SA|NC|ND|A?GPL|LGPL|Sampling|free kit|all rights|not)\b|share[- ]?alike|no[- ]?deriv"
    r"|non[- ]?commercial|reserved|personal|[- ](NC|ND|SA)\d",
    re.IGNORECASE,
)
"""A licence is used if it says something of the first, and nothing of the second."""
VALIDATION_SHARE = 6
"""One in so many sources, or recordings, is for validation."""
NOISES = re.compile(
    r"noise|release|breath|valve|muted|thump|click|slide|single_cycle", re.IGNORECASE
)
"""Sounds of an instrument that are no notes, by file name."""
NOTE_NAME = re.compile(r"(?<![a-z])([a-g])([#b]?)(-?\d)(?!\d)", re.IGNORECASE)
SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
MAX_NOTE_SECONDS = 6
MAX_PITCH_SPREAD = 0.5
"""Largest distance, in semitones, between the quartiles of a note's pitch over time."""
MAX_NAME_DISTANCE = 0.8
"""Largest distance, in semitones without octaves, of a note's pitch from that of its name."""


class Recording(NamedTuple):
    """A free recording: a note, a hit of a drum, or a window of a longer recording."""

    file: str
    """Path below the folder of the index; its first part is the kind, such as `NOTES`."""
    path: Path
    instrument: str
    """As the index names it; "" if it is not known."""
    source: str
    source_file: str

    @property
    def kind(self) -> str:
        """The folder beside the index that holds the recording."""
        return PurePosixPath(self.file).parts[0]


class Note(NamedTuple):
    """A recorded note of a pitched instrument."""

    path: Path
    pitch: float
    """MIDI note, with a fraction."""


class Material(NamedTuple):
    """The recordings of one split, training or validation."""

    notes: Mapping[str, Mapping[str, Sequence[Note]]]
    """Name of an instrument -> source -> its notes, in the order of pitch."""
    drums: Mapping[str, Mapping[str, Sequence[Path]]]
    """Source -> name of a drum -> its hits."""
    tracks: Sequence[Recording]
    not_music: Sequence[Recording]


def read_index(folder: str | Path) -> list[Recording]:
    """Read the recordings with a permissive licence from a folder's index.

    Raises:
        InputError: the index is missing or lacks a column, or no recording can be used.
    """
    path = Path(folder) / INDEX
    remedy = f"name a folder with an {INDEX} of {', '.join(COLUMNS)}"
    rows = list(read_rows(path, COLUMNS, remedy))
    permitted = [row for row in rows if is_permissive(row.text("licence"))]
    recordings = [
        Recording(
            row.name("file"),
            path.parent / row.name("file"),
            row.text("instrument"),
            row.text("source").split("@")[0],
            row.text("source_file"),
        )
        for row in permitted
    ]
    usable = [one for one in recordings if one.kind in (NOTES, TRACKS, NOT_MUSIC)]
    if not usable:
        raise InputError(
            f"{path}: none of its {len(rows)} recordings can be used: {len(rows) - len(permitted)} "
            f"have another licence than public domain, CC0, CC-BY or the like, and "
            f"{len(permitted)} are not in {NOTES}/, {TRACKS}/ or {NOT_MUSIC}/"
        )
    return usable


def is_permissive(licence: str) -> bool:
    """Return whether weights that learnt from a recording with this licence may be shipped."""
    return bool(PERMISSIVE.search(licence)) and not RESTRICTED.search(licence)


def is_validation(recording: Recording) -> bool:
    """Return whether a recording is for validation, by a hash of its source."""
    is_note = recording.kind == NOTES
    name = recording.source if is_note else f"{recording.source}/{recording.source_file}"
    return zlib.crc32(name.encode()) % VALIDATION_SHARE == 0


def inspect(recording: Recording) -> tuple[bool, float | None]:
    """Return whether a recording can be read, and its pitch if it is a note of an instrument."""
    try:
        samples = read_samples(recording.path)
    except InputError:
        return False, None
    return True, estimate_pitch(samples, recording.source_file) if is_note(recording) else None


def read_material(
    folder: str | Path, pitches: Mapping[str, float | None], validation: bool
) -> Material:
    """Read the recordings of one split.

    `pitches` has the pitch of every recording that can be read, by `Recording.file`; see `inspect`.

    Raises:
        InputError: the index is missing or malformed.
    """
    recordings = [one for one in read_index(folder) if is_validation(one) == validation]
    notes: dict[str, dict[str, list[Note]]] = {}
    drums: dict[str, dict[str, list[Path]]] = {}
    longer: dict[str, list[Recording]] = {TRACKS: [], NOT_MUSIC: []}
    for one in recordings:
        if one.file not in pitches:
            continue
        pitch, drum = pitches[one.file], drum_of(one)
        if one.kind != NOTES:
            longer[one.kind].append(one)
        elif drum is not None:
            drums.setdefault(one.source, {}).setdefault(drum, []).append(one.path)
        elif pitch is not None:
            name = BY_RECORDED_NAME[one.instrument]
            notes.setdefault(name, {}).setdefault(one.source, []).append(Note(one.path, pitch))
    return Material(
        {name: {s: sorted(v, key=_by_pitch) for s, v in of.items()} for name, of in notes.items()},
        {source: of for source, of in drums.items() if {"kick", "snare", "hat"} <= set(of)},
        longer[TRACKS],
        longer[NOT_MUSIC],
    )


def _by_pitch(note: Note) -> tuple[float, str]:
    return note.pitch, note.path.name


def drum_of(recording: Recording) -> str | None:
    """Return the name in `DRUMS` of a recorded drum; None for what is none of them."""
    for drum, (label, *starts) in DRUMS.items():
        if recording.instrument == label or recording.instrument in starts:
            return drum
        stem = recording.source_file.rsplit("/", 1)[-1].lower()
        named = any(re.search(rf"(?<![a-z]){start}", stem) for start in starts)
        if named and recording.instrument.startswith(("drum", "electronic drum")):
            return drum
    return None


def is_note(recording: Recording) -> bool:
    """Return whether a recording is a note of an instrument of `INSTRUMENTS`."""
    return (
        recording.kind == NOTES
        and recording.instrument in BY_RECORDED_NAME
        and not NOISES.search(recording.source_file)
    )


def estimate_pitch(samples: Int16[np.ndarray, "n"], source_file: str) -> float | None:
    """Return the MIDI note, with a fraction, of a recorded note; None if it has no clear one.

    The estimate is by YIN. It must be steady and, if the file is named after a note, be that note
    in some octave, since sources count octaves differently.
    """
    librosa = import_librosa()
    start = int(np.argmax(np.abs(samples.astype(np.int32))))
    samples = samples[start : start + SAMPLE_RATE] / np.float32(32768)
    if len(samples) < SAMPLE_RATE // 8:
        return None
    frequencies = librosa.yin(samples, fmin=30, fmax=4000, sr=SAMPLE_RATE, frame_length=2048)
    track = librosa.hz_to_midi(frequencies)
    low, pitch, high = np.percentile(track, (25, 50, 75))
    if high - low > MAX_PITCH_SPREAD:
        return None
    name = NOTE_NAME.search(Path(source_file).stem)
    if name is not None:
        letter, accidental, _ = name.groups()
        expected = SEMITONES[letter.lower()] + {"#": 1, "b": -1, "": 0}[accidental.lower()]
        if abs((pitch - expected + 6) % 12 - 6) > MAX_NAME_DISTANCE:
            return None
    return round(float(pitch), 3)


def read_samples(path: Path) -> Int16[np.ndarray, "n"]:
    """Read a recording at 16 kHz."""
    samples = load_audio(path, max_seconds=None)
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


@lru_cache(maxsize=4000)
def read_note(path: Path) -> Int16[np.ndarray, "n"]:
    """Read the start of a note or hit, and keep it, since it is played many times."""
    return read_samples(path)[: MAX_NOTE_SECONDS * SAMPLE_RATE]
