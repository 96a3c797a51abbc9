"""Test sets that must not be trained on, read from the files that say what they hold.

Recordings and artists are known by names that differ from list to list; `recording_ids` and
`artist_names` bring them to one form, the test sets' own as those of what is checked.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.musiccaps import TEST_SETS, read_musiccaps
from tinymu_jax.data.annotations.song_describer import NAME as SONG_DESCRIBER
from tinymu_jax.data.annotations.song_describer import read_song_describer
from tinymu_jax.data.annotations.tables import TableRow, read_lines, read_rows
from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import read_text

AUDIOSET_EVAL, GTZAN, MUCHOMUSIC = "AudioSet eval", "GTZAN", "MuChoMusic"

CAPS_SETS = {
    "is_balanced_subset": "MusicCaps balanced",
    "is_audioset_eval": "MusicCaps/AudioSet eval",
}
"""Of MusicCaps' clips, by columns: AudioSet's own list has more clips, and no captions."""

OPTIONS = ("correct_answer", *(f"distractor_{number}_answer" for number in (1, 2, 3)))

QUESTION_COLUMNS = ("question", *OPTIONS, "dataset", "dataset_identifier")

QUESTION_FIELDS = ("audio", "question", "choices", "answer")
"""Of MuChoMusic's csv, and of a line of a jsonl of its questions."""

FROM_JAMENDO = ("jamendo", "songdescriber", "sdd", "muchomusic")
"""Data sets, by parts of their names in letters alone, whose numbers are those of Jamendo."""

OWN_NUMBERS = ("fma", "freemusicarchive", "magnatagatune")
"""Data sets with numbers of their own."""

LONG = 6
"""Digits from which on a number is taken for Jamendo's wherever it comes from."""

NOBODY = frozenset(
    (
        *("unknown", "unknown artist", "various", "various artist", "various artists", "v a"),
        *("n a", "none", "null", "not available", "anonymous", "anon", "artist", "no artist"),
        *("traditional", "trad", "untitled", "unsigned"),
    )
)
"""What stands where the artist is not known."""

_AUDIO = re.compile(r"\.(wav|flac|ogg|opus|mp3|m4a|aac|au|npy|npz|json)$", re.IGNORECASE)

_YOUTUBE = re.compile(r"(?=([A-Za-z0-9_-]{11}))")

_TRACK = re.compile(r"(track_(?=\d{7}))?0*(\d+)(?:\.2min|\.low)?")

_GTZAN = re.compile(
    r"(?<![a-z])(blues|classical|country|disco|hiphop|jazz|metal|pop|reggae|rock)"
    r"([._ -]?)(\d{5})(?!\d)"
)

_JAMENDO_ARTIST = re.compile(r"(artist_(?=\d{6}))?0*(\d+)")

_TOGETHER = re.compile(r";|\b(?:feat|ft|featuring)\b\.?", re.IGNORECASE)

Given = str | Path | None
"""A path, where one is named."""


class TestQuestion(NamedTuple):
    """A question of a test set."""

    text: str
    answer: str
    """The right one."""
    options: tuple[str, ...]
    """Their texts, the right one among them."""


class TestSet(NamedTuple):
    """A test set."""

    name: str
    ids: frozenset[str] = frozenset()
    """Of its recordings, in the form of `recording_ids`."""
    texts: tuple[str, ...] = ()
    """Captions."""
    artists: frozenset[str] = frozenset()
    """In the form of `artist_names`."""
    questions: tuple[TestQuestion, ...] = ()


def recording_ids(name: str, dataset: str = "") -> frozenset[str]:
    """Returns all identifiers that the name of a recording may stand for.

    `blues.00000` is GTZAN's; `jamendo 1004034` a track of Jamendo: `track_1004034`,
    `34/1004034.mp3` (its folders are the last two digits), and any other number from `LONG` digits
    on, unless its data set has numbers of its own. A YouTube id is eleven letters that may stand
    anywhere in a name: all elevens are returned. So is the name without folder and suffix.

    Args:
        name: of a file, or an identifier.
        dataset: that it belongs to.
    """
    whole = _AUDIO.sub("", name.strip().replace("\\", "/"))
    folder, _, stem = whole.rpartition("/")
    found = {stem, *_YOUTUBE.findall(whole)}
    letters = _letters(dataset)
    track = _TRACK.fullmatch(stem)
    if track is not None:
        marked, number = track.groups()
        own = letters.startswith(OWN_NUMBERS)
        if (
            marked
            or _is_of_jamendo(letters)
            or (not own and len(number) >= LONG)
            or (not own and folder.rpartition("/")[2] == number[-2:].zfill(2))
        ):
            found.add(f"jamendo {number}")
    low = stem.casefold()
    for genre, between, number in _GTZAN.findall(low):
        # Others, too, number files by genre, but not with a dot.
        if between == "." or "gtzan" in letters or "gtzan" in low:
            found.add(f"{genre}.{number}")
    return frozenset(found)


def artist_names(text: str, dataset: str = "") -> frozenset[str]:
    """Returns an artist's name without case, accents, marks and "the"; of several, each.

    `artist_000224` is `jamendo artist 224`, and so is a number in a data set of Jamendo's tracks.
    Names of fewer than three letters, and those of `NOBODY`, are left out.
    """
    number = _JAMENDO_ARTIST.fullmatch(text.strip())
    if number is not None and (number[1] or _is_of_jamendo(_letters(dataset))):
        return frozenset({f"jamendo artist {number[2]}"})
    names = map(_plain_name, _TOGETHER.split(text))
    return frozenset(name for name in names if len(name) >= 3 and name not in NOBODY)


def _plain_name(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold().replace("&", " and "))
    words = re.findall(r"[^\W_]+", "".join(c for c in apart if not unicodedata.combining(c)))
    return " ".join([word for word in words if word != "the"] or words)


def _letters(dataset: str) -> str:
    return re.sub(r"[^a-z]", "", dataset.casefold())


def _is_of_jamendo(letters: str) -> bool:
    return any(name in letters for name in FROM_JAMENDO)


def read_test_sets(
    musiccaps: Given = None,
    muchomusic: Given = None,
    audioset_eval: Given = None,
    song_describer: Given = None,
    gtzan: Given = None,
) -> list[TestSet]:
    """Reads the test sets whose files are named.

    Args:
        musiccaps: path of musiccaps-public.csv; gives two sets, its balanced clips (which
            MuChoMusic asks about) and those of AudioSet's evaluation set.
        muchomusic: path of its csv, or of a jsonl of its questions, which has no identifiers.
        audioset_eval: path of eval_segments.csv.
        song_describer: path of song_describer.csv.
        gtzan: its folder, or a csv of file, artist and title.

    Raises:
        InputError: a file that is something else; the message names file and line.
    """
    readers: list[tuple[Given, Callable[[Path], Iterable[TestSet]]]] = [
        (musiccaps, _read_musiccaps),
        (muchomusic, _read_muchomusic),
        (audioset_eval, _read_audioset_eval),
        (song_describer, _read_song_describer),
        (gtzan, _read_gtzan),
    ]
    return [found for path, read in readers if path is not None for found in read(Path(path))]


def _read_musiccaps(path: Path) -> Iterator[TestSet]:
    clips = read_musiccaps(path).clips
    for column, name in CAPS_SETS.items():
        own = [clip for clip in clips if TEST_SETS[column] in clip.test_sets]
        texts = tuple(text for clip in own for text in clip.captions)
        ids = frozenset(clip.clip for clip in own)
        yield TestSet(name, ids, texts)


def _read_song_describer(path: Path) -> Iterator[TestSet]:
    clips = read_song_describer(path).clips
    ids = frozenset(_track_id(clip.clip) for clip in clips)
    artists = (artist_names(clip.artist, SONG_DESCRIBER) for clip in clips if clip.artist)
    texts = tuple(text for clip in clips for text in clip.captions)
    yield TestSet(SONG_DESCRIBER, ids, texts, frozenset().union(*artists))


def _read_audioset_eval(path: Path) -> Iterator[TestSet]:
    remedy = "name AudioSet's eval_segments.csv"
    ids = set()
    for line, cells in read_lines(path, remedy):
        if cells[0].startswith("#"):
            continue
        if len(cells) != 4 or _YOUTUBE.findall(cells[0]) != [cells[0]]:
            raise InputError(f"{path}: line {line} is no segment of a YouTube video; {remedy}")
        ids.add(cells[0])
    yield TestSet(AUDIOSET_EVAL, _some(ids, path, remedy))


def _read_gtzan(path: Path) -> Iterator[TestSet]:
    remedy = "name GTZAN's folder, or a csv of file, artist and title"
    ids: set[str] = set()
    artists: set[str] = set()
    if path.is_dir():
        for file in path.rglob("*"):
            ids |= _gtzan_id(file.name)
    else:
        for row in read_rows(path, ("file", "artist", "title"), remedy):
            own = _gtzan_id(row.filled("file"))
            if not own:
                raise row.fault(f"has the file {row.text('file')!r}; write it as blues.00000")
            ids |= own
            artists |= artist_names(row.text("artist"))
    yield TestSet(GTZAN, _some(ids, path, remedy), artists=frozenset(artists))


def _gtzan_id(name: str) -> set[str]:
    return {f"{genre}.{number}" for genre, _, number in _GTZAN.findall(name.casefold())}


def _read_muchomusic(path: Path) -> Iterator[TestSet]:
    readers = {".csv": _questions_of_csv, ".jsonl": _questions_of_jsonl}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path}: name MuChoMusic's csv, or a .jsonl of its questions")
    found = list(read(path))
    questions = tuple(_some([question for question, _ in found], path, "name MuChoMusic's csv"))
    yield TestSet(MUCHOMUSIC, frozenset(name for _, name in found if name), questions=questions)


def _questions_of_csv(path: Path) -> Iterator[tuple[TestQuestion, str]]:
    for row in read_rows(path, QUESTION_COLUMNS, "name MuChoMusic's csv"):
        options = tuple(filter(None, (row.text(column) for column in OPTIONS)))
        question = TestQuestion(row.filled("question"), row.filled(OPTIONS[0]), options)
        yield question, _identifier(row)


def _identifier(row: TableRow) -> str:
    """Returns a recording's identifier: of MusicCaps a YouTube id, a second after it; or a track's
    number."""
    name, dataset = row.filled("dataset_identifier"), row.filled("dataset")
    if _letters(dataset) != "musiccaps":
        return _track_id(name)
    found = _YOUTUBE.search(name)
    if found is None:
        raise row.fault(f"has {name!r} as dataset_identifier; begin it with a YouTube id")
    return found[1]


def _track_id(name: str) -> str:
    stem = _AUDIO.sub("", name).rpartition("/")[2]
    track = _TRACK.fullmatch(stem)
    return f"jamendo {track[2]}" if track else stem


def _questions_of_jsonl(path: Path) -> Iterator[tuple[TestQuestion, str]]:
    for number, line in enumerate(read_text(path, "name a jsonl of questions").split("\n"), 1):
        if line.strip():
            yield _question(line, f"{path}: line {number}"), ""


def _question(line: str, where: str) -> TestQuestion:
    wanted = f"an object with {', '.join(QUESTION_FIELDS)} (a letter); repair it"
    try:
        record: Any = json.loads(line)
        text, choices, letter = (record[field] for field in QUESTION_FIELDS[1:])
        answer = dict(zip(LETTERS, choices, strict=False))[letter]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{where}: is not {wanted}") from error
    if not isinstance(choices, list) or not all(
        isinstance(one, str) and one.strip() for one in (text, *choices)
    ):
        raise InputError(f"{where}: is not {wanted}")
    return TestQuestion(text, answer, tuple(choices))


def _some(found: Any, path: Path, remedy: str) -> Any:
    """Returns what a file gave, frozen where it is a set; refuses nothing at all."""
    if not found:
        raise InputError(f"{path}: holds nothing to look for; {remedy}")
    return frozenset(found) if isinstance(found, set) else found
