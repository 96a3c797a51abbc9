"""Duplicate questions are removed; similar ones are not."""

import json
import random
import sys

import pytest
from helpers import run_python

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.qa_builder.contamination.deduplicate import (
    DuplicateExample,
    DuplicateReport,
    is_free_text,
    remove_duplicates,
)
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem


def words(start, stop):
    return " ".join(f"word{number}" for number in range(start, stop))


def item(name, answer, prompt="Describe it.", task="Captioning", source="Caps", **more):
    return QAItem(AnnotatedClip(name, f"{name}.wav", source, ""), task, prompt, answer, **more)


def removed(*items):
    """Returns the indices of the removed questions."""
    remaining, duplicates = remove_duplicates(items)
    assert duplicates.exact + duplicates.near == len(items) - len(remaining)
    kept_ids = list(map(id, remaining))
    assert kept_ids == [id(one) for one in items if id(one) in set(kept_ids)]
    return [number for number, one in enumerate(items) if id(one) not in set(kept_ids)]


def rule(name, answer="Yes.", prompt="Is it slow?", **more):
    return item(name, answer, prompt, "Binary", **more)


def test_exact_duplicates_are_removed():
    assert removed(rule("a"), rule("b"), rule("a"), rule("a", "No."), rule("a")) == [2, 4]


@pytest.mark.parametrize(
    "other",
    [
        rule("b"),
        rule("a", "No."),
        rule("a", prompt="Is it fast?"),
        rule("a", source="Other"),
        # The same letters, otherwise divided.
        rule("a", ".", "Is it slow?Yes"),
    ],
)
def test_items_that_differ_in_one_field_stay(other):
    assert removed(rule("a"), other) == []


def test_rule_based_texts_may_repeat_templates():
    long = words(0, 30)
    assert removed(rule("a", long), rule("b", long), rule("a", f"{long}!")) == []


def test_captions_and_language_model_texts_are_free_texts():
    assert is_free_text(item("a", "A waltz."))
    assert is_free_text(rule("a", by=WRITER))
    assert not is_free_text(rule("a"))


# 40 words are 38 runs of three. With one word more at the end 38 of 39 are in both; before the last
# word, 37 of 40; before the last two, 36 of 41; in the middle of 22 words, 18 of 23.
@pytest.mark.parametrize(
    ("text", "other", "near"),
    [
        (words(0, 40), words(0, 40).upper().replace(" ", ", "), True),
        (words(0, 40), f"{words(0, 40)} more", True),
        (words(0, 40), f"{words(0, 39)} more {words(39, 40)}", True),
        (words(0, 40), f"{words(0, 38)} more {words(38, 40)}", False),
        (words(0, 22), f"{words(0, 11)} more {words(11, 22)}", False),
        (words(0, 40), " ".join(reversed(words(0, 40).split())), False),
        # 18 of 20 runs, which is the limit; 17 of 19.
        (words(0, 20), words(0, 22), True),
        (words(0, 19), words(0, 21), False),
    ],
)
def test_captions_are_near_from_a_similarity_of_nine_tenths(text, other, near):
    assert removed(item("a", text), item("b", other)) == ([1] if near else [])


def test_captions_are_compared_with_kept_ones_only():
    # Each is near to the one before it; the third is not near to the first (36 of 42 runs).
    texts = [words(number, number + 41) for number in (0, 1, 3)]
    assert removed(*(item(str(n), text) for n, text in enumerate(texts))) == [1]


def test_short_texts_are_compared_within_their_clip():
    short = [item("a", "A slow waltz."), item("b", "A slow waltz."), item("a", "a slow waltz")]
    assert removed(*short) == [2]
    eight = words(0, 8)
    assert removed(item("a", eight), item("b", eight)) == [1]


def test_a_language_models_questions_are_compared_with_their_answers():
    asked = words(0, 12)
    local = [
        item("a", words(20, 32), asked, "QA", by=WRITER),
        item("b", words(40, 52), asked, "QA", by=WRITER),
        item("c", words(20, 32), f"{asked}?", "QA", by=WRITER),
    ]
    assert removed(*local) == [2]


def test_removed_duplicates_are_reported():
    long = words(0, 30)
    items = [item("a", long), rule("a"), rule("a"), item("b", f"{long} more"), item("a", long)]
    _, duplicates = remove_duplicates(items)
    assert (duplicates.exact, duplicates.near) == (2, 1)
    assert duplicates.by_task == {"Captioning": 2, "Binary": 1}
    assert duplicates.by_task["QA"] == 0
    assert duplicates.examples == (
        DuplicateExample("exact", "Caps", "a", "Is it slow? Yes.", "Caps", "a", "Is it slow? Yes."),
        DuplicateExample("exact", "Caps", "a", long, "Caps", "a", long),
        DuplicateExample("near", "Caps", "b", f"{long} more", "Caps", "a", long),
    )


def test_reports_of_parts_merge_through_json():
    items = [rule(f"{n % 30:02}", str(n % 3)) for n in range(150)]
    _, whole = remove_duplicates(items)
    parts = [
        remove_duplicates([one for one in items if int(one.clip.clip) % 4 == part])[1]
        for part in range(4)
    ]
    joined = DuplicateReport.merge(json.loads(json.dumps(parts)))
    assert joined == whole
    assert whole.exact == 120
    assert len(whole.examples) == 20
    assert DuplicateReport.merge([]) == remove_duplicates([])[1] == (0, 0, {}, ())


def test_near_captions_equal_a_brute_force_search():
    rng = random.Random(0)
    texts = [[f"w{rng.randrange(500)}" for _ in range(rng.randint(8, 70))] for _ in range(150)]
    texts += [[w if rng.random() < 0.98 else "other" for w in text] for text in texts]
    rng.shuffle(texts)
    runs = [{tuple(text[n : n + 3]) for n in range(len(text) - 2)} for text in texts]
    stay = []
    for number, local in enumerate(runs):
        if all(10 * len(local & runs[one]) < 9 * len(local | runs[one]) for one in stay):
            stay.append(number)
    gone = [number for number in range(len(texts)) if number not in stay]
    assert 30 < len(gone) < 150
    assert removed(*(item(str(n), " ".join(text)) for n, text in enumerate(texts))) == gone


def test_datasketch_is_imported_lazily():
    module = "tinymu_jax.qa_builder.contamination.deduplicate"
    code = f"import sys, {module}; print('datasketch' in sys.modules)"
    assert run_python(code).strip() == "False"
    remove_duplicates([item("a", "A waltz.")])
    assert "datasketch" in sys.modules
