"""Texts that have been taken over from others, nearly or wholly: exact, by runs of words.

Two texts are near-copies if they have the same words, `SHORTEST` or more; or if they share `FEWEST`
or more runs of `RUN` words, and these are `SHARE` of the shorter one's. Runs that more than `STOCK`
of the texts have are phrases that anybody may write ("can be heard in the background"), and do not
count, neither as shared nor as a text's own.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

RUN, SHARE, FEWEST, STOCK = 5, 0.5, 5, 5

SHORTEST = 4


def plain(text: str) -> str:
    """Returns a text's words in small letters, without marks, with single blanks between them."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def runs_of(words: Sequence[str], length: int) -> set[str]:
    """Returns all `length` words that stand together."""
    return {" ".join(words[n : n + length]) for n in range(len(words) - length + 1)}


def near_copies_among(texts: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Returns what finds those of `texts` that another text is a near-copy of, the nearest first.

    Args:
        texts: to find again.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        same[plain(text)].append(text)
    known = list(same)
    having: dict[str, list[int]] = defaultdict(list)
    for number, words in enumerate(known):
        for run in runs_of(words.split(), RUN):
            having[run].append(number)
    stock = {run for run, own in having.items() if len(own) > STOCK}
    telling = {run: own for run, own in having.items() if run not in stock}
    sizes = Counter(number for own in telling.values() for number in own)

    def find(text: str) -> tuple[str, ...]:
        words = plain(text).split()
        if len(words) < SHORTEST:
            return ()
        own = runs_of(words, RUN) - stock
        shared = Counter(number for run in own for number in telling.get(run, ()))
        near = [
            (-count, number)
            for number, count in shared.items()
            if count >= max(FEWEST, SHARE * min(len(own), sizes[number]))
        ]
        whole = " ".join(words)
        found = [whole, *(known[number] for _, number in sorted(near))]
        return tuple(text for words in dict.fromkeys(found) for text in same.get(words, ()))

    return find
