"""Multiple choice with distractors of MuChoMusic's kinds (arXiv 2408.01337, section 3).

near           a tag of the category that is much like the right one: incorrect but related
far            a tag of the category that is not: incorrect
off the question   a tag that the clip has, of another category: true, and no answer

What no source says of a clip may be true of it all the same. Therefore no wrong option is a tag
that often goes with one of the clip's own, nor a more frequent one that labels mean together with
the right one: who tells of vocal harmony may leave unsaid that women sing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.question_formats import LETTERS, MCQ
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.negatives import fits_nowhere
from tinymu_jax.qa_builder.questions.seeded_choice import (
    hash_choice,
    hash_int,
    pick_weighted,
    shuffled,
)
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.cooccurrence import Statistics, own_tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary

RIGHT, NEAR, FAR, OFF = "right", "near", "far", "off the question"

POWER = 0.75
"""Tags are drawn by this power of their frequency, the right ones as the wrong ones: no tag is
right more often than chance where it is offered."""

LIKE = 0.3
"""By how much of the right option's length those of the others may differ."""

OFTEN = 2.0
"""So many times as often as by chance two tags are found together that go with each other."""

FEWEST = 3
"""Clips with both from which on that means anything."""

TOLD = ("instrument", "tempo", "voice")
"""Categories whose tags a caption names where they are there; moods and genres are left unsaid."""

BLURRED = ("mood",)
"""Categories whose near tags are much the same: what is aggressive is also powerful."""

CONFUSED: Mapping[str, tuple[str, ...]] = {
    "instrument": ("production", "voice"),
    "genre": ("production", "function"),
    "mood": ("production", "rhythm"),
    "voice": ("production", "mood"),
    "rhythm": ("production", "mood", "tempo"),
    "production": ("instrument", "mood", "tempo", "voice", "rhythm"),
    "function": ("genre",),
}
"""Categories whose tags might pass for an answer to a question about another: a recording sounds
reverberant, and also aggressive, or slow. None of them is off the question."""

LETTER_SHARE = 6
"""One question in so many asks for the letter alone."""


class _Distractor(NamedTuple):
    tag: Tag
    kind: str


def choices(
    clip: AnnotatedClip,
    statistics: Statistics,
    vocabulary: Vocabulary,
    templates: Templates,
    config: BuildConfig,
) -> Iterator[QAItem]:
    """Yields a question for each tag of a clip for which three distractors are found."""
    own = own_tags(clip)

    @cache  # each is asked for by all questions of its category
    def is_wrong(tag: Tag) -> bool:
        told = clip.captions and tag.category in TOLD
        blurred = tag.category in BLURRED and any(vocabulary.near(tag, one) for one in own)
        likely = blurred or (not told and _goes_with(tag, own, statistics))
        return not likely and fits_nowhere(clip, tag, vocabulary)

    for right in own:
        about = (config.seed, MCQ, clip.source, clip.clip, *right)
        if not vocabulary.askable(right):
            continue
        pools = _pools(own, right, is_wrong, statistics, vocabulary)
        others = _draw_others(right, pools, statistics, vocabulary, about)
        if len(others) == len(LETTERS) - 1:
            yield _write(clip, right, others, vocabulary, templates, about)


def _goes_with(tag: Tag, own: Sequence[Tag], statistics: Statistics) -> bool:
    """Returns whether a tag is often found with one of a clip's own tags of its category."""
    for other in own:
        both = statistics.together[tag].get(other, 0) if other.category == tag.category else 0
        chance = statistics.clips[tag] * statistics.clips[other] / statistics.total
        if both >= FEWEST and both >= OFTEN * chance:
            return True
    return False


def _draw_others(
    right: Tag,
    pools: Mapping[str, Sequence[Tag]],
    statistics: Statistics,
    vocabulary: Vocabulary,
    about: Sequence[object],
) -> list[_Distractor]:
    """Draws three distractors of like length; fewer where there are no more.

    How many of them are shorter than the right option is drawn first, so that neither the shortest
    nor the longest is right more often than any other.
    """
    length = len(vocabulary.option_text(right))
    shorter = hash_int(*about, "shorter") % len(LETTERS)
    sides = [number < shorter for number in shuffled(range(3), *about, "sides")]
    found: list[_Distractor] = []
    for number, (kind, below) in enumerate(zip((NEAR, FAR, OFF), sides, strict=True)):
        one = _draw_one(kind, below, length, pools, found, statistics, vocabulary, (*about, number))
        if one is not None:
            found.append(one)
    return found


def _pools(
    own: Sequence[Tag],
    right: Tag,
    is_wrong: Callable[[Tag], bool],
    statistics: Statistics,
    vocabulary: Vocabulary,
) -> dict[str, list[Tag]]:
    """Returns the distractors of each kind that have about the length of the right option."""
    length = len(vocabulary.option_text(right))

    def fits(tag: Tag) -> bool:
        like = abs(len(vocabulary.option_text(tag)) - length) <= LIKE * length
        # A rarer tag that goes with the right one is still mostly not there.
        own_sort = tag.category == right.category and times[tag] < times[right]
        return like and vocabulary.askable(tag) and (own_sort or not vocabulary.alike(tag, right))

    times = statistics.clips
    apart = (right.category, *CONFUSED.get(right.category, ()))
    wrong = [t for t in times if t.category == right.category and fits(t) and is_wrong(t)]
    return {
        NEAR: [tag for tag in wrong if vocabulary.near(tag, right)],
        FAR: [tag for tag in wrong if not vocabulary.near(tag, right)],
        OFF: [tag for tag in own if tag.category not in apart and fits(tag)],
    }


def _draw_one(
    kind: str,
    below: bool,
    length: int,
    pools: Mapping[str, Sequence[Tag]],
    taken: Sequence[_Distractor],
    statistics: Statistics,
    vocabulary: Vocabulary,
    about: Sequence[object],
) -> _Distractor | None:
    """Draws a distractor of a kind on a side of the right option's length.

    Where there is none, one that is as long is taken, then one of the next kind, and in the end one
    on the other side.
    """
    texts = {vocabulary.option_text(one.tag) for one in taken}
    kinds = [kind, *(other for other in (FAR, NEAR) if other != kind)]
    on_side, other_side = (-1, 1) if below else (1, -1)
    for sides in ((on_side, 0), (other_side,)):
        for own, side in product(kinds, sides):
            pool = [tag for tag in pools[own] if vocabulary.option_text(tag) not in texts]
            sizes = {tag: len(vocabulary.option_text(tag)) for tag in pool}
            pool = [t for t in pool if (sizes[t] > length) - (sizes[t] < length) == side]
            if pool:
                weights = [statistics.clips[tag] ** POWER for tag in pool]
                return _Distractor(pick_weighted(pool, weights, *about, own), own)
    return None


def _write(
    clip: AnnotatedClip,
    right: Tag,
    others: Sequence[_Distractor],
    vocabulary: Vocabulary,
    templates: Templates,
    about: Sequence[object],
) -> QAItem:
    """Returns the question with its options in any order."""
    shown = [(vocabulary.option_text(one.tag), one.kind) for one in others]
    shown.insert(hash_int(*about, "place") % len(LETTERS), (vocabulary.option_text(right), RIGHT))
    texts, kinds = zip(*shown, strict=True)
    listed = " ".join(f"({x}) {text}" for x, text in zip(LETTERS, texts, strict=True))
    question = hash_choice(templates.of("choice", right.category), *about, "wording")
    letter = LETTERS[kinds.index(RIGHT)]
    answer = f"({letter}) {texts[kinds.index(RIGHT)]}"
    if hash_int(*about, "letter") % LETTER_SHARE == 0:
        question = f"{question} {hash_choice(templates.of('letter'), *about, 'letter wording')}"
        answer = letter
    prompt = f"Question: {question} Options: {listed}. The correct answer is:"
    return QAItem(
        clip,
        MCQ,
        prompt,
        answer,
        right.category,
        (right.name,),
        texts,
        kinds,
        key=hash_int(*about),
    )
