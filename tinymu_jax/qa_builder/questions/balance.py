"""Select questions by limits per clip and answer, pairs of yes and no, and the configured mix.

Questions with the smallest hash keys are selected. Their order does not matter, so Beam can balance
parts of a set on different machines (`tinymu_jax.qa_builder.beam`).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from tinymu_jax.data.question_formats import CAPTIONING, MCQ, QA, YES_NO
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.item import YES, QAItem
from tinymu_jax.qa_builder.questions.multiple_choice import RIGHT
from tinymu_jax.qa_builder.questions.seeded_choice import hash_int

TASKS = (CAPTIONING, QA, MCQ, YES_NO)
"""Question formats, in the order of `BuildConfig.mix`."""
Stratum = tuple[str, int]
"""A question format and the index of one of its subsets. A format's subsets get equal sizes."""


def cap_per_clip(items: Iterable[QAItem], config: BuildConfig) -> list[QAItem]:
    """Return the questions about one clip, at most the configured number of each format."""
    limits = {
        CAPTIONING: config.max_captions_per_clip,
        QA: config.max_open_per_clip,
        MCQ: config.max_choices_per_clip,
    }
    by_task: dict[str, list[QAItem]] = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    selected: list[QAItem] = []
    for task, candidates in by_task.items():
        candidates.sort(key=lambda item: item.key)
        selected += candidates[: limits.get(task, len(candidates))]
    return selected


def answer_group(item: QAItem) -> tuple[str, ...]:
    """Return the key that questions with the same answer share: (format, category, *tags)."""
    return (item.task, item.category, *item.tags)


def max_per_answer(task: str, candidates: int, groups: int, config: BuildConfig) -> int:
    """Return the maximum number of questions with the same answer in the format `task`.

    The format has `candidates` questions in total, with `groups` different answers.
    """
    if task == MCQ:
        return math.ceil(candidates / groups * config.max_tag_ratio)
    percent = config.max_answer_percent if task in (QA, YES_NO) else 100
    return max(int(candidates * percent / 100), 2)


def cap_per_answer(items: Sequence[QAItem], limit: int) -> list[QAItem]:
    """Return at most `limit` of the given questions, those with the smallest keys.

    All have the same `answer_group`. Yes/no questions are kept or dropped in pairs of a yes and a
    no, which get the same key.
    """
    ordered = sorted(items, key=lambda item: item.key)
    if not ordered or ordered[0].task != YES_NO:
        return ordered[:limit]
    yes = [item for item in ordered if item.answer == YES]
    no = [item for item in ordered if item.answer != YES]
    pairs = list(zip(yes, no, strict=False))[: limit // 2]
    return [item._replace(key=pair[0].key) for pair in pairs for item in pair]


def stratum_of(item: QAItem) -> Stratum:
    """Return the format of a question, and the index of its subset of this format.

    For multiple choice, the index is the number of options that are shorter than the right option
    (ties at random). Subsets of equal size prevent guessing by the length of the options. Other
    formats have one subset.
    """
    if not item.kinds:
        return item.task, 0
    lengths = [len(option) for option in item.options]
    right = lengths[item.kinds.index(RIGHT)]
    ties = hash_int(item.key, "equal") % lengths.count(right)
    return item.task, sum(length < right for length in lengths) + ties


def stratum_sizes(available: Mapping[Stratum, int], config: BuildConfig) -> dict[Stratum, int]:
    """Return the number of questions to select from each stratum (subset of a question format).

    The numbers give the configured mix of formats. A format without questions is left out.
    `available` has the number of questions in each stratum.
    """
    strata = {task: sorted(part for part in available if part[0] == task) for task in TASKS}
    sizes = {t: min((available[part] for part in parts), default=0) for t, parts in strata.items()}
    if any(config.mix):
        mix = {task: part for task, part in zip(TASKS, config.mix, strict=True) if strata[task]}
        shares = {task: part / max(sum(mix.values()), 1e-9) for task, part in mix.items()}
        limits = [sizes[t] * len(strata[t]) / share for t, share in shares.items() if share]
        total = min(limits, default=0)
        total = min(total, config.size) if config.size else total
        for task, share in shares.items():
            sizes[task] = int(total * share / max(len(strata[task]), 1) + 1e-6)
    sizes[YES_NO] -= sizes[YES_NO] % 2  # pairs
    return {part: sizes[task] for task, parts in strata.items() for part in parts}


def key_threshold(keys: Iterable[int], size: int) -> int:
    """Return the `size`-th smallest key (the largest if there are fewer); -1 if there is none."""
    ordered = sorted(keys)
    return ordered[min(size, len(ordered)) - 1] if size and ordered else -1


def balance(items: Sequence[QAItem], config: BuildConfig) -> list[QAItem]:
    """Select questions by the limits per answer and the mix in `config`; keep their order."""
    counts = Counter(item.task for item in items)
    groups = Counter(group[0] for group in {answer_group(item) for item in items})
    keys: dict[tuple[str, ...], int] = {}
    for (task, *_), members in groupby(sorted(items, key=answer_group), key=answer_group):
        limit = max_per_answer(task, counts[task], groups[task], config)
        keys |= {item.identity: item.key for item in cap_per_answer(list(members), limit)}
    items = [item._replace(key=keys[item.identity]) for item in items if item.identity in keys]
    stratum_keys: dict[Stratum, list[int]] = defaultdict(list)
    for item in items:
        stratum_keys[stratum_of(item)].append(item.key)
    sizes = stratum_sizes({part: len(keys) for part, keys in stratum_keys.items()}, config)
    thresholds = {part: key_threshold(keys, sizes[part]) for part, keys in stratum_keys.items()}
    return [item for item in items if item.key <= thresholds[stratum_of(item)]]
