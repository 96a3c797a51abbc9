"""The vocabulary of tags, and functions that map the labels of data sets to tags.

The built-in tags are in tags.csv (columns: `tinymu_jax.qa_builder.tags.table`). A label is looked
up by its normalized words, or without spaces for data sets that join words ("drumnbass"). A label
may mean several tags ("passionate male vocal"), deny tags ("instrumental"), say that no other
instrument plays, or be ignored ("low quality").
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import CATEGORIES, AnnotatedClip, Tags
from tinymu_jax.qa_builder.tags.table import LabelMeaning, Tag, TagTable, read_table
from tinymu_jax.qa_builder.tags.words import label_key, words_of

BUILT_IN = Path(__file__).with_name("tags.csv")
NEGATIONS = ("no", "not", "without", "non")
"""First words of labels that deny the rest of the label."""
BARE_CATEGORIES = ("genre", "mood", "tempo", "function")
"""Categories whose tags take no article in a sentence."""


class NormalizedClip(NamedTuple):
    """A clip whose labels were replaced by tags of the vocabulary, and the dropped labels."""

    clip: AnnotatedClip
    unknown: tuple[str, ...] = ()
    """Dropped labels that are not in the vocabulary."""
    rare: int = 0
    """Number of dropped labels that too few clips have."""
    contradicted: tuple[Tag, ...] = ()
    """Dropped tags that one label gives and another denies."""


class Vocabulary(TagTable):
    """A table of tags, with methods that find tags by label, text or relation to other tags."""

    @property
    def tags(self) -> tuple[Tag, ...]:
        """Return all tags, including group tags, which no question asks about."""
        return tuple(self.parents)

    def meaning(self, label: str, category: str = "") -> LabelMeaning | None:
        """Return the meaning of a label; None if the label is unknown.

        `category` is the label's category in the data set. If the label means tags of this and
        other categories, only the tags of this category are returned.
        """
        key = label_key(label)
        meaning = self.meanings.get(key) or self._meanings_without_spaces.get(key.replace(" ", ""))
        if meaning is not None:
            selected = tuple(tag for tag in meaning.tags if tag.category == category)
            return meaning._replace(tags=selected or meaning.tags)
        first, _, rest = key.partition(" ")
        return self.negated_meaning(rest, category) if first in NEGATIONS and rest else None

    def negated_meaning(self, label: str, category: str = "") -> LabelMeaning | None:
        """Return the meaning of "no `label`"; None if the label or its denial is unclear.

        The denial is unclear for a label of several words and tags ("passionate male vocal").
        """
        meaning = self.meaning(label, category)
        if meaning is None or meaning.only or (len(meaning.tags) > 1 and " " in label_key(label)):
            return None
        return meaning._replace(tags=meaning.denied, denied=meaning.tags)

    def ancestors(self, tag: Tag) -> frozenset[Tag]:
        """Return the parents of a tag, the parents of its parents, and so on."""
        return self._ancestors.get(tag, frozenset())

    def descendants(self, tag: Tag) -> frozenset[Tag]:
        """Return all tags that have `tag` as an ancestor."""
        return self._descendants.get(tag, frozenset())

    def with_ancestors(self, tags: Iterable[Tag]) -> frozenset[Tag]:
        """Return the given tags and all their ancestors."""
        tags = frozenset(tags)
        return tags.union(*map(self.ancestors, tags))

    def relatives(self, tag: Tag) -> frozenset[Tag]:
        """Return a tag together with its ancestors and descendants."""
        return self._relatives.get(tag, frozenset((tag,)))

    def related(self, a: Tag, b: Tag) -> bool:
        """Return whether two tags are equal or one is an ancestor of the other."""
        return b in self.relatives(a)

    def share_label(self, a: Tag, b: Tag) -> bool:
        """Return whether one label means both tags: "male choir" means choir and male voice."""
        return b in self._label_partners.get(a, ())

    def near(self, a: Tag, b: Tag) -> bool:
        """Return whether two unrelated tags of one category share a parent or grandparent."""
        if a.category != b.category or self.related(a, b):
            return False
        parents = self._two_generations
        return not parents.get(a, frozenset()).isdisjoint(parents.get(b, ()))

    def branch(self, tag: Tag) -> Tag:
        """Return the tag at the top of the chain of first parents, which may be `tag` itself."""
        parents = self.parents.get(tag)
        return self.branch(parents[0]) if parents else tag

    def askable(self, tag: Tag) -> bool:
        """Return whether questions may ask about a tag: it is in the vocabulary and not a group."""
        return tag in self.parents and tag not in self.groups

    def finest(self, tags: Iterable[Tag]) -> tuple[Tag, ...]:
        """Return the given tags that are not ancestors of other given tags."""
        tags = tuple(tags)
        ancestors = frozenset[Tag]().union(*map(self.ancestors, tags))
        return tuple(tag for tag in tags if tag not in ancestors)

    def named(self, text: str) -> frozenset[Tag]:
        """Return the tags whose labels occur in a text as whole words, and their ancestors.

        May return too many tags: "bass drum" also gives the bass.
        """
        return _named(self, text)

    def mentions(self, text: str, tag: Tag) -> bool:
        """Return whether a text names a tag or one of its descendants, according to `named`."""
        return tag in _named(self, text)

    def phrase(self, tag: Tag) -> str:
        """Return the wording of a tag in a sentence: "a piano", "drums", "sad"."""
        if tag in self.phrases:
            return self.phrases[tag]
        name = tag.name
        if tag.category in BARE_CATEGORIES or (name.endswith("s") and not name.endswith("ss")):
            return name
        return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"

    def option_text(self, tag: Tag) -> str:
        """Return the text of a tag as a multiple-choice option: "Piano", "Slow tempo"."""
        return _option_text(tag)

    @cached_property
    def _ancestors(self) -> dict[Tag, frozenset[Tag]]:
        ancestors: dict[Tag, frozenset[Tag]] = {}

        def collect(tag: Tag) -> frozenset[Tag]:
            if tag not in ancestors:
                parents = self.parents[tag]
                ancestors[tag] = frozenset(parents).union(*map(collect, parents))
            return ancestors[tag]

        for tag in self.parents:
            collect(tag)
        return ancestors

    @cached_property
    def _descendants(self) -> dict[Tag, frozenset[Tag]]:
        descendants: dict[Tag, set[Tag]] = {tag: set() for tag in self.parents}
        for tag, ancestors in self._ancestors.items():
            for ancestor in ancestors:
                descendants[ancestor].add(tag)
        return {tag: frozenset(below) for tag, below in descendants.items()}

    @cached_property
    def _label_partners(self) -> dict[Tag, frozenset[Tag]]:
        partners: dict[Tag, set[Tag]] = {}
        for meaning in self.meanings.values():
            for tag in meaning.tags:
                partners.setdefault(tag, set()).update(meaning.tags)
        return {tag: frozenset(others - {tag}) for tag, others in partners.items()}

    @cached_property
    def _relatives(self) -> dict[Tag, frozenset[Tag]]:
        return {
            tag: frozenset((tag,)) | self.ancestors(tag) | self.descendants(tag)
            for tag in self.parents
        }

    @cached_property
    def _two_generations(self) -> dict[Tag, frozenset[Tag]]:
        """The parents and grandparents of each tag."""
        return {
            tag: frozenset(parents).union(*(self.parents[parent] for parent in parents))
            for tag, parents in self.parents.items()
        }

    @cached_property
    def _meanings_without_spaces(self) -> dict[str, LabelMeaning]:
        """Meanings by label without spaces; if labels then are equal, the first one counts."""
        return {key.replace(" ", ""): self.meanings[key] for key in reversed(self.meanings)}

    @cached_property
    def _max_words(self) -> int:
        return max((key.count(" ") + 1 for key in self.meanings), default=0)


@cache  # a question compares hundreds of options
def _option_text(tag: Tag) -> str:
    text = f"{tag.name} tempo" if tag.category == "tempo" else tag.name
    return text[0].upper() + text[1:]


@lru_cache(maxsize=4096)  # one caption is looked up hundreds of times in a row
def _named(vocabulary: Vocabulary, text: str) -> frozenset[Tag]:
    words = words_of(text)
    tags: set[Tag] = set()
    for start in range(len(words)):
        for end in range(start + 1, min(start + vocabulary._max_words, len(words)) + 1):
            meaning = vocabulary.meanings.get(" ".join(words[start:end]))
            if meaning is not None:
                tags.update(meaning.tags)
    return vocabulary.with_ancestors(tags)


def read_vocabulary(extra: Path | None = None) -> Vocabulary:
    """Return the built-in vocabulary with a user's extra tags; raise `InputError` if malformed."""
    return Vocabulary(**vars(read_table([BUILT_IN] if extra is None else [BUILT_IN, extra])))


def frequent_labels(clips: Iterable[AnnotatedClip], minimum: int) -> frozenset[str]:
    """Return the labels that occur at least `minimum` times over all clips."""
    counts = Counter(label for clip in clips for _, label, _ in _labels(clip))
    return frozenset(label for label, count in counts.items() if count >= minimum)


def _labels(clip: AnnotatedClip) -> Iterator[tuple[str, str, bool]]:
    """Yield each label of a clip as (category, label, whether the clip denies the label)."""
    for tags, denied in ((clip.tags, False), (clip.denied, True)):
        for category, labels in tags.items():
            yield from ((category, label, denied) for label in labels)


def normalize_clip(
    clip: AnnotatedClip, vocabulary: Vocabulary, frequent: frozenset[str] | None = None
) -> NormalizedClip:
    """Replace a clip's labels by tags of the vocabulary.

    Unknown labels are dropped. If `frequent` is not None, labels that are not in it are dropped
    too. A label that denies a tag also denies the tag's descendants. A tag that is both given and
    denied is dropped.

    Dropped tags, and tags named in dropped labels, become ambiguous: neither given nor denied. A
    category is exhaustive (has every tag that applies) if the data set says so. The instruments are
    also exhaustive if a label says that nothing else plays or sings. A category with a dropped
    label or an ambiguous tag is never exhaustive.
    """
    meanings: list[LabelMeaning] = []
    unknown: dict[str, None] = {}
    dropped: dict[str, str] = {}
    rare = 0
    for category, label, is_denied in _labels(clip):
        look_up = vocabulary.negated_meaning if is_denied else vocabulary.meaning
        meaning = look_up(label, category)
        if frequent is not None and label not in frequent:
            rare += 1
            dropped[label] = category
        elif meaning is None:
            unknown[label] = None
            dropped[label] = category
        else:
            meanings.append(meaning)
    tags, denied, contradicted = _resolve(meanings, vocabulary)
    ambiguous = {tag for label in dropped for tag in vocabulary.named(label)}
    ambiguous = (ambiguous - vocabulary.with_ancestors(tags)).union(contradicted)
    incomplete = {*dropped.values(), *(tag.category for tag in ambiguous)}
    # "No other instruments" says nothing if none of the clip's instruments is known.
    has_instrument = any(tag.category == "instrument" for tag in tags)
    only_voice = any(m.only and any(tag.category == "voice" for tag in m.tags) for m in meanings)
    only = only_voice or (has_instrument and any(meaning.only for meaning in meanings))
    exhaustive = {*clip.exhaustive, *(["instrument"] if only else [])} - incomplete
    normalized = replace(
        clip,
        tags=by_category(tags),
        denied=by_category(denied),
        ambiguous=by_category(ambiguous),
        exhaustive=tuple(name for name in CATEGORIES if name in exhaustive),
    )
    return NormalizedClip(normalized, tuple(unknown), rare, contradicted)


def _resolve(
    meanings: Iterable[LabelMeaning], vocabulary: Vocabulary
) -> tuple[set[Tag], set[Tag], tuple[Tag, ...]]:
    """Return the given tags, the denied tags, and the tags dropped because they were both."""
    meanings = tuple(meanings)
    plain = {tag for meaning in meanings if not meaning.denied for tag in meaning.tags}
    tags, denied = set(plain), set[Tag]()
    for meaning in meanings:
        below = set(meaning.denied).union(*map(vocabulary.descendants, meaning.denied))
        denied |= below
        # "Instrumental" is ignored for a clip in which somebody sings.
        if below and below.isdisjoint(plain):
            tags.update(meaning.tags)
    implied = vocabulary.with_ancestors(tags)
    return tags - denied, denied - implied, tuple(sorted(implied & denied))


def by_category(tags: Iterable[Tag]) -> Tags:
    """Return the sorted names of the tags in each category."""
    ordered = sorted(tags)
    names = {c: tuple(tag.name for tag in ordered if tag.category == c) for c in CATEGORIES}
    return {category: group for category, group in names.items() if group}


def flatten_tags(tags: Tags) -> tuple[Tag, ...]:
    """Return the tags in a mapping from categories to tag names; inverse of `by_category`."""
    return tuple(Tag(category, name) for category, names in tags.items() for name in names)
