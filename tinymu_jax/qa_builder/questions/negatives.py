"""Tags that a clip does not have, and how that is known: a missing tag is not a "no"."""

from collections.abc import Iterator, Set
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.questions.seeded_choice import SIZE, hash_int
from tinymu_jax.qa_builder.tags.cooccurrence import Statistics, implied_tags, own_tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary

DENIED, EXHAUSTIVE, OTHER_BRANCH = "denied", "exhaustive", "other branch"

LIKELY = ("instrument", "genre", "mood", "tempo", "voice")
"""Categories in which a tag that never occurs beside others is likely not there. How music is made
and what it is for is left unsaid too often."""

APART = ("voice",)
"""Categories in which one label says two things that need not come together: men who rap."""

EXPECTED = 3.0
"""So many clips with a tag and one of a clip's tags would there be, if chance put them together,
before it means anything that there is none."""


class Negative(NamedTuple):
    """A tag that a clip does not have."""

    tag: Tag
    evidence: str
    """`DENIED`: its source says so. `EXHAUSTIVE`: its source names everything of this category.
    `OTHER_BRANCH`: no clip has it together with any of this clip's tags, though `EXPECTED` would
    by chance; it belongs to none of their families, and no caption names it: no more than
    likely."""


def named_in_captions(clip: AnnotatedClip, tag: Tag, vocabulary: Vocabulary) -> bool:
    """Returns whether a caption names a tag."""
    return any(vocabulary.mentions(caption, tag) for caption in clip.captions)


def fits_nowhere(clip: AnnotatedClip, tag: Tag, vocabulary: Vocabulary) -> bool:
    """Returns whether a tag has nothing to do with a clip.

    It is neither one of the clip's, nor above or below one, nor one that it may have, nor named by
    a caption; nor does a label mean it with one of the clip's: a drum kit may have a snare drum.
    """
    own = own_tags(clip)
    related = any(vocabulary.related(tag, one) for one in own)
    if tag.category not in APART:
        same = (one for one in own if one.category == tag.category)
        related = related or any(vocabulary.alike(tag, one) for one in same)
    ambiguous = tag.name in clip.ambiguous.get(tag.category, ())
    return not related and not ambiguous and not named_in_captions(clip, tag, vocabulary)


def draw_negatives(
    clip: AnnotatedClip, most: int, statistics: Statistics, vocabulary: Vocabulary, seed: int
) -> list[Negative]:
    """Draws tags that a clip does not have, frequent ones more often.

    Half of them at least are those that are known for certain, if there are as many.

    Args:
        clip: with the vocabulary's names.
        most: how many at most.
        statistics: of all clips.
        vocabulary: what is asked about.
        seed: of the build.
    """
    found: list[Negative] = []
    certain = _certain(clip, statistics, vocabulary)
    likely = _likely(clip, {one.tag for one in certain}, statistics, vocabulary)
    for negatives, limit in ((certain, (most + 1) // 2), (likely, most)):
        ordered = sorted(negatives, key=lambda one: _late(one.tag, clip, statistics, seed))
        for negative in ordered:
            if len(found) >= limit:
                break
            if fits_nowhere(clip, negative.tag, vocabulary):
                found.append(negative)
    return found


def _late(tag: Tag, clip: AnnotatedClip, statistics: Statistics, seed: int) -> float:
    """Returns a number by which frequent tags come early, as often as their share says."""
    chance = (hash_int(seed, "negative", clip.source, clip.clip, tag) + 1) / SIZE
    return -(chance ** (1 / statistics.clips.get(tag, 1)))


def _askable(statistics: Statistics, vocabulary: Vocabulary) -> Iterator[Tag]:
    """Yields the tags that can be asked about and that some clip has."""
    return (tag for tag in statistics.clips if vocabulary.askable(tag))


def _certain(clip: AnnotatedClip, statistics: Statistics, vocabulary: Vocabulary) -> list[Negative]:
    denied = {Tag(category, name) for category, names in clip.denied.items() for name in names}
    implied = implied_tags(clip, vocabulary)
    found = []
    for tag in _askable(statistics, vocabulary):
        if tag in denied:
            found.append(Negative(tag, DENIED))
        elif tag.category in clip.exhaustive and tag not in implied:
            found.append(Negative(tag, EXHAUSTIVE))
    return found


def _likely(
    clip: AnnotatedClip, certain: Set[Tag], statistics: Statistics, vocabulary: Vocabulary
) -> list[Negative]:
    own = own_tags(clip)
    if not own:
        return []
    beside = frozenset().union(*(statistics.together[tag] for tag in own))
    branches = {vocabulary.branch(tag) for tag in own}
    chance = sum(statistics.clips[tag] for tag in own) / statistics.total
    return [
        Negative(tag, OTHER_BRANCH)
        for tag in _askable(statistics, vocabulary)
        if tag.category in LIKELY
        and statistics.clips[tag] * chance >= EXPECTED
        and tag not in beside
        and tag not in certain
        and vocabulary.branch(tag) not in branches
    ]
