"""Which of the candidates stay: caps by clip and by tag, yes as often as no, the wanted mix.

What stays is decided by the candidates' keys, smallest first, never by their order: parts of a
large set are decided on different machines (`tinymu_jax.qa_builder.beam`).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from tinymu_jax.data.question_formats import CAPTIONING, MCQ, QA, YES_NO
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.seeded_choice import hash_int

TASKS = (CAPTIONING, QA, MCQ, YES_NO)
"""In the order of `BuildConfig.mix`."""

Part = tuple[str, int]
"""A format, and which part of it."""


def within_clip(items: Iterable[QAItem], config: BuildConfig) -> list[QAItem]:
    """Returns a clip's candidates, of each format as many as a clip may give."""
    most = {
        CAPTIONING: config.max_captions_per_clip,
        QA: config.max_open_per_clip,
        MCQ: config.max_choices_per_clip,
    }
    kept: list[QAItem] = []
    for task, own in _by_task(items).items():
        own = sorted(own, key=lambda item: item.key)
        kept += own[: most.get(task, len(own))]
    return kept


def answer_of(item: QAItem) -> tuple[str, ...]:
    """Returns what questions of a format have in common that have one answer, or ask for one tag;
    captions are all alike."""
    return (item.task, item.category, *item.tags)


def most_of(task: str, candidates: int, answers: int, config: BuildConfig) -> int:
    """Returns how many questions of a format may have one `answer_of`.

    Args:
        task: the format.
        candidates: all of that format.
        answers: how many different ones they have.
        config: says how much of them.
    """
    if task == MCQ:
        return math.ceil(candidates / answers * config.max_tag_ratio)
    percent = config.max_answer_percent if task in (QA, YES_NO) else 100
    return max(int(candidates * percent / 100), 2)


def within_answer(items: Sequence[QAItem], most: int) -> list[QAItem]:
    """Returns the candidates of one `answer_of` that stay; of yes or no in pairs, one of each.

    The two of a pair get the same key, so that neither stays without the other.
    """
    ordered = sorted(items, key=lambda item: item.key)
    if not ordered or ordered[0].task != YES_NO:
        return ordered[:most]
    yes = [item for item in ordered if item.answer == "Yes."]
    no = [item for item in ordered if item.answer != "Yes."]
    pairs = list(zip(yes, no, strict=False))[: most // 2]
    return [one._replace(key=pair[0].key) for pair in pairs for one in pair]


def part_of(item: QAItem) -> Part:
    """Returns which part of its format a question belongs to, all of which are as large.

    Multiple choice is parted by how many options are shorter than the right one (of equally long
    ones, half by chance): neither the shortest nor the longest is right more often than others.
    """
    if not item.kinds:
        return item.task, 0
    lengths = [len(option) for option in item.options]
    right = lengths[item.kinds.index("right")]
    equal = hash_int(item.key, "equal") % lengths.count(right)
    return item.task, sum(length < right for length in lengths) + equal


def sizes(available: Mapping[Part, int], config: BuildConfig) -> dict[Part, int]:
    """Returns how many questions of each part are kept, in the wanted mix.

    A format of which there is none has no part in it.

    Args:
        available: how many there are.
        config: says the mix, and how many in all.
    """
    parts = {task: sorted(part for part in available if part[0] == task) for task in TASKS}
    most = {task: min((available[part] for part in own), default=0) for task, own in parts.items()}
    if any(config.mix):
        mix = {task: part for task, part in zip(TASKS, config.mix, strict=True) if parts[task]}
        shares = {task: part / max(sum(mix.values()), 1e-9) for task, part in mix.items()}
        limits = [most[t] * len(parts[t]) / share for t, share in shares.items() if share]
        total = min(limits, default=0)
        total = min(total, config.size) if config.size else total
        for task, share in shares.items():
            most[task] = int(total * share / max(len(parts[task]), 1) + 1e-6)
    # Yes or no come in pairs.
    most[YES_NO] -= most[YES_NO] % 2
    return {part: most[task] for task, own in parts.items() for part in own}


def largest_key(keys: Iterable[int], size: int) -> int:
    """Returns the key up to which `size` candidates stay; -1: none does."""
    ordered = sorted(keys)
    return ordered[min(size, len(ordered)) - 1] if size and ordered else -1


def balanced(items: Sequence[QAItem], config: BuildConfig) -> list[QAItem]:
    """Returns those of all candidates that stay, in their order."""
    counts = Counter(item.task for item in items)
    answers = Counter(answer[0] for answer in {answer_of(item) for item in items})
    kept: dict[tuple[str, str, str, str], int] = {}
    for (task, *_), own in groupby(sorted(items, key=answer_of), key=answer_of):
        most = most_of(task, counts[task], answers[task], config)
        kept |= {identity(item): item.key for item in within_answer(list(own), most)}
    items = [item._replace(key=kept[identity(item)]) for item in items if identity(item) in kept]
    parts: dict[Part, list[int]] = defaultdict(list)
    for item in items:
        parts[part_of(item)].append(item.key)
    wanted = sizes({part: len(keys) for part, keys in parts.items()}, config)
    last = {part: largest_key(keys, wanted[part]) for part, keys in parts.items()}
    return [item for item in items if item.key <= last[part_of(item)]]


def identity(item: QAItem) -> tuple[str, str, str, str]:
    """Returns what tells a candidate from all others."""
    return item.clip.source, item.clip.clip, item.prompt, item.answer


def _by_task(items: Iterable[QAItem]) -> dict[str, list[QAItem]]:
    found: dict[str, list[QAItem]] = defaultdict(list)
    for item in items:
        found[item.task].append(item)
    return dict(found)
