"""Questions that say again what another one has said, exactly or nearly; the first of them stays.

Exact ones have clip, prompt and answer in common. Near ones are looked for among free texts alone
(captions, and what a language model wrote): what is made by rule repeats its wordings on purpose.
Two free texts are near if `NEAR` of all the runs of `RUN` words in either are in both. Texts of
fewer than `FEWEST` words say the same of different clips by chance; they are held against those of
their own clip, and have to be equal.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from tinymu_jax.data.question_formats import CAPTIONING
from tinymu_jax.qa_builder.contamination.near_duplicates import plain, runs_of
from tinymu_jax.qa_builder.questions.balance import identity
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem

NEAR, RUN, FEWEST = 0.9, 3, 8

BANDS, ROWS = 16, 4
"""Of MinHash. At `NEAR`, two texts differ in all bands once in 20 million; what is found is then
compared exactly."""

SEED = 1

EXAMPLES = 20
"""Kept of each kind: the first ones in alphabetical order, so that parts can be joined."""

EXACT_KIND, NEAR_KIND = "exact", "near"


class Repeat(NamedTuple):
    """A question that is left out."""

    kind: str
    source: str
    clip: str
    text: str
    of_source: str
    """Source, clip and text of the one that stays."""
    of_clip: str
    of_text: str


class Duplicates(NamedTuple):
    """What was left out. As json it is a list, which `joined` reads."""

    exact: int
    near: int
    by_task: Counter[str]
    """Both, by format."""
    examples: tuple[Repeat, ...]

    @classmethod
    def joined(cls, parts: Iterable[Sequence[Any]]) -> "Duplicates":
        """Returns what was left out of several parts of a set: `Duplicates`, or their json."""
        exact = near = 0
        by_task: Counter[str] = Counter()
        repeats: list[Repeat] = []
        for own_exact, own_near, own_by_task, own_examples in parts:
            exact += own_exact
            near += own_near
            by_task.update(own_by_task)
            repeats += (Repeat(*example) for example in own_examples)
        return cls(exact, near, by_task, _first(repeats))


def is_free_text(item: QAItem) -> bool:
    """Returns whether a question or its answer is in somebody's own words."""
    return item.task == CAPTIONING or item.by == WRITER


def without_duplicates(items: Sequence[QAItem]) -> tuple[list[QAItem], Duplicates]:
    """Leaves out what repeats an earlier question.

    Returns:
        The questions that stay, in their order, and what was left out.
    """
    repeats = {number: (EXACT_KIND, first) for number, first in _exact(items)}
    single = [number for number in range(len(items)) if number not in repeats]
    repeats |= {number: (NEAR_KIND, first) for number, first in _near(items, single)}
    kinds = Counter(kind for kind, _ in repeats.values())
    return (
        [item for number, item in enumerate(items) if number not in repeats],
        Duplicates(
            kinds[EXACT_KIND],
            kinds[NEAR_KIND],
            Counter(items[number].task for number in repeats),
            _first(_repeat(k, items[n], items[first]) for n, (k, first) in repeats.items()),
        ),
    )


def _exact(items: Sequence[QAItem]) -> Iterator[tuple[int, int]]:
    """Yields the numbers of repeats, and of what they repeat."""
    seen: dict[bytes, int] = {}
    for number, item in enumerate(items):
        # Lengths keep what is written in one field from passing for two.
        fields = [field.encode() for field in identity(item)]
        own = sha256(b"".join(b"%d %b" % (len(field), field) for field in fields)).digest()
        first = seen.setdefault(own, number)
        if first != number:
            yield number, first


def _near(items: Sequence[QAItem], numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yields the numbers of free texts that are near to earlier ones that stay, and of these."""
    free = [number for number in numbers if is_free_text(items[number])]
    if not free:
        return
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    hashes = MinHash.generator(
        ([run.encode() for run in _runs(items[number])] for number in free),
        num_perm=BANDS * ROWS,
        seed=SEED,
        hashfunc=zlib.crc32,
    )
    for number, own in zip(free, hashes, strict=True):
        runs = _runs(items[number])
        found = sorted(index.query(own))
        first = next((one for one in found if _jaccard(runs, _runs(items[one])) >= NEAR), None)
        if first is None:
            index.insert(number, own)
        else:
            yield number, first


def _runs(item: QAItem) -> set[str]:
    words = plain(_text(item)).split()
    if len(words) < FEWEST:
        return {"\n".join((item.clip.source, item.clip.clip, " ".join(words)))}
    return runs_of(words, RUN)


def _text(item: QAItem) -> str:
    return item.answer if item.task == CAPTIONING else f"{item.prompt} {item.answer}"


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def _repeat(kind: str, item: QAItem, first: QAItem) -> Repeat:
    own, other = ((one.clip.source, one.clip.clip, _text(one)) for one in (item, first))
    return Repeat(kind, *own, *other)


def _first(repeats: Iterable[Repeat]) -> tuple[Repeat, ...]:
    ordered = sorted(set(repeats))
    kinds = (EXACT_KIND, NEAR_KIND)
    return tuple(r for kind in kinds for r in [r for r in ordered if r.kind == kind][:EXAMPLES])
