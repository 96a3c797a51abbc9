"""What a language model wrote, held against what is known of the clip.

A text that fails is left out and counted by its reason; none is mended.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tinymu_jax.data.annotations.clip import CATEGORIES, AnnotatedClip, Tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag

MOST_WORDS = 60
"""Of a caption, a question or an answer."""

HELD = ("instrument", "genre", "voice")
"""Categories whose tags may be named only where something says that they are there."""

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "captions": {"type": "array", "items": {"type": "string"}},
        "questions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "question": {"type": "string"},
                    "answer": {"type": "string"},
                    "category": {"type": "string", "enum": list(CATEGORIES)},
                },
                "required": ["question", "answer", "category"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["captions", "questions"],
    "additionalProperties": False,
}
"""Of an answer: json."""

EMPTY = "empty"

LONG = f"more than {MOST_WORDS} words"

UNPRINTABLE = "several lines, or letters that cannot be printed"

INVENTED = "names an unknown {}"

DENIED = "names what the clip is said not to have"

NUMBER = "a number that is not known"

TALK = "speaks of tags, captions or metadata"

CATEGORY = "unknown category"

YES_NO = "answered by yes or no"

GIVEN_AWAY = "the question holds its answer"

TWICE = "written before"

MORE = "more than asked for"
"""Reasons to leave a text out."""

_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL | re.IGNORECASE)

_YES_NO = re.compile(r"(yes|no)\s*([.,;:!-]|$)", re.IGNORECASE)

_TALK = re.compile(
    r"\b(tags?|tagged|captions?|captioned|metadata|descriptions?|annotat\w+|labell?ed)\b"
)

_DIGITS = re.compile(r"\d+(?:[.,:/]\d+)*")

_TO_NINETEEN = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)

_TENS = ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")

_NUMBERS = {
    **{word: str(number) for number, word in enumerate(_TO_NINETEEN, 2)},
    **{f"{word}ty": f"{number}0" for number, word in enumerate(_TENS, 2)},
    **{f"{word}ties": f"{number}0" for number, word in enumerate(_TENS, 2)},
    "hundred": "100",
    "thousand": "1000",
}
"""Numbers in words; "one" is left out, for it is mostly no number."""


class TagWords(Protocol):
    """What the checks want of a vocabulary."""

    @property
    def tags(self) -> Iterable[Tag]:
        """Returns all of its tags."""

    def mentions(self, text: str, tag: Tag) -> bool:
        """Returns whether a text names a tag, by any of its names."""

    def related(self, a: Tag, b: Tag) -> bool:
        """Returns whether one tag is the other, or above or below it."""


class Draft(NamedTuple):
    """A caption, or a question with its answer."""

    answer: str
    """Or the caption."""
    question: str | None = None
    """None: a caption."""
    category: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Returns the question, if there is one, and the answer."""
        return (self.answer,) if self.question is None else (self.question, self.answer)


class Refused(NamedTuple):
    """What is left out."""

    draft: Draft
    reason: str
    detail: str = ""
    """The tag, number or word that is too much."""


class Judged(NamedTuple):
    """What is kept of an answer, and what is not."""

    accepted: tuple[Draft, ...]
    refused: tuple[Refused, ...]


class MalformedAnswerError(Exception):
    """An answer that is none; the message says why."""


class KnownFacts(NamedTuple):
    """What is known of a clip."""

    own: tuple[Tag, ...]
    denied: tuple[Tag, ...]
    names: tuple[str, ...]
    """Of its own tags."""
    texts: tuple[str, ...]
    """Captions and names: who names what they name invents nothing."""


def facts_of(clip: AnnotatedClip) -> KnownFacts:
    """Returns what is known of a clip."""
    own, denied = _flat(clip.tags), _flat(clip.denied)
    names = tuple(tag.name for tag in own)
    return KnownFacts(own, denied, names, (*clip.captions, *names))


def _flat(tags: Tags) -> tuple[Tag, ...]:
    return tuple(Tag(category, name) for category, names in tags.items() for name in names)


def parse(text: str) -> list[Draft]:
    """Returns what an answer holds: captions, then questions.

    Args:
        text: of the answer: json, in a code fence or without.

    Raises:
        NonsenseError: it is no json, or not what was asked for.
    """
    fenced = _FENCE.fullmatch(text)
    try:
        content = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError("the answer is no json") from error
    try:
        drafts = [Draft(_text(caption)) for caption in _list(content["captions"])]
        drafts += [
            Draft(_text(one["answer"]), _text(one["question"]), _text(one["category"]))
            for one in _list(content["questions"])
        ]
    except (LookupError, TypeError) as error:
        raise MalformedAnswerError("the answer's json is not of the schema") from error
    if not drafts:
        raise MalformedAnswerError("the answer holds no caption and no question")
    return drafts


def judge(
    drafts: Sequence[Draft],
    clip: AnnotatedClip,
    vocabulary: TagWords,
    captions: int,
    questions: int,
) -> Judged:
    """Tells what follows from what is known of a clip from what does not.

    Args:
        drafts: what was written, in order.
        clip: with the vocabulary's tags.
        vocabulary: whose tags must not be invented.
        captions: how many were asked for.
        questions: how many were asked for.
    """
    facts = facts_of(clip)
    accepted: dict[tuple[str, ...], Draft] = {}
    refused = []
    left = {"caption": captions, "question": questions}
    for draft in drafts:
        kind = "caption" if draft.question is None else "question"
        left[kind] -= 1
        said = tuple(text.casefold() for text in draft.texts)
        if left[kind] < 0:
            fault: tuple[str, str] | None = (MORE, "")
        elif said in accepted:
            fault = (TWICE, "")
        else:
            fault = _fault(draft, facts, vocabulary)
        if fault is None:
            accepted[said] = draft
        else:
            refused.append(Refused(draft, *fault))
    return Judged(tuple(accepted.values()), tuple(refused))


def _fault(draft: Draft, facts: KnownFacts, vocabulary: TagWords) -> tuple[str, str] | None:
    """Returns the first reason to leave a draft out, with what is too much."""
    if draft.question is not None and draft.category not in CATEGORIES:
        return CATEGORY, draft.category
    for text in draft.texts:
        fault = _form_fault(text) or _tag_fault(text, facts, vocabulary) or _word_fault(text, facts)
        if fault:
            return fault
    if draft.question is None:
        return None
    if _YES_NO.match(draft.answer):
        return YES_NO, ""
    return (GIVEN_AWAY, draft.answer) if _holds(draft.question, draft.answer) else None


def _form_fault(text: str) -> tuple[str, str] | None:
    if not _words(text):
        return EMPTY, ""
    if not text.isprintable():
        return UNPRINTABLE, ""
    count = len(text.split())
    return (LONG, str(count)) if count > MOST_WORDS else None


def _tag_fault(text: str, facts: KnownFacts, vocabulary: TagWords) -> tuple[str, str] | None:
    """Returns the first tag that a text names although nothing says that it is there."""
    for tag in facts.denied:
        if vocabulary.mentions(text, tag) and not _named(tag, facts.names, vocabulary):
            return DENIED, tag.name
    for tag in vocabulary.tags:
        if (
            tag.category in HELD
            and vocabulary.mentions(text, tag)
            and not _named(tag, facts.texts, vocabulary)
            and not any(vocabulary.related(tag, own) for own in facts.own)
        ):
            return INVENTED.format(tag.category), tag.name
    return None


def _word_fault(text: str, facts: KnownFacts) -> tuple[str, str] | None:
    known = " ".join(facts.texts)
    for number in _numbers(text):
        if number not in _numbers(known):
            return NUMBER, number
    there = set(_TALK.findall(known.casefold()))
    talk = [word for word in _TALK.findall(text.casefold()) if word not in there]
    return (TALK, talk[0]) if talk else None


def _named(tag: Tag, texts: Collection[str], vocabulary: TagWords) -> bool:
    return any(vocabulary.mentions(text, tag) for text in texts)


def _numbers(text: str) -> list[str]:
    """Returns the numbers of a text, in digits and in words, once each."""
    words = [_NUMBERS[word] for word in _words(text) if word in _NUMBERS]
    return list(dict.fromkeys([*_DIGITS.findall(text), *words]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _holds(question: str, answer: str) -> bool:
    """Returns whether the words of an answer stand together in its question."""
    words, sought = _words(question), _words(answer)
    starts = range(len(words) - len(sought) + 1)
    return any(words[start : start + len(sought)] == sought for start in starts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value.strip()
