"""Tags that a clip does not have, with the evidence: a missing tag alone is not a "no"."""

from collections.abc import Set
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.questions.seeded_choice import SIZE, hash_int
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics, implied_tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags

DENIED, EXHAUSTIVE, OTHER_BRANCH = "denied", "exhaustive", "other branch"

INFERRED_CATEGORIES = ("instrument", "genre", "mood", "tempo", "voice")
"""Categories in which absence may be inferred from co-occurrence. Production and function are left
untagged too often."""

INDEPENDENT_CATEGORIES = ("voice",)
"""Categories in which one label combines independent tags ("male rap")."""

MIN_EXPECTED = 3.0
"""Number of clips with both tags expected under independence, from which on their never occurring
together is evidence."""


class Negative(NamedTuple):
    """A tag that a clip does not have."""

    tag: Tag
    evidence: str
    """`DENIED`: the source says so. `EXHAUSTIVE`: the source names everything of this category.
    `OTHER_BRANCH`: inferred. No clip has it together with any of this clip's tags, though
    `MIN_EXPECTED` are expected; it shares no family with them, and no caption names it."""


def is_unrelated(clip: AnnotatedClip, tag: Tag, vocabulary: Vocabulary) -> bool:
    """Returns whether nothing about a clip suggests a tag.

    The tag is not related to one of the clip's, not ambiguous, not named by a caption, and no label
    means it together with one of the clip's tags: a drum kit may include a snare drum.
    """
    tags = flatten_tags(clip.tags)
    related = any(vocabulary.related(tag, other) for other in tags)
    if tag.category not in INDEPENDENT_CATEGORIES:
        same_category = (other for other in tags if other.category == tag.category)
        related = related or any(vocabulary.share_label(tag, other) for other in same_category)
    ambiguous = tag.name in clip.ambiguous.get(tag.category, ())
    named = any(vocabulary.mentions(caption, tag) for caption in clip.captions)
    return not (related or ambiguous or named)


def draw_negatives(
    clip: AnnotatedClip, limit: int, statistics: TagStatistics, vocabulary: Vocabulary, seed: int
) -> list[Negative]:
    """Draws tags that a clip does not have, at most `limit`, weighted by frequency.

    At least half are certain (denied or exhaustive), if there are enough.
    """

    def order(negative: Negative) -> float:
        # Weighted sampling without replacement (Efraimidis and Spirakis 2006).
        key = (seed, "negative", clip.source, clip.clip, negative.tag)
        uniform = (hash_int(*key) + 1) / SIZE
        return -(uniform ** (1 / statistics.clips.get(negative.tag, 1)))

    certain = _certain(clip, statistics, vocabulary)
    inferred = _inferred(clip, {one.tag for one in certain}, statistics, vocabulary)
    drawn: list[Negative] = []
    for negatives, quota in ((certain, (limit + 1) // 2), (inferred, limit)):
        for negative in sorted(negatives, key=order):
            if len(drawn) >= quota:
                break
            if is_unrelated(clip, negative.tag, vocabulary):
                drawn.append(negative)
    return drawn


def _certain(
    clip: AnnotatedClip, statistics: TagStatistics, vocabulary: Vocabulary
) -> list[Negative]:
    denied, implied = set(flatten_tags(clip.denied)), implied_tags(clip, vocabulary)
    negatives = []
    for tag in filter(vocabulary.askable, statistics.clips):
        if tag in denied:
            negatives.append(Negative(tag, DENIED))
        elif tag.category in clip.exhaustive and tag not in implied:
            negatives.append(Negative(tag, EXHAUSTIVE))
    return negatives


def _inferred(
    clip: AnnotatedClip, certain: Set[Tag], statistics: TagStatistics, vocabulary: Vocabulary
) -> list[Negative]:
    tags = flatten_tags(clip.tags)
    if not tags:
        return []
    cooccurring = frozenset().union(*(statistics.together[tag] for tag in tags))
    branches = {vocabulary.branch(tag) for tag in tags}
    share = sum(statistics.clips[tag] for tag in tags) / statistics.total
    return [
        Negative(tag, OTHER_BRANCH)
        for tag in filter(vocabulary.askable, statistics.clips)
        if tag.category in INFERRED_CATEGORIES
        and statistics.clips[tag] * share >= MIN_EXPECTED
        and tag not in cooccurring
        and tag not in certain
        and vocabulary.branch(tag) not in branches
    ]
