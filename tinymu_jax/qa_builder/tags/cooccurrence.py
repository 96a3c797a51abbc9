"""How often tags occur in a set of clips, and with which others."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary


class Statistics(NamedTuple):
    """Of clips whose tags the vocabulary has named."""

    clips: Mapping[Tag, int]
    """In how many clips a tag, or one below it, occurs."""
    together: Mapping[Tag, Mapping[Tag, int]]
    """In how many clips other tags occur with it, those that do in some; itself among them."""
    total: int
    """Clips in all."""


def own_tags(clip: AnnotatedClip) -> tuple[Tag, ...]:
    """Returns a clip's tags."""
    return tuple(Tag(category, name) for category, names in clip.tags.items() for name in names)


def implied_tags(clip: AnnotatedClip, vocabulary: Vocabulary) -> frozenset[Tag]:
    """Returns a clip's tags and all above them: an electric guitar is a guitar."""
    own = own_tags(clip)
    return frozenset(own).union(*(vocabulary.ancestors(tag) for tag in own))


def count_tags(implied: Iterable[frozenset[Tag]]) -> Statistics:
    """Counts over clips, each given by its `implied_tags`."""
    clips: Counter[Tag] = Counter()
    together: dict[Tag, Counter[Tag]] = {}
    # Sets of tags repeat: each is gone through once.
    counted = Counter(implied)
    for tags, times in counted.items():
        for tag in tags:
            clips[tag] += times
            together.setdefault(tag, Counter()).update(dict.fromkeys(tags, times))
    # In order, whatever order the clips came in: what is drawn from them must be the same.
    beside = {tag: dict(others) for tag, others in together.items()}
    return Statistics(dict(sorted(clips.items())), beside, counted.total())
