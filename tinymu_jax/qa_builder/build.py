"""Build a question-answer set from the tags and captions of clips.

Steps: map labels to tags, make questions, drop long and repeated questions, select a mix.
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
"""Data sets whose labels are free text; their rare labels are dropped."""


@dataclass(frozen=True)
class NormalizedClips:
    """Clips with their labels mapped to tags of the vocabulary, and counts of the dropped data."""

    clips: list[AnnotatedClip]
    unknown: Counter[str] = field(default_factory=Counter)
    """Number of clips by label, for labels that are not in the vocabulary."""
    rare: int = 0
    """Number of dropped labels that too few clips have, summed over clips."""
    contradicted: int = 0
    """Number of dropped tags that another label of the same clip denies."""
    test_sets: Counter[str] = field(default_factory=Counter)
    """Number of dropped test clips, by test set."""
    empty: int = 0
    """Number of dropped clips without tags and captions."""
    unusable: tuple[str, ...] = ()
    """Paths of recordings that could not be read."""
    no_music: int = 0
    """Number of dropped data-set rows about sounds other than music."""


@dataclass(frozen=True)
class BuildResult:
    """Questions of a built set, and counts of the dropped data."""

    items: list[QAItem]
    normalized: NormalizedClips
    candidates: Counter[str]
    """Number of questions before selection, by question format."""
    too_long: Counter[str]
    """Number of questions dropped for too many tokens, by question format."""
    duplicates: DuplicateReport
    leaked: Counter[str] = field(default_factory=Counter)
    """Number of questions dropped because they leak from a test set, by question format."""


def normalize_clips(
    sources: Sequence[Source], context: BuildContext, keep_held_out: bool
) -> NormalizedClips:
    """Map the labels of clips to tags; drop test clips and clips without tags and captions.

    `keep_held_out` keeps the test clips. Raises `InputError` if no clip is left.
    """
    clips: list[AnnotatedClip] = []
    unknown: Counter[str] = Counter()
    test_sets: Counter[str] = Counter()
    rare = empty = contradicted = 0
    for source in sources:
        # Label frequencies include test clips: they only tell how common a word is.
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
    """Return rule-based questions about a clip, at most the configured number per format."""
    items = [
        *captions(clip, context),
        *open_questions(clip, context),
        *choices(clip, statistics, context),
        *yes_or_no(clip, statistics, context),
    ]
    return cap_per_clip(items, context.config)


def is_short_enough(item: QAItem, context: BuildContext) -> bool:
    """Return whether prompt and answer each have at most `BuildConfig.max_tokens` tokens."""
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
    """Build a question-answer set from the annotated clips of one or more data sets.

    Args:
        sources: annotated clips of each data set.
        context: vocabulary, templates, token counter and settings.
        keep_held_out: whether to use clips that their data set marks as test material.
        write: function from clips to further questions, for example from a language model.
        progress: function called with the number of finished clips and the number of all clips.

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
    """Return `result` unchanged; raise `InputError` if it has no questions."""
    if not result.items:
        raise InputError(
            "no question is left with this mix; add sources, or change the mix (--mix 0 0 0 0 "
            "keeps all questions)"
        )
    return result


def drop_items(result: BuildResult, indices: Iterable[int]) -> BuildResult:
    """Return a build's result without the questions at `indices`, which leak from test sets.

    Yes/no questions come in pairs of a yes and a no, which are dropped together. The field `leaked`
    counts all dropped questions. Raises `InputError` if no question is left.
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
