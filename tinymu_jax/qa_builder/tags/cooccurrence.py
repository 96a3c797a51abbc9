"""Frequencies of tags in a set of clips, alone and together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags


class TagStatistics(NamedTuple):
    """Counts over clips with tags of the vocabulary."""

    clips: Mapping[Tag, int]
    """Number of clips with a tag or a descendant of it."""
    together: Mapping[Tag, Mapping[Tag, int]]
    """Number of clips with both tags, where it is not zero; includes the tag itself."""
    total: int
    """Number of clips."""


def implied_tags(clip: AnnotatedClip, vocabulary: Vocabulary) -> frozenset[Tag]:
    """Returns a clip's tags and their ancestors: an electric guitar is a guitar."""
    return vocabulary.with_ancestors(flatten_tags(clip.tags))


def count_tags(implied: Iterable[frozenset[Tag]]) -> TagStatistics:
    """Counts tags over clips, each given by its `implied_tags`."""
    clips: Counter[Tag] = Counter()
    together: dict[Tag, Counter[Tag]] = {}
    # Many clips have the same set of tags: each set is processed once.
    counted = Counter(implied)
    for tags, times in counted.items():
        for tag in tags:
            clips[tag] += times
            together.setdefault(tag, Counter()).update(dict.fromkeys(tags, times))
    # Sorted, so that draws do not depend on the order of the clips.
    plain = {tag: dict(others) for tag, others in together.items()}
    return TagStatistics(dict(sorted(clips.items())), plain, counted.total())
