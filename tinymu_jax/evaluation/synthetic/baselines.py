"""Score baselines that use no audio: chance, the most frequent answer, the shortest option.

A baseline gets one score for each score of the model. For captions, a score is about one fact
(musical attribute) that the model's caption states.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from tinymu_jax.data.choice_baselines import length_baseline
from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS
from tinymu_jax.data.synthetic.questions import values_of
from tinymu_jax.evaluation.synthetic.grading import (
    CAPTION_FACTS,
    FormatScore,
    expected_value,
    named_values,
)
from tinymu_jax.evaluation.synthetic.items import SyntheticItem

ItemScores = Sequence[Sequence[FormatScore]]
"""Scores of the model's answer to each question."""


def extra_timbres(items: Sequence[SyntheticItem]) -> list[str]:
    """Return the sorted timbres of the clips that are not among the standard timbres in `FACTS`."""
    return sorted({item.truth.timbre for item in items} - set(FACTS["timbre"]))


def chance(items: Sequence[SyntheticItem], model_scores: ItemScores) -> list[FormatScore]:
    """Return the scores of random guessing: the probability that a guess is right."""
    extra = extra_timbres(items)

    def value(item: SyntheticItem, score: FormatScore) -> float:
        if item.task == MCQ:
            return 1 / len(item.options)
        return 1 / 2 if item.task == YES_NO else 1 / len(values_of(score.facts[0], extra))

    return _replace_values(items, model_scores, value)


def most_frequent(items: Sequence[SyntheticItem], model_scores: ItemScores) -> list[FormatScore]:
    """Return the scores of always giving the most frequent right answer.

    Answers are counted separately for each task and, in open questions, for each fact (musical
    attribute). A caption always states the most frequent value of each fact in the captioned clips.
    """
    answers: dict[tuple[str, ...], Counter[str | None]] = {}
    for item in items:
        answers.setdefault(_answer_group(item), Counter())[expected_value(item)] += 1
    captioned = [item.truth for item in items if item.task == CAPTIONING]
    values = {fact: Counter(getattr(truth, fact) for truth in captioned) for fact in FACTS}

    def value(item: SyntheticItem, score: FormatScore) -> float:
        if score.format == CAPTION_FACTS:
            fact = score.facts[0]
            return float(getattr(item.truth, fact) == _most_common(values[fact]))
        return float(expected_value(item) == _most_common(answers[_answer_group(item)]))

    return _replace_values(items, model_scores, value)


def shortest_option(items: Sequence[SyntheticItem], model_scores: ItemScores) -> list[FormatScore]:
    """Return the expected multiple-choice scores of always choosing the shortest option."""
    pairs = [
        (item, scores) for item, scores in zip(items, model_scores, strict=True) if item.task == MCQ
    ]

    def value(item: SyntheticItem, score: FormatScore) -> float:
        return length_baseline(item.options, LETTERS.index(expected_value(item) or ""))

    return _replace_values([item for item, _ in pairs], [scores for _, scores in pairs], value)


def match_caption_facts(
    item: SyntheticItem,
    model_scores: Sequence[FormatScore],
    baseline_scores: Sequence[FormatScore],
    answer: str,
    extra_timbres: Sequence[str],
) -> list[FormatScore]:
    """Return a baseline's scores, with its caption scored on the facts in the model's caption.

    `answer` is the baseline's caption. If it states no value or several values of a fact, the score
    is the probability of a right guess. `extra_timbres` are possible timbres beside the standard
    timbres in `FACTS`.
    """

    def value(fact: str) -> float:
        values = named_values(answer, fact)
        if len(values) != 1:
            return 1 / len(values_of(fact, extra_timbres))
        return float(values[0] == getattr(item.truth, fact))

    return [
        *(score for score in baseline_scores if score.format != CAPTION_FACTS),
        *(
            score._replace(value=value(score.facts[0]))
            for score in model_scores
            if score.format == CAPTION_FACTS
        ),
    ]


def _answer_group(item: SyntheticItem) -> tuple[str, ...]:
    """Return the key by which `most_frequent` groups questions: task and, if open, facts."""
    return (item.task, *item.facts) if item.task == QA else (item.task,)


def _most_common(counts: Counter[str | None]) -> str | None:
    """Return the most frequent answer; of ties, the first in alphabetical order."""
    return min(counts, key=lambda answer: (-counts[answer], str(answer)))


def _replace_values(
    items: Sequence[SyntheticItem],
    model_scores: ItemScores,
    value: Callable[[SyntheticItem, FormatScore], float],
) -> list[FormatScore]:
    return [
        score._replace(value=value(item, score))
        for item, scores in zip(items, model_scores, strict=True)
        for score in scores
    ]
