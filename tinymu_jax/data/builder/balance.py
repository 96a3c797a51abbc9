"""Which of the candidates stay: caps by clip and by tag, yes as often as no, the wanted mix.

What stays is decided by the candidates' keys, smallest first, never by their order: parts of a
large set are decided on different machines (`tinymu_jax.data.builder.beam`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from tinymu_jax.data.builder.config import BuildConfig
from tinymu_jax.data.builder.items import Item
from tinymu_jax.data.questions import CAPTIONING, MCQ, QA, YES_NO

TASKS = (CAPTIONING, QA, MCQ, YES_NO)
"""In the order of `BuildConfig.mix`."""


def within_clip(items: Iterable[Item], config: BuildConfig) -> list[Item]:
    """Returns a clip's candidates, of each format as many as a clip may give."""
    most = {
        CAPTIONING: config.captions_a_clip,
        QA: config.open_a_clip,
        MCQ: config.choices_a_clip,
    }
    kept: list[Item] = []
    for task, own in _by_task(items).items():
        own = sorted(own, key=lambda item: item.key)
        kept += own[: most.get(task, len(own))]
    return kept


def answer_of(item: Item) -> tuple[str, ...]:
    """Returns what `BuildConfig.per_tag` counts: questions of a format with one answer."""
    return (item.task, item.category, *item.tags) if item.tags else (item.task, item.answer)


def within_answer(items: Sequence[Item], config: BuildConfig) -> list[Item]:
    """Returns the candidates of one `answer_of` that stay; of yes or no in pairs, one of each.

    The two of a pair get the same key, so that neither stays without the other.
    """
    ordered = sorted(items, key=lambda item: item.key)
    if not ordered or ordered[0].task != YES_NO:
        return ordered[: config.per_tag]
    yes = [item for item in ordered if item.answer == "Yes."]
    no = [item for item in ordered if item.answer != "Yes."]
    pairs = list(zip(yes, no, strict=False))[: max(config.per_tag // 2, 1)]
    return [one._replace(key=pair[0].key) for pair in pairs for one in pair]


def sizes(available: Mapping[str, int], config: BuildConfig) -> dict[str, int]:
    """Returns how many questions of each format are kept, in the wanted mix.

    Args:
        available: how many there are.
        config: says the mix, and how many in all.
    """
    if not any(config.mix):
        return {task: available.get(task, 0) for task in TASKS}
    parts = {task: part / sum(config.mix) for task, part in zip(TASKS, config.mix, strict=True)}
    most = min(available.get(task, 0) / part for task, part in parts.items() if part)
    total = min(most, config.size) if config.size else most
    found = {task: int(total * part + 1e-6) for task, part in parts.items()}
    # Yes or no come in pairs.
    return found | {YES_NO: found[YES_NO] // 2 * 2}


def largest_key(keys: Iterable[int], size: int) -> int:
    """Returns the key up to which `size` candidates stay; -1: none does."""
    ordered = sorted(keys)
    return ordered[min(size, len(ordered)) - 1] if size and ordered else -1


def balanced(items: Sequence[Item], config: BuildConfig) -> list[Item]:
    """Returns those of all candidates that stay, in their order."""
    kept: dict[tuple[str, str, str, str], int] = {}
    for _, own in groupby(sorted(items, key=answer_of), key=answer_of):
        kept |= {identity(item): item.key for item in within_answer(list(own), config)}
    items = [item._replace(key=kept[identity(item)]) for item in items if identity(item) in kept]
    wanted = sizes(Counter(item.task for item in items), config)
    last = {
        task: largest_key((item.key for item in own), wanted[task])
        for task, own in _by_task(items).items()
    }
    return [item for item in items if item.key <= last[item.task]]


def identity(item: Item) -> tuple[str, str, str, str]:
    """Returns what tells a candidate from all others."""
    return item.clip.source, item.clip.clip, item.prompt, item.answer


def _by_task(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[item.task].append(item)
    return dict(found)
