"""Builds a question-answering set from tags and captions.

Steps: normalize labels, make candidates, drop long and duplicate ones, balance. Each is a function
of a clip or of statistics over clips, so that `tinymu_jax.qa_builder.beam` can distribute them.
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
"""Sources whose labels are free text: rare ones are dropped."""


@dataclass(frozen=True)
class NormalizedClips:
    """The clips of all sources with tags of the vocabulary, and counts of what was skipped."""

    clips: list[AnnotatedClip]
    unknown: Counter[str] = field(default_factory=Counter)
    """Number of clips by label that is not in the vocabulary."""
    rare: int = 0
    """Labels skipped because too few clips have them."""
    contradicted: int = 0
    """Tags skipped because another label of the clip denies them."""
    test_sets: Counter[str] = field(default_factory=Counter)
    """Clips skipped, by the test set that they belong to according to their source."""
    empty: int = 0
    """Clips without tags and captions."""
    unusable: tuple[str, ...] = ()
    """Recordings that a source could not read."""
    no_music: int = 0
    """Rows about sounds other than music."""


@dataclass(frozen=True)
class BuildResult:
    """A built set, and how it came about."""

    items: list[QAItem]
    normalized: NormalizedClips
    candidates: Counter[str]
    """Number of candidates by format."""
    too_long: Counter[str]
    """Number of candidates with too many tokens, by format."""
    duplicates: DuplicateReport
    leaked: Counter[str] = field(default_factory=Counter)
    """Number of questions dropped as test-set leaks, by format."""


def normalize_clips(
    sources: Sequence[Source], context: BuildContext, keep_held_out: bool
) -> NormalizedClips:
    """Maps the labels of all clips to the vocabulary; skips test material.

    Raises:
        InputError: no clip with a tag or caption is left.
    """
    clips: list[AnnotatedClip] = []
    unknown: Counter[str] = Counter()
    test_sets: Counter[str] = Counter()
    rare = empty = contradicted = 0
    for source in sources:
        # Test material counts for the frequencies: they only reveal how a word is used.
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
    """Returns a clip's rule-based candidates, capped per format."""
    items = [
        *captions(clip, context),
        *open_questions(clip, context),
        *choices(clip, statistics, context),
        *yes_or_no(clip, statistics, context),
    ]
    return cap_per_clip(items, context.config)


def is_short_enough(item: QAItem, context: BuildContext) -> bool:
    """Returns whether prompt and answer are within the model's maximum length."""
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
    """Builds a set.

    Args:
        sources: annotations of recordings.
        context: vocabulary, templates, settings.
        keep_held_out: also use clips that their source marks as test material.
        write: returns more candidates about the clips (a language model's).
        progress: called with the number of finished clips and of all.

    Raises:
        InputError: no clip with a tag or caption; no question is left.
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
    """Returns the result; raises an `InputError` if it has no questions."""
    if not result.items:
        raise InputError(
            "no question is left with this mix; add sources, or change the mix (--mix 0 0 0 0 "
            "keeps all questions)"
        )
    return result


def drop_items(result: BuildResult, indices: Iterable[int]) -> BuildResult:
    """Returns a set without some of its questions, and without the other halves of yes/no pairs.

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
