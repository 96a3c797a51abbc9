"""Whether what is trained on holds what is tested with: by recording, by text, by artist.

id       a clip's identifier or its file's name stands for a recording of the test set
text     question, options or answer are a near-copy of a caption of the test set, or the question
         is one of its questions; see `tinymu_jax.qa_builder.contamination.near_duplicates` and below
artist   the clip's artist is one of the test set's

Questions of multiple choice are much alike: "What is the tempo of the song?" is nobody's. A
near-copy of one counts only with all of its options; or, where the test sets ask it once, with its
right answer, in the answer or among the options, if the two have `TELLING` words or more.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.musicskills import read_list
from tinymu_jax.data.question_formats import CAPTIONING
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.contamination.near_duplicates import near_copies_among, plain
from tinymu_jax.qa_builder.contamination.test_sets import TestSet, artist_names, recording_ids
from tinymu_jax.qa_builder.questions.item import RULE

ID, TEXT, ARTIST = KINDS = ("id", "text", "artist")

TELLING = 12

EXAMPLES = 20
"""Kept of each kind and test set."""

Finder = Callable[[Mapping[str, Any]], Iterable[tuple[int, str]]]
"""Returns which test sets a record hits, by number, and by what of them."""

_LETTER = re.compile(r"^\s*\(?[A-D]\)\s*")

_QUESTION = re.compile(r"\bquestion\s*:", re.IGNORECASE)

_OPTIONS = re.compile(r"\boptions?\s*:|\([A-D]\)|\n\s*[A-D][.)]\s", re.IGNORECASE)


class Hit(NamedTuple):
    """Something of a test set that was found."""

    item: int
    """Number of the question in the list, from 0."""
    file_name: str
    found: str
    """The identifier, text or artist of the test set."""
    prompt: str
    answer: str


class Searched(NamedTuple):
    """A test set, and how often it was hit."""

    name: str
    sizes: Mapping[str, int]
    """Of what was looked for, in words."""
    hits: Mapping[str, int]
    """Questions, by kind."""
    examples: Mapping[str, tuple[Hit, ...]]
    """The first `EXAMPLES`, by kind."""


@dataclass(frozen=True)
class LeakReport:
    """What was found in a list."""

    items: int
    """Questions looked at."""
    indices: tuple[int, ...]
    """Those that hit, from 0."""
    test_sets: tuple[Searched, ...]

    @property
    def leaks(self) -> int:
        """Returns how many questions hit a test set, each counted once."""
        return len(self.indices)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it, for a json file."""
        sets = {
            one.name: {
                "looked_for": dict(one.sizes),
                "hits": dict(one.hits),
                "examples": {
                    kind: [hit._asdict() for hit in hits] for kind, hits in one.examples.items()
                },
            }
            for one in self.test_sets
        }
        return {
            "items": self.items,
            "leaks": self.leaks,
            "test_sets": sets,
            "indices": list(self.indices),
        }

    def summary(self) -> str:
        """Returns what was looked for and how often it was found, a line for each test set."""
        if not self.test_sets:
            return "No test set was named: nothing was looked for."
        lines = [f"{self.leaks:,} of {self.items:,} questions hit a test set:", ""]
        for one in self.test_sets:
            sizes = ", ".join(f"{size:,} {what}" for what, size in one.sizes.items() if size)
            hits = ", ".join(f"{number:,} by {kind}" for kind, number in one.hits.items() if number)
            lines.append(f"* {one.name} ({sizes or 'empty'}): {hits or 'no hit'}")
        return "\n".join(lines)


def read_records(paths: Iterable[str | Path]) -> Iterator[dict[str, Any]]:
    """Yields the records of MusicSkills' lists, one list after the other.

    Raises:
        InputError: a list that is none; a record without a key, or whose `clip` or `artist`, where
            it has them, are no texts.
    """
    for path in paths:
        for number, record in enumerate(read_list(Path(path))):
            for key in ("clip", "artist"):
                if not isinstance(record.get(key) or "", str):
                    raise InputError(
                        f"{path}: record {number}: its {key!r} is no text; repair it or take the "
                        "key out"
                    )
            yield record


def check_leaks(items: Iterable[Mapping[str, Any]], held_out: Sequence[TestSet]) -> LeakReport:
    """Looks for test sets in a list.

    Args:
        items: records with MusicSkills' keys; `clip`, `artist` and `options` are looked at too.
        held_out: the test sets.
    """
    finders = {
        ID: _find_ids(held_out),
        TEXT: _find_texts(held_out),
        ARTIST: _find_artists(held_out),
    }
    counts: Counter[tuple[int, str]] = Counter()
    examples: dict[tuple[int, str], list[Hit]] = defaultdict(list)
    total, numbers = 0, []
    for number, record in enumerate(items):
        total += 1
        first: dict[tuple[int, str], str] = {}
        for kind, find in finders.items():
            for place, what in find(record):
                first.setdefault((place, kind), what)
        if first:
            numbers.append(number)
        counts.update(first.keys())
        for where, what in first.items():
            if counts[where] <= EXAMPLES:
                texts = record["input_text"], record["target_text"]
                examples[where].append(Hit(number, record["file_name"], what, *texts))
    searched = (
        Searched(
            one.name,
            _sizes(one),
            {kind: counts[place, kind] for kind in KINDS},
            {kind: tuple(examples[place, kind]) for kind in KINDS if counts[place, kind]},
        )
        for place, one in enumerate(held_out)
    )
    return LeakReport(total, tuple(numbers), tuple(searched))


def _sizes(one: TestSet) -> dict[str, int]:
    return {
        "recordings": len(one.ids),
        "captions": len(one.texts),
        "questions": len(one.questions),
        "artists": len(one.artists),
    }


def _by_value(values: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    """Returns which test sets have a value, by the value."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, own in enumerate(values):
        for value in dict.fromkeys(own):
            places[value].append(place)
    return dict(places)


def _find_ids(held_out: Sequence[TestSet]) -> Finder:
    places = _by_value(one.ids for one in held_out)

    @cache
    def look_up(clip: str, file: str, dataset: str) -> list[tuple[int, str]]:
        names = recording_ids(clip, dataset) | recording_ids(file, dataset)
        return [(place, name) for name in sorted(names & places.keys()) for place in places[name]]

    return lambda record: look_up(record.get("clip") or "", record["file_name"], record["dataset"])


def _find_artists(held_out: Sequence[TestSet]) -> Finder:
    places = _by_value(one.artists for one in held_out)

    @cache
    def look_up(artist: str, dataset: str) -> list[tuple[int, str]]:
        names = artist_names(artist, dataset)
        return [(place, name) for name in sorted(names & places.keys()) for place in places[name]]

    return lambda record: look_up(record.get("artist") or "", record["dataset"])


class _Asked(NamedTuple):
    """A question of a test set, in plain words."""

    place: int
    """Number of the test set."""
    shown: str
    options: tuple[str, ...]
    right: str
    telling: bool
    """Whether its right answer is enough; see above."""

    def is_given_away(self, offered: str, answer: str) -> bool:
        """Returns whether a near-copy of it, by its options or answer, is one indeed."""
        offered, answer = f" {offered} ", f" {answer} "
        if all(f" {option} " in offered for option in self.options):
            return True
        return self.telling and (f" {self.right} " in offered or f" {self.right} " in answer)


def _asked(held_out: Sequence[TestSet]) -> dict[str, list[_Asked]]:
    """Returns the test sets' questions by their texts."""
    times = Counter(plain(question.text) for one in held_out for question in one.questions)
    found: dict[str, list[_Asked]] = defaultdict(list)
    for place, one in enumerate(held_out):
        for text, answer, options in one.questions:
            words, right = plain(text), plain(answer)
            telling = times[words] == 1 and len(f"{words} {right}".split()) >= TELLING
            shown = f"{text} {answer}"
            found[text].append(_Asked(place, shown, tuple(map(plain, options)), right, telling))
    return dict(found)


def _find_texts(held_out: Sequence[TestSet]) -> Finder:
    captions = _by_value(one.texts for one in held_out)
    questions = _asked(held_out)
    find_captions = cache(near_copies_among(captions))
    find_questions = cache(near_copies_among(questions))

    def find(record: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
        question, options = _parts(record)
        answer = _LETTER.sub("", record["target_text"])
        # What is made by rule lists tags in a sentence: captions have such runs of words by chance.
        own_words = record.get("by") != RULE or record["task"] == CAPTIONING
        for text in (answer, question, options) if own_words else ():
            for caption in find_captions(text):
                yield from ((place, caption) for place in captions[caption])
        near = find_questions(question)
        if near:
            offered, said = plain(options), plain(answer)
            for asked in (asked for text in near for asked in questions[text]):
                if asked.is_given_away(offered, said):
                    yield asked.place, asked.shown

    return find


def _parts(record: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the last question of a prompt, and the options after it."""
    question = _QUESTION.split(record["input_text"])[-1]
    start = _OPTIONS.search(question)
    end = start.start() if start else len(question)
    given = record.get("options")
    listed = given if isinstance(given, list) else []
    return question[:end], " ".join([question[end:], *map(str, listed)])
