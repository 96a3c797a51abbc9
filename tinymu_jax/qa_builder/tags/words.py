"""Split labels and captions into words without case, accents, hyphens and plural endings."""

import re
import unicodedata

_WORDS = re.compile(r"[^\W_]+(?:&[^\W_]+)*|&")
_APOSTROPHES = re.compile("['`\u2018\u2019\u00b4]")
_NOT_PLURAL = ("ss", "us", "is", "blues")
"""Endings of singular words that end in "s"."""


def words_of(text: str) -> list[str]:
    """Return a text's words in lower case and the singular: "Hi-Hats" gives "hi", "hat"."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [_singular(word) for word in _WORDS.findall(_APOSTROPHES.sub("", plain))]


def label_key(label: str) -> str:
    """Return the normalized words of a label, joined by spaces; "" if it has no words."""
    return " ".join(words_of(label))


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(_NOT_PLURAL):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "shes", "ches", "xes")) else word[:-1]
