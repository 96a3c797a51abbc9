"""A small vocabulary and clips for the tests of the language-model writer."""

import re

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.tags.vocabulary import Tag


class Words:
    """A vocabulary of a few tags, each with one label."""

    tags = (
        Tag("instrument", "guitar"),
        Tag("instrument", "electric guitar"),
        Tag("instrument", "piano"),
        Tag("instrument", "banjo"),
        Tag("genre", "jazz"),
        Tag("genre", "rock"),
        Tag("voice", "female voice"),
        Tag("mood", "calm"),
        Tag("mood", "sad"),
    )

    def mentions(self, text, tag):
        return re.search(rf"\b{tag.name}s?\b", text.lower()) is not None

    def related(self, a, b):
        return a == b or {a.name, b.name} == {"guitar", "electric guitar"}


WORDS = Words()
PIANO = {"instrument": ("piano",), "genre": ("jazz",), "mood": ("calm",)}


def make_clip(number=0, **fields):
    part = {"tags": PIANO, "captions": (f"A piano plays a calm tune, number {number}.",)}
    return AnnotatedClip(f"c{number}", f"c{number}.wav", "Made", "CC0", **part | fields)
