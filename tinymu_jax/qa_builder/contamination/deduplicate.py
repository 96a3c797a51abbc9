"""Remove questions that repeat an earlier question, exactly or nearly.

Exact duplicates have the same clip, prompt and answer. Near duplicates are searched only among
captions and language-model texts, because rule-based questions repeat templates. Two texts are near
duplicates if the Jaccard similarity of their word 3-grams is at least `MIN_SIMILARITY`. Texts under
`MIN_WORDS` words are near duplicates only with the same words and the same clip.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tinymu_jax.data.question_formats import CAPTIONING
from tinymu_jax.qa_builder.contamination.near_duplicates import ngrams, plain_words
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem

MIN_SIMILARITY, NGRAM, MIN_WORDS = 0.9, 3, 8
BANDS, ROWS = 16, 4
"""Bands and rows per band of MinHash LSH; 1 in 26 million pairs at `MIN_SIMILARITY` is missed."""
SEED = 1
MAX_EXAMPLES = 20
"""Maximum number of examples per kind of duplicate, the first in alphabetical order."""
EXACT, NEAR = "exact", "near"


class DuplicateExample(NamedTuple):
    """A removed question, and the earlier question that it repeats."""

    kind: str
    source: str
    clip: str
    text: str
    original_source: str
    original_clip: str
    original_text: str


class DuplicateReport(NamedTuple):
    """Numbers and examples of removed questions; `merge` can read it back from JSON."""

    exact: int
    near: int
    by_task: Counter[str]
    """Number of exact and near duplicates together, by question format."""
    examples: tuple[DuplicateExample, ...]

    @classmethod
    def merge(cls, parts: Iterable[Sequence[Any]]) -> "DuplicateReport":
        """Return the sum of reports, each given as a `DuplicateReport` or as its parsed JSON."""
        parts = [cls(*part) for part in parts]
        by_task = sum((Counter(part.by_task) for part in parts), Counter())
        examples = (DuplicateExample(*example) for part in parts for example in part.examples)
        exact, near = (sum(part[kind] for part in parts) for kind in (0, 1))
        return cls(exact, near, by_task, _first(examples))


def is_free_text(item: QAItem) -> bool:
    """Return whether a question is a caption or was written by a language model."""
    return item.task == CAPTIONING or item.by == WRITER


def remove_duplicates(items: Sequence[QAItem]) -> tuple[list[QAItem], DuplicateReport]:
    """Return the questions that repeat no earlier one, and a report on the removed questions."""
    duplicates = {number: (EXACT, first) for number, first in _exact(items)}
    distinct = [number for number in range(len(items)) if number not in duplicates]
    duplicates |= {number: (NEAR, first) for number, first in _near(items, distinct)}
    kinds = Counter(kind for kind, _ in duplicates.values())
    return (
        [item for number, item in enumerate(items) if number not in duplicates],
        DuplicateReport(
            kinds[EXACT],
            kinds[NEAR],
            Counter(items[number].task for number in duplicates),
            _first(
                DuplicateExample(kind, *_source_and_text(items[n]), *_source_and_text(items[first]))
                for n, (kind, first) in duplicates.items()
            ),
        ),
    )


def _source_and_text(item: QAItem) -> tuple[str, str, str]:
    return (*item.clip_id, _text(item))


def _exact(items: Sequence[QAItem]) -> Iterator[tuple[int, int]]:
    """Yield pairs (index of an exact duplicate, index of the first equal question)."""
    seen: dict[tuple[str, ...], int] = {}
    for number, item in enumerate(items):
        first = seen.setdefault(item.identity, number)
        if first != number:
            yield number, first


def _near(items: Sequence[QAItem], numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield pairs (index of a near duplicate, index of the earlier question that it repeats).

    `numbers` are indices into `items`; only these questions are compared, if they are free texts.
    """
    free = [number for number in numbers if is_free_text(items[number])]
    if not free:
        return
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    hashes = MinHash.generator(
        ([ngram.encode() for ngram in _ngrams(items[number])] for number in free),
        num_perm=BANDS * ROWS,
        seed=SEED,
        hashfunc=zlib.crc32,
    )
    for number, minhash in zip(free, hashes, strict=True):
        item_ngrams = _ngrams(items[number])
        for candidate in sorted(index.query(minhash)):
            other = _ngrams(items[candidate])
            if len(item_ngrams & other) / len(item_ngrams | other) >= MIN_SIMILARITY:
                yield number, candidate
                break
        else:
            index.insert(number, minhash)


def _ngrams(item: QAItem) -> set[str]:
    words = plain_words(_text(item)).split()
    if len(words) < MIN_WORDS:
        return {"\n".join((*item.clip_id, " ".join(words)))}
    return ngrams(words, NGRAM)


def _text(item: QAItem) -> str:
    return item.answer if item.task == CAPTIONING else f"{item.prompt} {item.answer}"


def _first(examples: Iterable[DuplicateExample]) -> tuple[DuplicateExample, ...]:
    ordered = sorted(set(examples))
    by_kind = ([one for one in ordered if one.kind == kind] for kind in (EXACT, NEAR))
    return tuple(one for kind in by_kind for one in kind[:MAX_EXAMPLES])
