"""Check the texts of a language model against the tags and captions of the clip."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES, AnnotatedClip
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags

MAX_WORDS = 60
"""Maximum number of words of a caption, question or answer."""
CHECKED_CATEGORIES = ("instrument", "genre", "voice")
"""A text may name a tag of these categories only if the clip's tags or captions name it."""
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
"""JSON schema of the language model's answer to a request."""
_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL | re.IGNORECASE)
_YES_NO = re.compile(r"(yes|no)\s*([.,;:!-]|$)", re.IGNORECASE)
_DIGITS = re.compile(r"\d+(?:[.,:/]\d+)*")
_METADATA = re.compile(
    r"\b(tags?|tagged|captions?|captioned|metadata|descriptions?|annotat\w+|labell?ed)\b"
)
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
"""Digits of number words, without "one", which is usually a pronoun."""
Fault = tuple[str, str]
"""Reason to reject a text, and the offending tag, number or word in the text."""


class Draft(NamedTuple):
    """A caption, or a question with its answer, that a language model wrote."""

    answer: str
    """Text of the answer or caption."""
    question: str | None = None
    """Text of the question; None for a caption."""
    category: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the question, if there is one, and the answer or caption."""
        return (self.answer,) if self.question is None else (self.question, self.answer)


class RejectedDraft(NamedTuple):
    """A draft with the reason for its rejection."""

    draft: Draft
    reason: str
    detail: str = ""
    """The offending tag, number or word in the draft."""


class JudgedDrafts(NamedTuple):
    """Accepted and rejected drafts in a language model's answer."""

    accepted: tuple[Draft, ...]
    rejected: tuple[RejectedDraft, ...]


class MalformedAnswerError(Exception):
    """The language model's answer does not have the requested form; the message says why."""


class KnownFacts(NamedTuple):
    """Tags, denied tags and captions of a clip, against which drafts are checked."""

    tags: tuple[Tag, ...]
    denied: tuple[Tag, ...]
    names: tuple[str, ...]
    texts: tuple[str, ...]
    """Captions and tag names; a draft may repeat every tag and number in these texts."""

    @classmethod
    def of(cls, clip: AnnotatedClip) -> "KnownFacts":
        """Return the facts in a clip's annotations."""
        tags = flatten_tags(clip.tags)
        names = tuple(tag.name for tag in tags)
        return cls(tags, flatten_tags(clip.denied), names, (*clip.captions, *names))


def parse(text: str) -> list[Draft]:
    """Parse a JSON answer into drafts, captions first; raise `MalformedAnswerError` if it fails."""
    fenced = _FENCE.fullmatch(text)
    try:
        content = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError("the answer is not JSON") from error
    try:
        drafts = [Draft(_text(caption)) for caption in _list(content["captions"])]
        drafts += [
            Draft(_text(one["answer"]), _text(one["question"]), _text(one["category"]))
            for one in _list(content["questions"])
        ]
    except (LookupError, TypeError) as error:
        raise MalformedAnswerError("the answer does not follow the schema") from error
    if not drafts:
        raise MalformedAnswerError("the answer has no caption and no question")
    return drafts


def judge(
    drafts: Sequence[Draft],
    clip: AnnotatedClip,
    vocabulary: Vocabulary,
    captions: int,
    questions: int,
) -> JudgedDrafts:
    """Accept the drafts that follow from a clip's tags and captions; reject all other drafts.

    Repeated drafts, and drafts beyond the first `captions` captions and `questions` questions, are
    rejected too.
    """
    facts = KnownFacts.of(clip)
    accepted: dict[tuple[str, ...], Draft] = {}
    rejected = []
    remaining = {"caption": captions, "question": questions}
    for draft in drafts:
        kind = "caption" if draft.question is None else "question"
        remaining[kind] -= 1
        texts = tuple(text.casefold() for text in draft.texts)
        if remaining[kind] < 0:
            fault: Fault | None = ("more than requested", "")
        elif texts in accepted:
            fault = ("duplicate", "")
        else:
            fault = _fault(draft, facts, vocabulary)
        if fault is None:
            accepted[texts] = draft
        else:
            rejected.append(RejectedDraft(draft, *fault))
    return JudgedDrafts(tuple(accepted.values()), tuple(rejected))


def _fault(draft: Draft, facts: KnownFacts, vocabulary: Vocabulary) -> Fault | None:
    """Return the first reason to reject a draft, or None."""
    if draft.question is not None and draft.category not in CATEGORIES:
        return "unknown category", draft.category
    for text in draft.texts:
        fault = _form_fault(text) or _tag_fault(text, facts, vocabulary) or _word_fault(text, facts)
        if fault:
            return fault
    if draft.question is None:
        return None
    if _YES_NO.match(draft.answer):
        return "answered by yes or no", ""
    question, answer = (f" {' '.join(_words(text))} " for text in draft.texts)
    return ("the question contains its answer", draft.answer) if answer in question else None


def _form_fault(text: str) -> Fault | None:
    if not _words(text):
        return "empty", ""
    if not text.isprintable():
        return "several lines or unprintable characters", ""
    count = len(text.split())
    return (f"more than {MAX_WORDS} words", str(count)) if count > MAX_WORDS else None


def _tag_fault(text: str, facts: KnownFacts, vocabulary: Vocabulary) -> Fault | None:
    """Return a fault if a text names a tag that the clip's facts do not support, else None."""

    def named_in(texts: Sequence[str], tag: Tag) -> bool:
        return any(vocabulary.mentions(one, tag) for one in texts)

    for tag in facts.denied:
        if vocabulary.mentions(text, tag) and not named_in(facts.names, tag):
            return "names a denied tag", tag.name
    for tag in vocabulary.tags:
        if (
            tag.category in CHECKED_CATEGORIES
            and vocabulary.mentions(text, tag)
            and not named_in(facts.texts, tag)
            and not any(vocabulary.related(tag, known) for known in facts.tags)
        ):
            return f"names an unknown {tag.category}", tag.name
    return None


def _word_fault(text: str, facts: KnownFacts) -> Fault | None:
    known = " ".join(facts.texts)
    for number in _numbers(text):
        if number not in _numbers(known):
            return "unknown number", number
    known_words = set(_METADATA.findall(known.casefold()))
    words = [word for word in _METADATA.findall(text.casefold()) if word not in known_words]
    return ("mentions tags, captions or metadata", words[0]) if words else None


def _numbers(text: str) -> list[str]:
    """Return the distinct numbers in a text as digits; number words count too."""
    words = [_NUMBERS[word] for word in _words(text) if word in _NUMBERS]
    return list(dict.fromkeys([*_DIGITS.findall(text), *words]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value.strip()
