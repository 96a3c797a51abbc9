"""Builds a question-answer set from the tags and captions of clips.

The steps: map labels to tags, make candidate questions, drop candidates that are too long or repeat
another, select a balanced mix. Each step is a function of one clip or of statistics over all clips,
so that `tinymu_jax.qa_builder.beam` can distribute the build.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.registry import Source
from tinymu_jax.data.question_formats import YES_NO
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.contamination.deduplicate import DuplicateReport, remove_duplicates
from tinymu_jax.qa_builder.context import BuildContext
from tinymu_jax.qa_builder.questions.balance import balance, cap_per_clip
from tinymu_jax.qa_builder.questions.from_rules import captions, open_questions, yes_or_no
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.multiple_choice import choices
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics, count_tags, implied_tags
from tinymu_jax.qa_builder.tags.vocabulary import frequent_labels, normalize_clip
from tinymu_jax.utils.progress import Progress, no_progress

FREE_TEXT_SOURCES = ("MusicCaps",)
"""Names of the sources whose labels are free text; their rare labels are dropped."""


@dataclass(frozen=True)
class NormalizedClips:
    """The clips of all sources with tags of the vocabulary, and counts of the data left out."""

    clips: list[AnnotatedClip]
    unknown: Counter[str] = field(default_factory=Counter)
    """Number of clips by label, for the labels that are not in the vocabulary."""
    rare: int = 0
    """Number of labels left out because too few clips have them, summed over clips."""
    contradicted: int = 0
    """Number of tags left out because another label of the same clip denies them."""
    test_sets: Counter[str] = field(default_factory=Counter)
    """Number of clips left out because their source marks them as test material, by test set."""
    empty: int = 0
    """Number of clips left out because they have no tags and no captions."""
    unusable: tuple[str, ...] = ()
    """Paths of recordings that could not be read."""
    no_music: int = 0
    """Number of rows of the sources left out because they are about sounds other than music."""


@dataclass(frozen=True)
class BuildResult:
    """The questions of a built set, and counts of the clips, labels and candidates left out."""

    items: list[QAItem]
    normalized: NormalizedClips
    candidates: Counter[str]
    """Number of candidate questions by format."""
    too_long: Counter[str]
    """Number of candidates dropped because they have too many tokens, by format."""
    duplicates: DuplicateReport
    leaked: Counter[str] = field(default_factory=Counter)
    """Number of questions dropped because they leak from a test set, by format."""


def normalize_clips(
    sources: Sequence[Source], context: BuildContext, keep_held_out: bool
) -> NormalizedClips:
    """Maps labels of clips to tags; leaves out clips that have neither tags nor captions.

    Test material is left out, too, unless `keep_held_out` is true.

    Raises:
        InputError: no clip with a tag or caption is left.
    """
    clips: list[AnnotatedClip] = []
    unknown: Counter[str] = Counter()
    test_sets: Counter[str] = Counter()
    rare = empty = contradicted = 0
    for source in sources:
        # The frequencies of labels include test material: they only reveal how a word is used.
        is_free_text = source.name in FREE_TEXT_SOURCES
        minimum = context.config.min_clips_per_label
        frequent = frequent_labels(source.clips, minimum) if is_free_text else None
        for clip in source.clips:
            if clip.test_sets and not keep_held_out:
                test_sets.update(clip.test_sets)
                continue
            result = normalize_clip(clip, context.vocabulary, frequent)
            unknown.update(result.unknown)
            rare += result.rare
            contradicted += len(result.contradicted)
            if result.clip.captions or any(result.clip.tags.values()):
                clips.append(result.clip)
            else:
                empty += 1
    if test_sets and not clips:
        raise InputError(
            f"all usable clips belong to test sets ({', '.join(sorted(test_sets))}); name another "
            "source, or give --keep-held-out"
        )
    if not clips:
        raise InputError(
            "no clip has a known tag or a caption; check the labels of the sources, or extend the "
            "vocabulary (--vocabulary)"
        )
    unusable = tuple(name for source in sources for name in source.unusable)
    no_music = sum(source.no_music for source in sources)
    return NormalizedClips(clips, unknown, rare, contradicted, test_sets, empty, unusable, no_music)


def make_candidates(
    clip: AnnotatedClip, statistics: TagStatistics, context: BuildContext
) -> list[QAItem]:
    """Returns rule-based candidate questions about a clip, up to the maximum for each format."""
    items = [
        *captions(clip, context),
        *open_questions(clip, context),
        *choices(clip, statistics, context),
        *yes_or_no(clip, statistics, context),
    ]
    return cap_per_clip(items, context.config)


def is_short_enough(item: QAItem, context: BuildContext) -> bool:
    """Returns whether an item's prompt and answer each have at most `max_tokens` tokens."""
    count = context.count_tokens
    if count is None:
        return True
    return max(count(item.prompt), count(item.answer)) <= context.config.max_tokens


def build(
    sources: Sequence[Source],
    context: BuildContext,
    keep_held_out: bool = False,
    write: Callable[[Sequence[AnnotatedClip]], Sequence[QAItem]] = lambda clips: (),
    progress: Progress = no_progress,
) -> BuildResult:
    """Builds a question-answer set from the annotated clips of one or more sources.

    Args:
        sources: the annotated clips of each data set.
        context: the vocabulary, templates, token counter and settings.
        keep_held_out: whether to use clips that their source marks as test material.
        write: a function from clips to more candidates, for example from a language model.
        progress: a function called with the number of finished clips and the number of all clips.

    Raises:
        InputError: no clip has a tag or caption, or no question is left.
    """
    context.config.check()
    normalized = normalize_clips(sources, context, keep_held_out)
    clips = normalized.clips
    statistics = count_tags(implied_tags(clip, context.vocabulary) for clip in clips)

    def from_rules() -> Iterator[QAItem]:
        for done, clip in enumerate(clips, 1):
            yield from make_candidates(clip, statistics, context)
            progress(done, len(clips))

    candidates = [*from_rules(), *write(clips)]
    fitting = [item for item in candidates if is_short_enough(item, context)]
    distinct, duplicates = remove_duplicates(fitting)
    items = balance(distinct, context.config)
    counts = Counter(item.task for item in candidates)
    too_long = counts - Counter(item.task for item in fitting)
    return require_items(BuildResult(items, normalized, counts, too_long, duplicates))


def require_items(result: BuildResult) -> BuildResult:
    """Returns a build's result unchanged; raises an `InputError` if it has no questions."""
    if not result.items:
        raise InputError(
            "no question is left with this mix; add sources, or change the mix (--mix 0 0 0 0 "
            "keeps all questions)"
        )
    return result


def drop_items(result: BuildResult, indices: Iterable[int]) -> BuildResult:
    """Returns a build's result without the questions at `indices`, which leak from test sets.

    Both questions of a yes/no pair are dropped together. `leaked` counts all dropped questions.

    Raises:
        InputError: no question is left.
    """
    dropped = set(indices)
    pair_keys = {result.items[n].key for n in dropped if result.items[n].task == YES_NO}
    remaining = [
        item
        for number, item in enumerate(result.items)
        if number not in dropped and not (item.task == YES_NO and item.key in pair_keys)
    ]
    if not remaining:
        raise InputError(f"all {len(result.items)} questions leak from a test set; add sources")
    leaked = Counter(item.task for item in result.items) - Counter(item.task for item in remaining)
    return replace(result, items=remaining, leaked=leaked)
