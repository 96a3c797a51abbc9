"""Synthetic questions: well formed, balanced, and at chance without the clip."""

import re
from collections import Counter, defaultdict
from itertools import permutations

import numpy as np
import pytest

from tinymu_jax.data.question_formats import CAPTIONING, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE, draw_facts
from tinymu_jax.data.synthetic.questions import (
    QuestionMix,
    ask_binary,
    ask_choice,
    describe,
    make_questions,
)
from tinymu_jax.data.synthetic.templates import BINARY, CAPTION, CHOICE, NAMES, OPEN

MIX = QuestionMix(captions=1, open=4, choice=4, binary=4)
OWN_NAMES = {f: [NAMES[f][value] for value in values] for f, values in FACTS.items()}
FACT_OF = {name: fact for fact, names in OWN_NAMES.items() for name in names}
OPTION = re.compile(r"\(([A-D])\) (.+?)(?= \([A-D]\) |\. The correct answer is:$)")
PROMPT = re.compile(
    r"Question: .+\? Options: \(A\) .+ \(B\) .+ \(C\) .+ \(D\) .+\. The correct .+:"
)


def ask_many(clips, seed, held_out=False):
    """Returns (facts, questions about them) of many clips."""
    rng = np.random.default_rng(seed)
    drawn = [draw_facts(rng, held_out) for _ in range(clips)]
    return [(facts, make_questions(rng, facts, MIX)) for facts in drawn]


@pytest.fixture(scope="module")
def learnt():
    return ask_many(1500, seed=1)


@pytest.fixture(scope="module")
def tested():
    return ask_many(1500, seed=2, held_out=True)


def of_task(asked, task):
    return [(facts, q) for facts, part in asked for q in part if q.task == task]


def in_words(name, text):
    """Returns whether a name stands in a text as whole words."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def share_error(count, share):
    """Returns how far off a share of a count may be by chance: five standard deviations."""
    return 5 * (share * (1 - share) / count) ** 0.5


# --- names -------------------------------------------------------------------------------------


def test_no_name_is_part_of_another():
    names = [name for part in NAMES.values() for name in part.values()]
    assert len(set(names)) == len(names) == sum(map(len, FACTS.values())) + 1
    for one, other in permutations(names, 2):
        assert not in_words(one, other), (one, other)


def test_every_value_has_a_name_and_every_fact_its_questions():
    for fact, values in FACTS.items():
        extra = [NEW_TIMBRE] if fact == "timbre" else []
        assert list(NAMES[fact]) == [*values, *extra]
        assert len(OPEN[fact]) > 1
        assert len(BINARY[fact]) > 1
        assert all(prompt.count("{}") == 1 for prompt in BINARY[fact])


def test_the_prompt_implies_the_facts():
    prompts = Counter(prompt for part in OPEN.values() for prompt in part)
    prompts += Counter(list(CAPTION))
    prompts += Counter(
        prompt.format(name)
        for fact, part in BINARY.items()
        for prompt in part
        for name in NAMES[fact].values()
    )
    assert prompts.most_common(1)[0][1] == 1


# --- answers -----------------------------------------------------------------------------------


def names_of(facts):
    return {NAMES[fact][value] for fact, value in facts._asdict().items()}


def assert_is_answered(facts, question):
    """Finds the answer from the prompt and the facts alone."""
    prompt, true = question.prompt, names_of(facts)
    if question.task == QA:
        (fact,) = (fact for fact, prompts in OPEN.items() if prompt in prompts)
        expected = NAMES[fact][getattr(facts, fact)]
    elif question.task == YES_NO:
        (name,) = (name for name in FACT_OF if in_words(name, prompt))
        expected = "Yes." if name in true else "No."
    elif question.task == MCQ:
        assert PROMPT.fullmatch(prompt)
        options = OPTION.findall(prompt)
        (right,) = ((x, text) for x, text in options if true.issuperset(text.split(", ")))
        expected = "({}) {}".format(*right)
        assert [f"({x}) {text}" for x, text in options] == list(question.options)
    else:
        reported = [NAMES[fact][getattr(facts, fact)] for fact in CAPTION[prompt]]
        assert NAMES["timbre"][facts.timbre] in reported
        expected = f"You hear {', '.join(reported)}."
    assert question.answer == expected, question


def test_answers_follow_from_prompt_and_facts(learnt):
    seen = Counter()
    for facts, asked in learnt[:300]:
        for question in asked:
            assert_is_answered(facts, question)
            seen[question.task] += 1
    assert seen == {
        task: 300 * count for task, count in zip((CAPTIONING, QA, MCQ, YES_NO), MIX, strict=True)
    }


def test_a_format_asks_for_each_fact_once(learnt):
    for _, asked in learnt[:300]:
        for task in (QA, YES_NO):
            about = [q.facts for q in asked if q.task == task]
            assert len(set(about)) == len(about)


def test_four_options_are_values_of_one_fact_or_of_four(learnt):
    for facts, question in of_task(learnt, MCQ):
        texts = [text for _, text in OPTION.findall(question.prompt)]
        assert len(set(texts)) == 4
        true = [text for text in texts if text in names_of(facts)]
        assert question.answer.split(") ")[1] == true[0]
        assert len(true) == 1
        if len(question.facts) == 1:
            assert set(texts) <= set(OWN_NAMES["timbre"])
        else:
            assert sorted(FACT_OF[text] for text in texts) == sorted(question.facts)


def test_a_description_names_all_facts():
    rng = np.random.default_rng(0)
    facts = draw_facts(rng, held_out=False)
    texts = [describe(rng, facts).removeprefix("You hear ").removesuffix(".") for _ in range(20)]
    tellings = [text.split(", ") for text in texts]
    assert all(set(reported) == names_of(facts) and len(reported) == 10 for reported in tellings)
    assert len(set(map(tuple, tellings))) == 20


def test_an_additional_timbre_is_asked_about():
    """Of a clip with a usual timbre the new one is a wrong option, of its own the right one."""
    rng = np.random.default_rng(0)
    usual = draw_facts(rng, held_out=False)
    new, name = usual._replace(timbre=NEW_TIMBRE), NAMES["timbre"][NEW_TIMBRE]
    asked = {
        facts: [ask_choice(rng, facts, ["timbre"], (NEW_TIMBRE,)) for _ in range(100)]
        for facts in (usual, new)
    }
    assert all(name in q.answer for q in asked[new])
    offered = [q for q in asked[usual] if any(name in option for option in q.options)]
    assert len(offered) > 20
    assert not any(name in q.answer for q in offered)


# --- balance -----------------------------------------------------------------------------------


def test_right_letters_are_balanced(learnt):
    asked = of_task(learnt, MCQ)
    for kind in (1, 4):
        letters = Counter(q.answer[1] for _, q in asked if len(q.facts) == kind)
        count = letters.total()
        assert sorted(letters) == list("ABCD")
        for letter, times in letters.items():
            assert abs(times / count - 0.25) < share_error(count, 0.25), (kind, letter)


@pytest.mark.parametrize("fact", FACTS)
def test_half_of_the_answers_are_yes(fact):
    rng, yes, asked = np.random.default_rng(3), Counter(), Counter()
    for _ in range(2000):
        question = ask_binary(rng, draw_facts(rng, held_out=False), fact)
        (name,) = (name for name in OWN_NAMES[fact] if in_words(name, question.prompt))
        asked[name] += 1
        yes[name] += question.answer == "Yes."
    assert set(asked) == set(OWN_NAMES[fact])
    for name, count in asked.items():
        assert abs(yes[name] / count - 0.5) < share_error(count, 0.5), name


def test_right_options_are_balanced_over_facts(learnt):
    asked = [q for _, q in of_task(learnt, MCQ) if len(q.facts) == 4]
    right = Counter(FACT_OF[q.answer.split(") ")[1]] for q in asked)
    assert set(right) == set(FACTS)
    assert max(right.values()) < 1.5 * min(right.values())


# --- blind -------------------------------------------------------------------------------------


def mean_of(hits):
    return 100 * float(np.mean(hits))


def most_often(pairs):
    """Returns, for each key, what goes with it most often."""
    result = defaultdict(Counter)
    for key, value in pairs:
        result[key][value] += 1
    return {key: values.most_common(1)[0][0] for key, values in result.items()}


def test_letters_and_lengths_of_options_are_uninformative(learnt, tested):
    (letter,) = most_often((0, q.answer[1]) for _, q in of_task(learnt, MCQ)).values()
    hits = defaultdict(list)
    for _, question in of_task(tested, MCQ):
        hits["letter"].append(question.answer[1] == letter)
        for name, pick in (("shortest", min), ("longest", max)):
            best = pick(map(len, question.options))
            tied = [option for option in question.options if len(option) == best]
            hits[name].append((question.answer in tied) / len(tied))
    for name, part in hits.items():
        assert mean_of(part) == pytest.approx(25, abs=4), name


def test_options_that_were_often_right_are_no_better(learnt, tested):
    right, offered = Counter(), Counter()
    for _, question in of_task(learnt, MCQ):
        right[question.answer[4:]] += 1
        offered.update(option[4:] for option in question.options)
    hits = [
        question.answer == max(question.options, key=lambda o: right[o[4:]] / (offered[o[4:]] or 1))
        for _, question in of_task(tested, MCQ)
    ]
    assert mean_of(hits) == pytest.approx(25, abs=4)


def test_questions_do_not_predict_yes_or_no(learnt, tested):
    best = most_often((q.prompt, q.answer) for _, q in of_task(learnt, YES_NO))
    hits = [q.answer == best.get(q.prompt, "Yes.") for _, q in of_task(tested, YES_NO)]
    assert mean_of(hits) == pytest.approx(50, abs=4)


def test_open_questions_do_not_predict_their_answers(learnt, tested):
    best = most_often((q.prompt, q.answer) for _, q in of_task(learnt, QA))
    hits = [q.answer == best[q.prompt] for _, q in of_task(tested, QA)]
    chance = np.mean([1 / len(values) for values in FACTS.values()])
    assert mean_of(hits) == pytest.approx(100 * chance, abs=4)


def test_captions_have_the_same_wording_for_all_clips(learnt):
    prompts = Counter(q.prompt for _, q in of_task(learnt, CAPTIONING))
    assert set(prompts) == set(CAPTION)
    beginnings = {q.prompt.split("?")[0] for _, q in of_task(learnt, MCQ)}
    assert beginnings == {f"Question: {text[:-1]}" for text in CHOICE}
