"""Writes captions and short descriptions of clips from their labels."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tinymu_jax.data.real_music.clips import ATTRIBUTES, DRUMS, LABELS, SOLO, VOICE
from tinymu_jax.data.real_music.instruments import INSTRUMENTS
from tinymu_jax.data.real_music.score import pick

TAG_COLUMNS = ("instrument", "tempo", "voice", "not", "exhaustive")
CLAUSES: Mapping[str, Sequence[str]] = {
    "major": ("in a major key", "in major"),
    "minor": ("in a minor key", "in minor"),
    "triple": ("in triple metre", "with three beats in a bar"),
    "quadruple": ("in quadruple metre", "with four beats in a bar"),
    "swelling": ("getting louder", "that grows louder"),
    "fading": ("getting softer", "that dies away"),
    "low": ("in a low register", "played low"),
    "middle": ("in the middle register",),
    "high": ("in a high register", "played high"),
}
"""Label -> wordings of a clause that says it; a caption has one or two of these."""
ARTICLES = {"string section": "a", "voice": "a", "bells": "", "drums": ""}
"""Articles of names that are not like other nouns; "voice" is a choir in captions."""
MAX_CLAUSES = 2


def tags_of(labels: Collection[str]) -> dict[str, list[str]]:
    """Return the tags of a rendered clip by column, as `tinymu data build --user-table` takes them.

    The labels of `ATTRIBUTES` but tempo are not in the vocabulary of tags.
    """
    names = [name for name in LABELS if name in labels]
    voice = ["choir"] if VOICE in labels else []
    absent = {DRUMS: DRUMS in labels, "vocals": bool(voice)}
    return {
        "instrument": [n for n in names if n in {*INSTRUMENTS, DRUMS} and n != VOICE],
        "tempo": [name for name in names if name in ATTRIBUTES["tempo"]],
        "voice": voice,
        "not": [name for name, present in absent.items() if not present],
        "exhaustive": ["instrument", "voice"],
    }


def describe(tags: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    """Return a text that describes a clip by its tags, in random order."""
    words = [*tags["instrument"], *tags["tempo"], *tags["voice"]]
    words += [f"no {name}" for name in tags["not"]]
    return ", ".join(words[int(i)] for i in rng.permutation(len(words)))


def write_caption(labels: Collection[str], rng: np.random.Generator) -> str:
    """Return a sentence about a rendered clip; it says nothing that the labels do not."""
    names = [name for name in INSTRUMENTS if name in labels]
    tempo = [f"{name} " for name in ATTRIBUTES["tempo"] if name in labels]
    pace = tempo[0] if tempo and rng.random() < 0.8 else ""
    order = [names[int(i)] for i in rng.permutation(len(names))]
    if SOLO in labels:
        start = f"{pace}solo {_noun(order[0])}"
    elif order:
        start = f"{pace}piece for {_join([_with_article(name) for name in order])}"
    else:
        start = f"{pace}drum pattern"
    if names:
        start += " with drums" if DRUMS in labels else pick(rng, ("", " without drums"))
    clauses = [pick(rng, CLAUSES[name]) for name in LABELS if name in labels and name in CLAUSES]
    chosen = rng.permutation(len(clauses))[: int((MAX_CLAUSES + 1) * rng.random())]
    text = ", ".join([start, *(clauses[int(i)] for i in chosen)])
    return f"{_article(text)} {text}."


def _noun(name: str) -> str:
    return "choir" if name == VOICE else name


def _article(text: str) -> str:
    return "An" if text[0] in "aeiou" else "A"


def _with_article(name: str) -> str:
    noun = _noun(name)
    article = ARTICLES.get(name, _article(noun).lower())
    return f"{article} {noun}".strip()


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
