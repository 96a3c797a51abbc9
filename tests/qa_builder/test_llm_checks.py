"""Which language-model texts are accepted."""

import pytest
from writer_words import WORDS, make_clip

from tinymu_jax.qa_builder.llm import checks
from tinymu_jax.qa_builder.llm.checks import Draft, judge


def judged(draft, **fields):
    """Returns reason and detail of a rejection; None if the draft is accepted."""
    result = judge([draft], make_clip(7, **fields), WORDS, 1, 1)
    assert len(result.accepted) + len(result.rejected) == 1
    return tuple(result.rejected[0])[1:] if result.rejected else None


def ask(question, answer, category="mood"):
    return Draft(answer, question, category)


GUITAR = {"tags": {"instrument": ("guitar",)}, "captions": ()}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("A calm piano plays jazz.", {}),
        ("Pianos.", {}),
        ("Sad and slow.", {}),  # moods are not held against the tags
        ("An electric guitar.", GUITAR),
        ("A guitar.", {"tags": {"instrument": ("electric guitar",)}}),
        (
            "An electric guitar.",  # names the guitar too
            {
                "tags": {"instrument": ("electric guitar",)},
                "denied": {"instrument": ("guitar",)},
                "captions": (),
            },
        ),
        ("A banjo.", {"captions": ("Somebody plays the banjo.",)}),
        ("It has 4 beats, number 7.", {"captions": ("4 beats. Number 7.",)}),
        ("It has four beats.", {"captions": ("4 beats",)}),
        ("From the eighties.", {"tags": {"genre": ("80s pop",)}}),
        ("One can hear a piano.", {}),
        ("A producer tag.", {"captions": ("With a producer tag.",)}),
        ("A staged, captivating piece.", {}),
        ("word " * 60, {}),
        ("Über-calm: naïve piano!", {}),
    ],
)
def test_supported_texts_are_accepted(text, fields):
    assert judged(Draft(text.strip()), **fields) is None


@pytest.mark.parametrize(
    ("text", "reason", "detail", "fields"),
    [
        ("A calm banjo.", "names an unknown instrument", "banjo", {}),
        ("Rock!", "names an unknown genre", "rock", {}),
        ("A female voice sings.", "names an unknown voice", "female voice", {}),
        ("A piano.", "names an unknown instrument", "piano", GUITAR),
        (
            "A guitar.",
            "names a denied tag",
            "guitar",
            {"denied": {"instrument": ("guitar",)}, "captions": ("No guitar is heard.",)},
        ),
        ("Sad piano.", "names a denied tag", "sad", {"denied": {"mood": ("sad",)}}),
        ("It has 120 bpm.", "unknown number", "120", {}),
        ("Number 7 from 1985.", "unknown number", "1985", {}),
        ("Two pianos.", "unknown number", "2", {}),
        ("From the eighties.", "unknown number", "80", {}),
        ("The tags say calm.", "mentions tags, captions or metadata", "tags", {}),
        ("According to the caption, calm.", "mentions tags, captions or metadata", "caption", {}),
        ("By its metadata it is calm.", "mentions tags, captions or metadata", "metadata", {}),
        ("", "empty", "", {}),
        (" ... ", "empty", "", {}),
        ("word " * 61, "more than 60 words", "61", {}),
        ("Calm.\nSlow.", "several lines or unprintable characters", "", {}),
        ("Calm \ud800.", "several lines or unprintable characters", "", {}),
    ],
)
def test_unsupported_texts_are_rejected(text, reason, detail, fields):
    assert judged(Draft(text), **fields) == (reason, detail)


@pytest.mark.parametrize(
    ("draft", "fault"),
    [
        (ask("How does it feel?", "Calm."), None),
        (ask("What is played?", "Play."), None),  # of words, not of letters
        (ask("How does it feel?", "Nowhere near sad."), None),
        (ask("Is it calm or sad?", "It is calm."), None),
        (ask("Is it Calm or sad?", "calm!"), ("the question contains its answer", "calm!")),
        (ask("Is it calm?", "Yes."), ("answered by yes or no", "")),
        (ask("Is it sad?", "no, it is calm"), ("answered by yes or no", "")),
        (ask("How does it feel?", "Calm.", "feeling"), ("unknown category", "feeling")),
        (ask("How does it feel?", "Calm.", ""), ("unknown category", "")),
        (ask("How does it feel?", ""), ("empty", "")),
        (ask("", "Calm."), ("empty", "")),
        (ask("How does the banjo sound?", "Calm."), ("names an unknown instrument", "banjo")),
        (ask("How does it sound?", "Banjo."), ("names an unknown instrument", "banjo")),
    ],
)
def test_questions(draft, fault):
    assert judged(draft) == fault


def test_surplus_and_duplicate_drafts_are_rejected():
    drafts = [Draft("A."), Draft("a."), Draft("B."), Draft("C."), ask("D?", "E."), ask("D?", "F.")]
    result = judge(drafts, make_clip(), WORDS, 3, 1)
    assert [draft.answer for draft in result.accepted] == ["A.", "B.", "E."]
    assert [(one.draft.answer, one.reason) for one in result.rejected] == [
        ("a.", "duplicate"),
        ("C.", "more than requested"),
        ("F.", "more than requested"),
    ]


def test_numbers_in_words():
    expected = {"twelve": "12", "fourteen": "14", "forty": "40", "nineties": "90", "thirty": "30"}
    assert {word: checks._NUMBERS[word] for word in expected} == expected
