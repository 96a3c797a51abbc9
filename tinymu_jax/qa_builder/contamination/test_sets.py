"""Read the contents of test sets, to find them in training data."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.files import AUDIO_SUFFIXES, list_files
from tinymu_jax.data.annotations.musiccaps import TEST_SETS, read_musiccaps
from tinymu_jax.data.annotations.song_describer import NAME as SONG_DESCRIBER
from tinymu_jax.data.annotations.song_describer import read_song_describer
from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_encodable
from tinymu_jax.utils.json_records import JSON_SUFFIXES, read_json_records
from tinymu_jax.utils.tables import TABLE_SUFFIXES, TableRow, read_lines, read_rows

AUDIOSET_EVAL, GTZAN, MUCHOMUSIC = "AudioSet eval", "GTZAN", "MuChoMusic"
CAPS_SETS = {
    "is_balanced_subset": "MusicCaps balanced",
    "is_audioset_eval": "MusicCaps/AudioSet eval",
}
"""Names of the test sets in MusicCaps, by the column that marks their clips."""
OPTIONS = ("correct_answer", *(f"distractor_{number}_answer" for number in (1, 2, 3)))
QUESTION_COLUMNS = ("question", *OPTIONS, "dataset", "dataset_identifier")
QUESTION_FIELDS = ("audio", "question", "choices", "answer")
"""Keys of each JSON object in a .jsonl file of MuChoMusic's questions."""
JAMENDO_DATASETS = ("jamendo", "songdescriber", "sdd", "muchomusic")
"""A data set has Jamendo track ids if the letters of its name contain one of these words."""
OTHER_NUMBERS = ("fma", "freemusicarchive", "magnatagatune")
"""A data set has no Jamendo track ids if the letters of its name begin with one of these words."""
MIN_DIGITS = 6
"""In data sets that may have Jamendo track ids, a number needs this many digits to be one."""
UNKNOWN_ARTISTS = frozenset(
    (
        *("unknown", "unknown artist", "various", "various artist", "various artists", "v a"),
        *("n a", "none", "null", "not available", "anonymous", "anon", "artist", "no artist"),
        *("traditional", "trad", "untitled", "unsigned"),
    )
)
_SUFFIXES = sorted(AUDIO_SUFFIXES | {".npy", ".npz", ".json"})
_AUDIO = re.compile(rf"({'|'.join(map(re.escape, _SUFFIXES))})$", re.IGNORECASE)
_YOUTUBE = re.compile(r"(?=([A-Za-z0-9_-]{11}))")
_TRACK = re.compile(r"(track_(?=\d{7}))?0*(\d+)(?:\.2min|\.low)?")
_GTZAN = re.compile(
    r"(?<![a-z])(blues|classical|country|disco|hiphop|jazz|metal|pop|reggae|rock)"
    r"([._ -]?)(\d{5})(?!\d)"
)
_JAMENDO_ARTIST = re.compile(r"(artist_(?=\d{6}))?0*(\d+)")
_COLLABORATION = re.compile(r";|\b(?:feat|ft|featuring)\b\.?", re.IGNORECASE)
OptionalPath = str | Path | None


class TestQuestion(NamedTuple):
    """A multiple-choice question of a test set; `answer` is the text of the right option."""

    text: str
    answer: str
    options: tuple[str, ...]


class TestSet(NamedTuple):
    """The recordings, captions, artists and questions of a test set."""

    name: str
    ids: frozenset[str] = frozenset()
    """Identifiers of the recordings, normalized by `recording_ids`."""
    texts: tuple[str, ...] = ()
    artists: frozenset[str] = frozenset()
    """Names of the artists, normalized by `artist_names`."""
    questions: tuple[TestQuestion, ...] = ()


def recording_ids(name: str, dataset: str = "") -> frozenset[str]:
    """Return all identifiers that a recording called `name` in a data set may have.

    * `blues.00000`, if the name is that of a GTZAN file.
    * `jamendo 1004034`, if the name is `track_1004034`, `34/1004034.mp3` (the folder is the last
      two digits) or `1004034`. Names without `track_` count only in some data sets; see
      `JAMENDO_DATASETS`, `OTHER_NUMBERS` and `MIN_DIGITS`.
    * Every substring of eleven characters that could be a YouTube id.
    * The name without folder and suffix.
    """
    path = _AUDIO.sub("", name.strip().replace("\\", "/"))
    folder, _, stem = path.rpartition("/")
    ids = {stem, *_YOUTUBE.findall(path)}
    letters = _letters(dataset)
    track = _TRACK.fullmatch(stem)
    if track is not None:
        prefix, number = track.groups()
        other_numbers = letters.startswith(OTHER_NUMBERS)
        if (
            prefix
            or _is_of_jamendo(letters)
            or (not other_numbers and len(number) >= MIN_DIGITS)
            or (not other_numbers and folder.rpartition("/")[2] == number[-2:].zfill(2))
        ):
            ids.add(f"jamendo {number}")
    lower = stem.casefold()
    for genre, separator, number in _GTZAN.findall(lower):
        # Other data sets number files by genre too, but without a dot.
        if separator == "." or "gtzan" in letters or "gtzan" in lower:
            ids.add(f"{genre}.{number}")
    return frozenset(ids)


def artist_names(text: str, dataset: str = "") -> frozenset[str]:
    """Return the artists that a credit names, such as "A feat. B", in normalized form.

    Names are in lower case, without accents, punctuation and "the". Names of fewer than three
    characters and names in `UNKNOWN_ARTISTS` are dropped. The credit `artist_000224`, or 224 in a
    data set of Jamendo tracks, gives `jamendo artist 224`.
    """
    number = _JAMENDO_ARTIST.fullmatch(text.strip())
    if number is not None and (number[1] or _is_of_jamendo(_letters(dataset))):
        return frozenset({f"jamendo artist {number[2]}"})
    names = map(_plain_name, _COLLABORATION.split(text))
    return frozenset(name for name in names if len(name) >= 3 and name not in UNKNOWN_ARTISTS)


def _plain_name(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.casefold().replace("&", " and "))
    words = re.findall(r"[^\W_]+", "".join(c for c in text if not unicodedata.combining(c)))
    return " ".join([word for word in words if word != "the"] or words)


def _letters(dataset: str) -> str:
    return re.sub(r"[^a-z]", "", dataset.casefold())


def _is_of_jamendo(letters: str) -> bool:
    return any(name in letters for name in JAMENDO_DATASETS)


def read_test_sets(
    musiccaps: OptionalPath = None,
    muchomusic: OptionalPath = None,
    audioset_eval: OptionalPath = None,
    song_describer: OptionalPath = None,
    gtzan: OptionalPath = None,
) -> list[TestSet]:
    """Read the test sets whose files are given; raise `InputError` if a file is malformed.

    Args:
        musiccaps: path of musiccaps-public.csv. It gives two test sets: the balanced clips, which
            MuChoMusic asks about, and the clips of AudioSet's evaluation set.
        muchomusic: path of MuChoMusic's csv, or of a .jsonl of its questions without recordings.
        audioset_eval: path of AudioSet's eval_segments.csv.
        song_describer: path of song_describer.csv.
        gtzan: path of GTZAN's folder, or of a csv with the columns file, artist and title.
    """
    readers: list[tuple[OptionalPath, Callable[[Path], Iterable[TestSet]]]] = [
        (musiccaps, _read_musiccaps),
        (muchomusic, _read_muchomusic),
        (audioset_eval, _read_audioset_eval),
        (song_describer, _read_song_describer),
        (gtzan, _read_gtzan),
    ]
    return [one for path, read in readers if path is not None for one in read(Path(path))]


def _read_musiccaps(path: Path) -> Iterator[TestSet]:
    clips = read_musiccaps(path).clips
    for column, name in CAPS_SETS.items():
        members = [clip for clip in clips if TEST_SETS[column] in clip.test_sets]
        texts = tuple(text for clip in members for text in clip.captions)
        yield TestSet(name, frozenset(clip.clip for clip in members), texts)


def _read_song_describer(path: Path) -> Iterator[TestSet]:
    clips = read_song_describer(path).clips
    ids = frozenset(_track_id(clip.clip) for clip in clips)
    artists = (artist_names(clip.artist, SONG_DESCRIBER) for clip in clips if clip.artist)
    texts = tuple(text for clip in clips for text in clip.captions)
    yield TestSet(SONG_DESCRIBER, ids, texts, frozenset().union(*artists))


def _read_audioset_eval(path: Path) -> Iterator[TestSet]:
    remedy = "name AudioSet's eval_segments.csv"
    ids = set()
    for line, cells in read_lines(path, remedy, ","):
        if cells[0].startswith("#"):
            continue
        if len(cells) != 4 or _YOUTUBE.findall(cells[0]) != [cells[0]]:
            raise InputError(f"{path}: line {line} is not a segment of a YouTube video; {remedy}")
        ids.add(cells[0])
    yield TestSet(AUDIOSET_EVAL, _non_empty(ids, path, remedy))


def _read_gtzan(path: Path) -> Iterator[TestSet]:
    remedy = "name GTZAN's folder, or a csv of file, artist and title"
    ids: set[str] = set()
    artists: set[str] = set()
    if path.is_dir():
        for file in list_files(path).files:
            ids |= _gtzan_id(file.name)
    else:
        for row in read_rows(path, ("file", "artist", "title"), remedy):
            file_ids = _gtzan_id(row.filled("file"))
            if not file_ids:
                raise row.fault(f"has the file {row.text('file')!r}; write it as blues.00000")
            ids |= file_ids
            artists |= artist_names(row.text("artist"))
    yield TestSet(GTZAN, _non_empty(ids, path, remedy), artists=frozenset(artists))


def _gtzan_id(name: str) -> set[str]:
    return {f"{genre}.{number}" for genre, _, number in _GTZAN.findall(name.casefold())}


def _read_muchomusic(path: Path) -> Iterator[TestSet]:
    suffix = path.suffix.lower()
    if suffix not in (*TABLE_SUFFIXES, *JSON_SUFFIXES):
        raise InputError(f"{path}: name MuChoMusic's csv, or a .jsonl of its questions")
    read = _questions_of_csv if suffix in TABLE_SUFFIXES else _questions_of_json
    pairs = list(read(path))
    questions = tuple(_non_empty([one for one, _ in pairs], path, "name MuChoMusic's csv"))
    yield TestSet(MUCHOMUSIC, frozenset(name for _, name in pairs if name), questions=questions)


def _questions_of_csv(path: Path) -> Iterator[tuple[TestQuestion, str]]:
    for row in read_rows(path, QUESTION_COLUMNS, "name MuChoMusic's csv"):
        options = tuple(filter(None, (row.text(column) for column in OPTIONS)))
        question = TestQuestion(row.filled("question"), row.filled(OPTIONS[0]), options)
        yield question, _identifier(row)


def _identifier(row: TableRow) -> str:
    name, dataset = row.filled("dataset_identifier"), row.filled("dataset")
    if _letters(dataset) != "musiccaps":
        return _track_id(name)
    match = _YOUTUBE.search(name)
    if match is None:
        raise row.fault(f"has {name!r} as dataset_identifier; begin it with a YouTube id")
    return match[1]


def _track_id(name: str) -> str:
    stem = _AUDIO.sub("", name).rpartition("/")[2]
    track = _TRACK.fullmatch(stem)
    return f"jamendo {track[2]}" if track else stem


def _questions_of_json(path: Path) -> Iterator[tuple[TestQuestion, str]]:
    for where, record in read_json_records(path, "name a jsonl of questions"):
        yield _question(record, where), ""


def _question(record: Any, where: str) -> TestQuestion:
    fault = f"{where}: is not an object with {', '.join(QUESTION_FIELDS)} (a letter); repair it"
    try:
        text, choices, letter = (record[field] for field in QUESTION_FIELDS[1:])
        answer = dict(zip(LETTERS, choices, strict=False))[letter]
        texts = [text, *choices] if isinstance(choices, list) else [None]
        if not all(isinstance(one, str) and one.strip() for one in texts):
            raise TypeError("not texts")
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(fault) from error
    check_encodable(texts, where)
    return TestQuestion(text, answer, tuple(choices))


def _non_empty(contents: Any, path: Path, remedy: str) -> Any:
    """Return `contents`, a set as a frozenset; raise `InputError` with `remedy` if it is empty."""
    if not contents:
        raise InputError(f"{path}: holds nothing to search for; {remedy}")
    return frozenset(contents) if isinstance(contents, set) else contents
