"""Find near-duplicate texts by shared word n-grams, with an exact search.

Two texts of at least `MIN_WORDS` words are near duplicates if their words are the same. They are
also near duplicates if they share at least `MIN_SHARED` n-grams of `NGRAM` words, and the shared
n-grams are at least half of the n-grams of one text. N-grams in more than `MAX_TEXTS` of the
searched texts are ignored as stock phrases ("can be heard in the background").
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

NGRAM, MIN_SHARE, MIN_SHARED, MAX_TEXTS = 5, 0.5, 5, 5
MIN_WORDS = 4


def plain_words(text: str) -> str:
    """Return the lower-case words of a text without punctuation, joined by spaces."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def ngrams(words: Sequence[str], size: int) -> set[str]:
    """Return all sequences of `size` adjacent words, each joined by spaces."""
    return {" ".join(words[n : n + size]) for n in range(len(words) - size + 1)}


def near_duplicate_finder(texts: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a function from a text to its near duplicates among `texts`, the nearest first."""
    by_words: dict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        by_words[plain_words(text)].append(text)
    known = list(by_words)
    index: dict[str, list[int]] = defaultdict(list)
    for number, words in enumerate(known):
        for ngram in ngrams(words.split(), NGRAM):
            index[ngram].append(number)
    stock = {ngram for ngram, numbers in index.items() if len(numbers) > MAX_TEXTS}
    distinctive = {ngram: numbers for ngram, numbers in index.items() if ngram not in stock}
    sizes = Counter(number for numbers in distinctive.values() for number in numbers)

    def find(text: str) -> tuple[str, ...]:
        words = plain_words(text).split()
        if len(words) < MIN_WORDS:
            return ()
        text_ngrams = ngrams(words, NGRAM) - stock
        shared = Counter(n for ngram in text_ngrams for n in distinctive.get(ngram, ()))
        near = [
            (-count, number)
            for number, count in shared.items()
            if count >= max(MIN_SHARED, MIN_SHARE * min(len(text_ngrams), sizes[number]))
        ]
        matches = [" ".join(words), *(known[number] for _, number in sorted(near))]
        return tuple(t for match in dict.fromkeys(matches) for t in by_words.get(match, ()))

    return find
