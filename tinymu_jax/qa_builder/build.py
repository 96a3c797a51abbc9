"""A question-answering set from sources of tags and captions: read, named, asked, balanced.

The steps are functions of a clip, or of what clips have in common, so that
`tinymu_jax.qa_builder.beam` can take the same ones to many machines.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.registry import Source
from tinymu_jax.data.question_formats import YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.contamination.deduplicate import Duplicates, without_duplicates
from tinymu_jax.qa_builder.questions.balance import balanced, within_clip
from tinymu_jax.qa_builder.questions.from_rules import captions, open_questions, yes_or_no
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.multiple_choice import choices
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.cooccurrence import Statistics, count_tags, implied_tags
from tinymu_jax.qa_builder.tags.vocabulary import (
    Vocabulary,
    by_category,
    frequent_labels,
    normalise,
)

FREE_WORDS = ("MusicCaps",)
"""Sources whose labels are anybody's own words: rare ones are not asked about."""

Progress = Callable[[int, int], object]

CountTokens = Callable[[str], int]


class BuildContext(NamedTuple):
    """What questions are made with."""

    vocabulary: Vocabulary
    templates: Templates
    count_tokens: CountTokens | None
    """None: lengths are not checked."""
    config: BuildConfig


@dataclass(frozen=True)
class NormalizedClips:
    """The clips of all sources, in the vocabulary's names, and what was left out on the way."""

    clips: list[AnnotatedClip]
    unknown: Counter[str] = field(default_factory=Counter)
    """Labels that the vocabulary does not know, and how many clips have them."""
    rare: int = 0
    """Labels left out because too few clips have them."""
    contradicted: int = 0
    """Tags left out because another label of the clip denies them."""
    held_out: Counter[str] = field(default_factory=Counter)
    """Clips left out, by the test set that their source says they belong to."""
    empty: int = 0
    """Clips without a tag or a caption."""
    unusable: tuple[str, ...] = ()
    """Recordings that a source could not read."""
    no_music: int = 0
    """Rows about other sounds than music."""


@dataclass(frozen=True)
class BuildResult:
    """A set, and how it came about."""

    items: list[QAItem]
    named: NormalizedClips
    candidates: Counter[str]
    """How many questions there were of each format."""
    too_long: Counter[str]
    """How many of them had more tokens than the model takes."""
    duplicates: Duplicates
    leaked: Counter[str] = field(default_factory=Counter)
    """How many questions of each format were left out since they hit a test set."""


def name_clips(
    sources: Sequence[Source], vocabulary: Vocabulary, config: BuildConfig, keep_held_out: bool
) -> NormalizedClips:
    """Gives all clips the vocabulary's names; leaves out what belongs to test sets.

    Raises:
        InputError: none is left that has a tag or a caption.
    """
    clips: list[AnnotatedClip] = []
    unknown: Counter[str] = Counter()
    held_out: Counter[str] = Counter()
    rare = empty = contradicted = 0
    for source in sources:
        # Words are counted in all clips: what is held out tells nothing but how a word is used.
        kept = (
            frequent_labels(source.clips, config.min_clips_per_label)
            if source.name in FREE_WORDS
            else None
        )
        for clip in source.clips:
            if clip.test_sets and not keep_held_out:
                held_out.update(clip.test_sets)
                continue
            named = normalise(clip, vocabulary, kept)
            unknown.update(named.unknown)
            rare += named.rare
            contradicted += len(named.contradicted)
            if not clip.captions and not any(named.clip.tags.values()):
                empty += 1
                continue
            clips.append(replace(named.clip, ambiguous=by_category(named.unasked)))
    if held_out and not clips:
        sets = ", ".join(sorted(held_out))
        raise InputError(
            f"all clips that could be asked about belong to test sets ({sets}); name another "
            "source, or give --keep-held-out"
        )
    if not clips:
        raise InputError(
            "no clip has a tag or a caption that can be asked about; look at the labels of the "
            "sources, or add a vocabulary (--vocabulary)"
        )
    unusable = tuple(name for source in sources for name in source.unusable)
    no_music = sum(source.no_music for source in sources)
    return NormalizedClips(clips, unknown, rare, contradicted, held_out, empty, unusable, no_music)


def ask_about(clip: AnnotatedClip, statistics: Statistics, tools: BuildContext) -> list[QAItem]:
    """Returns all candidates that a clip gives, as many as it may of each format."""
    vocabulary, templates, _, config = tools
    found = [
        *captions(clip, templates, config),
        *open_questions(clip, vocabulary, templates, config),
        *choices(clip, statistics, vocabulary, templates, config),
        *yes_or_no(clip, statistics, vocabulary, templates, config),
    ]
    return within_clip(found, config)


def fits(item: QAItem, tools: BuildContext) -> bool:
    """Returns whether neither prompt nor answer has more tokens than the model takes."""
    count = tools.count_tokens
    if count is None:
        return True
    return max(count(item.prompt), count(item.answer)) <= tools.config.max_tokens


def build(
    sources: Sequence[Source],
    tools: BuildContext,
    keep_held_out: bool = False,
    written: Callable[[Sequence[AnnotatedClip]], Sequence[QAItem]] = lambda clips: (),
    progress: Progress = lambda done, total: None,
) -> BuildResult:
    """Builds a set.

    Args:
        sources: what is known of recordings.
        tools: vocabulary, templates, settings.
        keep_held_out: also ask about clips that their source says are for tests.
        written: gives more questions about the clips: a language model's.
        progress: called with the number of clips asked about, and of all.

    Raises:
        InputError: no clip with a tag or caption; nothing is left.
    """
    tools.config.check()
    named = name_clips(sources, tools.vocabulary, tools.config, keep_held_out)
    statistics = count_tags(implied_tags(clip, tools.vocabulary) for clip in named.clips)
    candidates = [*_asked(named.clips, statistics, tools, progress), *written(named.clips)]
    fitting = [item for item in candidates if fits(item, tools)]
    single, duplicates = without_duplicates(fitting)
    items = balanced(single, tools.config)
    counted = Counter(item.task for item in candidates)
    too_long = counted - Counter(item.task for item in fitting)
    return checked(BuildResult(items, named, counted, too_long, duplicates))


def checked(built: BuildResult) -> BuildResult:
    """Makes sure that a set holds something.

    Raises:
        InputError: it does not.
    """
    if built.items:
        return built
    raise InputError(
        "no question is left in the wanted mix; give other sources, or another mix (--mix 0 0 0 0 "
        "keeps all that there are)"
    )


def drop_items(built: BuildResult, numbers: Iterable[int]) -> BuildResult:
    """Returns a set without some of its questions; of yes or no, the other of a pair goes too.

    Raises:
        InputError: none is left.
    """
    numbers = set(numbers)
    keys = {item.key for n, item in enumerate(built.items) if n in numbers and item.task == YES_NO}
    kept = [
        item
        for number, item in enumerate(built.items)
        if number not in numbers and not (item.task == YES_NO and item.key in keys)
    ]
    if not kept:
        raise InputError(
            f"all {len(built.items)} questions are left out, since they hit a test set; give other "
            "sources"
        )
    leaked = Counter(item.task for item in built.items) - Counter(item.task for item in kept)
    return replace(built, items=kept, leaked=leaked)


def _asked(
    clips: Sequence[AnnotatedClip], statistics: Statistics, tools: BuildContext, progress: Progress
) -> Iterator[QAItem]:
    for done, clip in enumerate(clips, 1):
        yield from ask_about(clip, statistics, tools)
        progress(done, len(clips))
