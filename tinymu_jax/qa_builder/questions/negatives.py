"""Find tags that a clip does not have, with evidence: a missing tag alone is not a "no"."""

from collections.abc import Set
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.questions.seeded_choice import SIZE, hash_int
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics, implied_tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags

DENIED, EXHAUSTIVE, OTHER_BRANCH = "denied", "exhaustive", "other branch"
INFERRED_CATEGORIES = ("instrument", "genre", "mood", "tempo", "voice")
"""Categories in which co-occurrence can show that a tag is absent. In other categories, many clips
lack tags that apply to them."""
INDEPENDENT_CATEGORIES = ("voice",)
"""Categories in which one label may combine independent tags ("male rap")."""
MIN_EXPECTED = 3.0
"""Missing co-occurrence of two tags is evidence only if chance predicts this many clips or more."""


class Negative(NamedTuple):
    """A tag that a clip does not have."""

    tag: Tag
    evidence: str
    """`DENIED`: the data set denies the tag. `EXHAUSTIVE`: the data set names all tags of the
    category. `OTHER_BRANCH`: inferred, because no clip has both this tag and a tag of the clip,
    although chance predicts `MIN_EXPECTED` clips or more. The tag is also in another family than
    the clip's tags, and no caption names it."""


def is_unrelated(clip: AnnotatedClip, tag: Tag, vocabulary: Vocabulary) -> bool:
    """Return whether nothing in a clip's annotations suggests that a tag applies to the clip.

    An unrelated tag is not related to a tag of the clip, not ambiguous and not named in a caption.
    Unless its category is in `INDEPENDENT_CATEGORIES`, it also shares no label (see
    `Vocabulary.share_label`) with a tag of the clip from the same category.
    """
    tags = flatten_tags(clip.tags)
    related = not vocabulary.relatives(tag).isdisjoint(tags)
    if tag.category not in INDEPENDENT_CATEGORIES:
        same_category = (other for other in tags if other.category == tag.category)
        related = related or any(vocabulary.share_label(tag, other) for other in same_category)
    ambiguous = tag.name in clip.ambiguous.get(tag.category, ())
    named = any(vocabulary.mentions(caption, tag) for caption in clip.captions)
    return not (related or ambiguous or named)


def draw_negatives(
    clip: AnnotatedClip, limit: int, statistics: TagStatistics, vocabulary: Vocabulary, seed: int
) -> list[Negative]:
    """Draw at most `limit` tags that a clip does not have; frequent tags are more probable.

    At most half of the tags have certain evidence (`DENIED` or `EXHAUSTIVE`). The evidence of the
    other tags is inferred (`OTHER_BRANCH`).
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
