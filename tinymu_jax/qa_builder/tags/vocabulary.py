"""Tags that are asked about, and which of them the labels of sources mean.

The project's own are in tags.csv (`tinymu_jax.qa_builder.tags.table` says how); `read_vocabulary`
adds a user's. A label is known by its words, or by its letters where its source writes words
together ("drumnbass"). It may mean several tags ("passionate male vocal"), deny some
("instrumental"), say that no other instrument plays, or ask nothing ("low quality").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES, AnnotatedClip, Tags
from tinymu_jax.qa_builder.tags.table import Meaning, Tag, read_table
from tinymu_jax.qa_builder.tags.words import key_of, words_of

OWN = Path(__file__).with_name("tags.csv")

NEGATIONS = ("no", "not", "without", "non")
"""Words before a label that deny what it means."""

BARE = ("genre", "mood", "tempo", "function")
"""Categories whose tags stand in a sentence as they are; those of others are things."""


class Normalised(NamedTuple):
    """A clip in the vocabulary's names, and what became of its labels."""

    clip: AnnotatedClip
    unknown: tuple[str, ...] = ()
    """Labels that the vocabulary does not know."""
    rare: int = 0
    """Labels left out because too few clips have them."""
    contradicted: tuple[Tag, ...] = ()
    """Tags left out because one label gives and another denies them."""
    unasked: tuple[Tag, ...] = ()
    """Tags that may be there all the same: contradicted ones, and those that the words of rare and
    unknown labels name, beside the clip's own. No "no" should be said about them."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """All tags, how they belong together, and the labels that mean them."""

    parents: Mapping[Tag, tuple[Tag, ...]]
    """Of every tag, in the order of `CATEGORIES`, then of their names."""
    meanings: Mapping[str, Meaning]
    """By the labels' `key_of`."""
    groups: frozenset[Tag] = frozenset()
    """Tags that nothing is asked about; they hold together those below them."""
    phrases: Mapping[Tag, str] = field(default_factory=dict)
    """How tags stand in a sentence, where it is not as their category says."""

    @property
    def tags(self) -> tuple[Tag, ...]:
        """Returns all tags, groups among them."""
        return tuple(self.parents)

    def meaning(self, label: str, category: str = "") -> Meaning | None:
        """Returns what a label means; None: it is not known.

        Args:
            label: in its source's words.
            category: as its source says; of several tags, those of this category are meant.
        """
        key = key_of(label)
        found = self.meanings.get(key) or self._written_together.get(key.replace(" ", ""))
        if found is not None:
            own = tuple(tag for tag in found.tags if tag.category == category)
            return found._replace(tags=own or found.tags)
        first, _, rest = key.partition(" ")
        return self.opposite(rest, category) if first in NEGATIONS and rest else None

    def opposite(self, label: str, category: str = "") -> Meaning | None:
        """Returns what is said by denying a label; None: that cannot be told.

        Who denies a label of several words and tags ("passionate male vocal") does not deny each.
        """
        found = self.meaning(label, category)
        if found is None or found.only or (len(found.tags) > 1 and " " in key_of(label)):
            return None
        return found._replace(tags=found.denied, denied=found.tags)

    def ancestors(self, tag: Tag) -> frozenset[Tag]:
        """Returns all tags above one."""
        return self._above.get(tag, frozenset())

    def descendants(self, tag: Tag) -> frozenset[Tag]:
        """Returns all tags below one."""
        return self._below.get(tag, frozenset())

    def related(self, a: Tag, b: Tag) -> bool:
        """Returns whether a tag is another, or above or below it."""
        return a == b or a in self.ancestors(b) or b in self.ancestors(a)

    def alike(self, a: Tag, b: Tag) -> bool:
        """Returns whether a label means both of two tags: "male choir" a choir and a male voice."""
        return b in self._alike.get(a, ())

    def near(self, a: Tag, b: Tag) -> bool:
        """Returns whether two tags, unrelated and of one category, meet one or two steps above."""
        if a.category != b.category or self.related(a, b):
            return False
        return not self._two_above(a).isdisjoint(self._two_above(b))

    def branch(self, tag: Tag) -> Tag:
        """Returns the topmost tag above one by its first parents; itself if there is none."""
        above = self.parents.get(tag)
        return self.branch(above[0]) if above else tag

    def askable(self, tag: Tag) -> bool:
        """Returns whether there may be a question about a tag."""
        return tag in self.parents and tag not in self.groups

    def finest(self, tags: Iterable[Tag]) -> tuple[Tag, ...]:
        """Returns those of some tags that are above none of the others."""
        tags = tuple(tags)
        above = frozenset[Tag]().union(*map(self.ancestors, tags))
        return tuple(tag for tag in tags if tag not in above)

    def named(self, text: str) -> frozenset[Tag]:
        """Returns the tags that a text names by any of their labels, as whole words, and all above
        them. Rather too many than too few: a "bass drum" also names the bass."""
        return _named(self, text)

    def mentions(self, text: str, tag: Tag) -> bool:
        """Returns whether a text names a tag or one below it; see `named`."""
        return tag in _named(self, text)

    def phrase(self, tag: Tag) -> str:
        """Returns how a tag stands in a sentence of its category: "a piano", "drums", "sad"."""
        if tag in self.phrases:
            return self.phrases[tag]
        name = tag.name
        if tag.category in BARE or (name.endswith("s") and not name.endswith("ss")):
            return name
        return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"

    def option_text(self, tag: Tag) -> str:
        """Returns how a tag stands among the options of multiple choice."""
        text = f"{tag.name} tempo" if tag.category == "tempo" else tag.name
        return text[0].upper() + text[1:]

    @cached_property
    def _above(self) -> dict[Tag, frozenset[Tag]]:
        found: dict[Tag, frozenset[Tag]] = {}

        def collect(tag: Tag) -> frozenset[Tag]:
            if tag not in found:
                own = self.parents[tag]
                found[tag] = frozenset(own).union(*map(collect, own))
            return found[tag]

        for tag in self.parents:
            collect(tag)
        return found

    @cached_property
    def _below(self) -> dict[Tag, frozenset[Tag]]:
        found: dict[Tag, set[Tag]] = {tag: set() for tag in self.parents}
        for tag, above in self._above.items():
            for one in above:
                found[one].add(tag)
        return {tag: frozenset(below) for tag, below in found.items()}

    @cached_property
    def _alike(self) -> dict[Tag, frozenset[Tag]]:
        found: dict[Tag, set[Tag]] = {}
        for meaning in self.meanings.values():
            for tag in meaning.tags:
                found.setdefault(tag, set()).update(meaning.tags)
        return {tag: frozenset(others - {tag}) for tag, others in found.items()}

    def _two_above(self, tag: Tag) -> set[Tag]:
        own = self.parents.get(tag, ())
        return {*own, *(up for parent in own for up in self.parents[parent])}

    @cached_property
    def _written_together(self) -> dict[str, Meaning]:
        """Meanings by labels without blanks, the first of those that are then alike."""
        return {key.replace(" ", ""): self.meanings[key] for key in reversed(self.meanings)}

    @cached_property
    def _longest(self) -> int:
        return max((key.count(" ") + 1 for key in self.meanings), default=0)


@lru_cache(maxsize=4096)  # a caption is asked about hundreds of times in a row
def _named(vocabulary: Vocabulary, text: str) -> frozenset[Tag]:
    words = words_of(text)
    found: set[Tag] = set()
    for start in range(len(words)):
        for end in range(start + 1, min(start + vocabulary._longest, len(words)) + 1):
            meaning = vocabulary.meanings.get(" ".join(words[start:end]))
            if meaning is not None:
                found.update(meaning.tags)
    return frozenset(found).union(*map(vocabulary.ancestors, found))


def read_vocabulary(extra: Path | None = None) -> Vocabulary:
    """Returns the project's vocabulary.

    Args:
        extra: a user's table, which adds tags, and labels to those that are there.

    Raises:
        InputError: as `tinymu_jax.qa_builder.tags.table.read_table`.
    """
    return Vocabulary(*read_table([OWN] if extra is None else [OWN, extra]))


def frequent_labels(clips: Iterable[AnnotatedClip], least: int) -> frozenset[str]:
    """Returns the labels that sources use at least so often, in all clips together."""
    counts = Counter(label for clip in clips for _, label, _ in _labels(clip))
    return frozenset(label for label, count in counts.items() if count >= least)


def _labels(clip: AnnotatedClip) -> Iterator[tuple[str, str, bool]]:
    """Yields the category and words of each label, and whether it is denied."""
    for tags, denied in ((clip.tags, False), (clip.denied, True)):
        for category, labels in tags.items():
            yield from ((category, label, denied) for label in labels)


def normalise(
    clip: AnnotatedClip, vocabulary: Vocabulary, frequent: frozenset[str] | None = None
) -> Normalised:
    """Gives a clip the vocabulary's names.

    What is denied of a tag is denied of all below it. A tag that is given and denied is neither. A
    category is exhaustive as the source says, and instruments where a label does beside those that
    play, or where it says that voices are alone; not where a label of it is left out.

    Args:
        clip: with the labels of its source.
        vocabulary: which knows them.
        frequent: labels that are asked about; None: all.
    """
    meanings: list[Meaning] = []
    unknown: dict[str, None] = {}
    left: dict[str, str] = {}
    rare = 0
    for category, label, no in _labels(clip):
        found = (vocabulary.opposite if no else vocabulary.meaning)(label, category)
        if frequent is not None and label not in frequent:
            rare += 1
            left[label] = category
        elif found is None:
            unknown[label] = None
            left[label] = category
        else:
            meanings.append(found)
    given, denied, contradicted = _weigh(meanings, vocabulary)
    implied = _implied(given, vocabulary)
    unasked = {tag for label in left for tag in vocabulary.named(label)} - implied
    unasked.update(contradicted)
    incomplete = {*left.values(), *(tag.category for tag in unasked)}
    # "No other instruments" than one that is not known tells nothing of those that are.
    played = any(tag.category == "instrument" for tag in given)
    sung = any(m.only and any(tag.category == "voice" for tag in m.tags) for m in meanings)
    alone = sung or (played and any(meaning.only for meaning in meanings))
    exhaustive = {*clip.exhaustive, *(["instrument"] if alone else [])} - incomplete
    named = replace(
        clip,
        tags=by_category(given),
        denied=by_category(denied),
        exhaustive=tuple(name for name in CATEGORIES if name in exhaustive),
    )
    return Normalised(named, tuple(unknown), rare, contradicted, tuple(sorted(unasked)))


def _weigh(
    meanings: Iterable[Meaning], vocabulary: Vocabulary
) -> tuple[set[Tag], set[Tag], tuple[Tag, ...]]:
    """Returns which tags are given, which are denied, and which are both and therefore neither."""
    meanings = tuple(meanings)
    plain = {tag for meaning in meanings if not meaning.denied for tag in meaning.tags}
    given, denied = set(plain), set[Tag]()
    for meaning in meanings:
        own = set(meaning.denied).union(*map(vocabulary.descendants, meaning.denied))
        denied |= own
        # "Instrumental" is not believed of a clip in which somebody sings.
        if own and own.isdisjoint(plain):
            given.update(meaning.tags)
    implied = _implied(given, vocabulary)
    return given - denied, denied - implied, tuple(sorted(implied & denied))


def _implied(tags: Iterable[Tag], vocabulary: Vocabulary) -> set[Tag]:
    return {above for tag in tags for above in (tag, *vocabulary.ancestors(tag))}


def by_category(tags: Iterable[Tag]) -> Tags:
    """Returns the names of tags by their categories, both in order."""
    found = sorted(tags)
    kinds = {
        category: tuple(t.name for t in found if t.category == category) for category in CATEGORIES
    }
    return {category: names for category, names in kinds.items() if names}
