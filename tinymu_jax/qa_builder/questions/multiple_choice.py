"""Multiple-choice questions with MuChoMusic's kinds of distractors (arXiv 2408.01337, section 3).

right              the right option, a tag of the clip
near               distractor: a wrong tag of the same category, similar to the right tag
far                distractor: any other wrong tag of the same category
off the question   distractor: a tag of the clip from another category, true, but not an answer

A tag may apply to a clip although no data set says so. Tags that often occur together with a tag of
the clip are therefore not used as wrong tags.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.question_formats import LETTERS, MCQ
from tinymu_jax.qa_builder.context import BuildContext
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.negatives import is_unrelated
from tinymu_jax.qa_builder.questions.seeded_choice import (
    hash_choice,
    hash_int,
    shuffled,
    weighted_choice,
)
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags

RIGHT, NEAR, FAR, OFF = "right", "near", "far", "off the question"
FREQUENCY_POWER = 0.75
"""Distractors are drawn by frequency ** 0.75, so that tags are right about as often as wrong."""
LENGTH_TOLERANCE = 0.3
"""Maximum length difference of a distractor, as a fraction of the right option's length."""
MIN_LIFT = 2.0
"""Two tags go together only if this many times more clips have both than expected by chance."""
MIN_COOCCURRENCES = 3
"""Two tags go together only if at least this many clips have both."""
CAPTIONED_CATEGORIES = ("instrument", "tempo", "voice")
"""Categories of which captions name all tags; captions often leave out moods and genres."""
BLURRED_CATEGORIES = ("mood",)
"""Categories in which near tags are nearly synonyms: "aggressive" music is also "powerful"."""
CONFUSABLE: Mapping[str, tuple[str, ...]] = {
    "instrument": ("production", "voice"),
    "genre": ("production", "function"),
    "mood": ("production", "rhythm"),
    "voice": ("production", "mood"),
    "rhythm": ("production", "mood", "tempo"),
    "production": ("instrument", "mood", "tempo", "voice", "rhythm"),
    "function": ("genre",),
}
"""By category of a question: other categories whose tags could also answer it, and therefore are no
`OFF` options. A sound may be "reverberant", but also "aggressive" or "slow"."""
LETTER_ONLY_RATE = 6
"""One in this many questions asks only for the letter of the right option."""


class _Distractor(NamedTuple):
    tag: Tag
    kind: str


def choices(
    clip: AnnotatedClip, statistics: TagStatistics, context: BuildContext
) -> Iterator[QAItem]:
    """Yield a multiple-choice question about each tag of a clip, if three distractors exist."""
    vocabulary, tags = context.vocabulary, flatten_tags(clip.tags)

    @cache  # questions about one category test the same tags
    def is_wrong(tag: Tag) -> bool:
        captioned = clip.captions and tag.category in CAPTIONED_CATEGORIES
        blurred = tag.category in BLURRED_CATEGORIES and any(vocabulary.near(tag, t) for t in tags)
        plausible = blurred or (not captioned and _goes_with(tag, tags, statistics))
        return not plausible and is_unrelated(clip, tag, vocabulary)

    for right in filter(vocabulary.askable, tags):
        key = (context.config.seed, MCQ, clip.source, clip.clip, *right)
        pools = _pools(tags, right, is_wrong, statistics, vocabulary)
        distractors = _draw_distractors(right, pools, statistics, vocabulary, key)
        if len(distractors) == len(LETTERS) - 1:
            yield _question(clip, right, distractors, context, key)


def _goes_with(tag: Tag, tags: Sequence[Tag], statistics: TagStatistics) -> bool:
    """Return whether a tag often occurs together with a tag in `tags` of the same category."""
    for other in tags:
        both = statistics.together[tag].get(other, 0) if other.category == tag.category else 0
        expected = statistics.clips[tag] * statistics.clips[other] / statistics.total
        if both >= MIN_COOCCURRENCES and both >= MIN_LIFT * expected:
            return True
    return False


def _pools(
    tags: Sequence[Tag],
    right: Tag,
    is_wrong: Callable[[Tag], bool],
    statistics: TagStatistics,
    vocabulary: Vocabulary,
) -> dict[str, list[Tag]]:
    """Return the possible distractors of each kind, which are about as long as the right option.

    `tags` are the tags of the clip; `is_wrong` tells whether a tag does not apply to the clip.
    """
    length, frequency = len(vocabulary.option_text(right)), statistics.clips

    def fits(tag: Tag) -> bool:
        difference = abs(len(vocabulary.option_text(tag)) - length)
        # A rarer tag that shares a label with the right tag mostly does not apply.
        rarer = tag.category == right.category and frequency[tag] < frequency[right]
        return (
            difference <= LENGTH_TOLERANCE * length
            and vocabulary.askable(tag)
            and (rarer or not vocabulary.share_label(tag, right))
        )

    excluded = (right.category, *CONFUSABLE.get(right.category, ()))
    wrong = [t for t in frequency if t.category == right.category and fits(t) and is_wrong(t)]
    near = {tag for tag in wrong if vocabulary.near(tag, right)}
    return {
        NEAR: [tag for tag in wrong if tag in near],
        FAR: [tag for tag in wrong if tag not in near],
        OFF: [tag for tag in tags if tag.category not in excluded and fits(tag)],
    }


def _draw_distractors(
    right: Tag,
    pools: Mapping[str, Sequence[Tag]],
    statistics: TagStatistics,
    vocabulary: Vocabulary,
    key: Sequence[object],
) -> list[_Distractor]:
    """Draw a distractor of each kind; return fewer than three if there are not enough.

    First, it is drawn which distractors are to be shorter and which longer than the right option,
    so that the length of the options does not tell the answer. If `pools` has no such tag of a
    kind, the search goes on in the order of `_search_order`. `key` is hashed for random choices.
    """
    length = len(vocabulary.option_text(right))
    num_shorter = hash_int(*key, "shorter") % len(LETTERS)
    shorter = [number < num_shorter for number in shuffled(range(3), *key, "sides")]
    drawn: list[_Distractor] = []
    for number, (kind, is_shorter) in enumerate(zip((NEAR, FAR, OFF), shorter, strict=True)):
        used = {vocabulary.option_text(one.tag) for one in drawn}
        for pool_kind, side in _search_order(kind, is_shorter):
            texts = {tag: vocabulary.option_text(tag) for tag in pools[pool_kind]}
            pool = [
                tag
                for tag, text in texts.items()
                if text not in used and (len(text) > length) - (len(text) < length) == side
            ]
            if pool:
                weights = [statistics.clips[tag] ** FREQUENCY_POWER for tag in pool]
                tag = weighted_choice(pool, weights, *key, number, pool_kind)
                drawn.append(_Distractor(tag, pool_kind))
                break
    return drawn


def _search_order(kind: str, is_shorter: bool) -> Iterator[tuple[str, int]]:
    """Yield pairs (kind, side): where to search for a distractor, in order.

    The side is -1 for tags shorter than the right option, 0 for equally long and 1 for longer ones.
    After the drawn kind and side come equal length, other kinds, and at last the opposite side.
    """
    kinds = [kind, *(other for other in (FAR, NEAR) if other != kind)]
    side = -1 if is_shorter else 1
    yield from product(kinds, (side, 0))
    yield from product(kinds, (-side,))


def _question(
    clip: AnnotatedClip,
    right: Tag,
    distractors: Sequence[_Distractor],
    context: BuildContext,
    key: Sequence[object],
) -> QAItem:
    """Return a question about a tag, with the right option at a random place among the options."""
    vocabulary, templates, _, _ = context
    options = [(vocabulary.option_text(one.tag), one.kind) for one in distractors]
    place = hash_int(*key, "place") % len(LETTERS)
    options.insert(place, (vocabulary.option_text(right), RIGHT))
    texts, kinds = zip(*options, strict=True)
    listed = " ".join(f"({x}) {text}" for x, text in zip(LETTERS, texts, strict=True))
    question = hash_choice(templates.of("choice", right.category), *key, "wording")
    answer = f"({LETTERS[place]}) {texts[place]}"
    if hash_int(*key, "letter") % LETTER_ONLY_RATE == 0:
        question = f"{question} {hash_choice(templates.of('letter'), *key, 'letter wording')}"
        answer = LETTERS[place]
    prompt = f"Question: {question} Options: {listed}. The correct answer is:"
    about = right.category, (right.name,)
    return QAItem(clip, MCQ, prompt, answer, *about, texts, kinds, key=hash_int(*key))
