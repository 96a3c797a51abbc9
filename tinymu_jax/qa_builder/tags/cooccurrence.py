"""Count the clips that have a tag, and the clips that have two tags together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags


class TagStatistics(NamedTuple):
    """Numbers of clips in total, by tag, and by pair of tags."""

    clips: Mapping[Tag, int]
    """Number of clips that have the tag or a descendant of the tag."""
    together: Mapping[Tag, Mapping[Tag, int]]
    """`together[a][b]`: number of clips with both tags, if not zero; `b` may be `a`."""
    total: int


def implied_tags(clip: AnnotatedClip, vocabulary: Vocabulary) -> frozenset[Tag]:
    """Return a clip's tags and all their ancestors: an electric guitar is also a guitar."""
    return vocabulary.with_ancestors(flatten_tags(clip.tags))


def count_tags(implied: Iterable[frozenset[Tag]]) -> TagStatistics:
    """Count tags and pairs of tags over clips; `implied` has each clip's `implied_tags`."""
    clips: Counter[Tag] = Counter()
    together: dict[Tag, Counter[Tag]] = {}
    # Many clips have the same set of tags: each distinct set is processed once.
    counted = Counter(implied)
    for tags, times in counted.items():
        for tag in tags:
            clips[tag] += times
            together.setdefault(tag, Counter()).update(dict.fromkeys(tags, times))
    # Tags are sorted, so that random draws do not depend on the order of the clips.
    plain = {tag: dict(others) for tag, others in together.items()}
    return TagStatistics(dict(sorted(clips.items())), plain, counted.total())
