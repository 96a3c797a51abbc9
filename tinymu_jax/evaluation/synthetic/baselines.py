"""What can be had without listening: chance, the most frequent answer, the shortest option.

A point of a guess stands for each point of the model's: the same questions, and of captions the
same facts that the model chose to tell.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from tinymu_jax.data.choice_baselines import length_baseline
from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.facts import FACTS
from tinymu_jax.data.synthetic.questions import values_of
from tinymu_jax.evaluation.synthetic.grading import CAPTION_FACTS, Point, named, right_reading
from tinymu_jax.evaluation.synthetic.items import TestItem


def extra_timbres(items: Sequence[TestItem]) -> list[str]:
    """Returns the timbres of the clips that are none of `FACTS`, by the alphabet."""
    return sorted({item.truth.timbre for item in items} - set(FACTS["timbre"]))


def chance(items: Sequence[TestItem], marked: Sequence[Sequence[Point]]) -> list[Point]:
    """Returns how probably a blind guess is right.

    Args:
        items: the questions.
        marked: the model's points of each.
    """
    extra = extra_timbres(items)

    def share(item: TestItem, point: Point) -> float:
        if item.task == MCQ:
            return 1 / len(item.options)
        return 1 / 2 if item.task == YES_NO else 1 / len(values_of(point.facts[0], extra))

    return _each(items, marked, share)


def same_facts(
    item: TestItem, points: Sequence[Point], own: Sequence[Point], answer: str, extra: Sequence[str]
) -> list[Point]:
    """Returns a blind answer's points, of a caption for the facts that the model told of the clip.

    A fact that the blind caption does not name, or names twice, is guessed.

    Args:
        item: the question.
        points: of the model's answer.
        own: of the blind answer.
        answer: the blind answer.
        extra: as `extra_timbres`.
    """

    def share(fact: str) -> float:
        values = named(answer, fact)
        if len(values) != 1:
            return 1 / len(values_of(fact, extra))
        return float(values[0] == getattr(item.truth, fact))

    kept = [point for point in own if point.format != CAPTION_FACTS]
    told = [point for point in points if point.format == CAPTION_FACTS]
    return kept + [point._replace(share=share(point.facts[0])) for point in told]


def most_frequent(items: Sequence[TestItem], marked: Sequence[Sequence[Point]]) -> list[Point]:
    """Returns what the answer gets that is right most often: of each format; of QA, of each fact.

    Of a caption, it is the timbre that most captions are about, and so for any other fact told.

    Args:
        items: the questions.
        marked: the model's points of each.
    """
    answers: dict[tuple[str, ...], Counter[str | None]] = {}
    for item in items:
        answers.setdefault(_kind(item), Counter())[right_reading(item)] += 1
    captioned = [item.truth for item in items if item.task == CAPTIONING]
    told = {fact: Counter(getattr(truth, fact) for truth in captioned) for fact in FACTS}

    def share(item: TestItem, point: Point) -> float:
        if point.format == CAPTION_FACTS:
            fact = point.facts[0]
            return float(getattr(item.truth, fact) == _first(told[fact]))
        return float(right_reading(item) == _first(answers[_kind(item)]))

    return _each(items, marked, share)


def shortest_option(items: Sequence[TestItem], marked: Sequence[Sequence[Point]]) -> list[Point]:
    """Returns what the shortest option gets, in characters; options of one length share.

    Args:
        items: the questions; those without options get no points.
        marked: the model's points of each.
    """
    pairs = [(item, points) for item, points in zip(items, marked, strict=True) if item.task == MCQ]

    def share(item: TestItem, point: Point) -> float:
        return length_baseline(item.options, LETTERS.index(right_reading(item) or ""))

    return _each([item for item, _ in pairs], [points for _, points in pairs], share)


def _kind(item: TestItem) -> tuple[str, ...]:
    """Returns which questions have one most frequent answer."""
    return (item.task, *item.facts) if item.task == QA else (item.task,)


def _first(counted: Counter[str | None]) -> str | None:
    """Returns the most frequent; of equals the first by the alphabet."""
    return min(counted, key=lambda answer: (-counted[answer], str(answer)))


def _each(
    items: Sequence[TestItem],
    marked: Sequence[Sequence[Point]],
    share: Callable[[TestItem, Point], float],
) -> list[Point]:
    """Returns the model's points with another share."""
    return [
        point._replace(share=share(item, point))
        for item, points in zip(items, marked, strict=True)
        for point in points
    ]
