"""Evaluation on synthetic music, whose facts are known.

Every question is asked of its own clip, of the next clip and of none: a model that listens is
right on the first, and no better than guessing on the others. Of none, it is made to choose: what
a model says that hears nothing is often no answer at all, and that would be less than a guess.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.synthetic.baselines import (
    chance,
    extra_timbres,
    most_frequent,
    same_facts,
    shortest_option,
)
from tinymu_jax.evaluation.synthetic.grading import (
    Point,
    caption_beginnings,
    is_right,
    most_probable,
    points_of,
    possible_answers,
    reading,
    true_reading,
)
from tinymu_jax.evaluation.synthetic.items import REMEDY, TestItem, read_items
from tinymu_jax.evaluation.synthetic.scores import Scores, as_text, count_scores
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.engine import BatchEngine, Engine, Progress, Request, Response
from tinymu_jax.utils.files import make_folder, write_json, write_text

SCORES_FILE, TABLE_FILE, ANSWERS_FILE = "scores.json", "scores.txt", "answers.jsonl"


class Row(NamedTuple):
    """A question with the model's answer."""

    clip: str
    task: str
    facts: tuple[str, ...]
    prompt: str
    wanted: str
    answer: str
    right: bool
    scored: str | None
    """Letter of the most probable option, if options were scored."""
    no_audio: str | None
    """The answer without audio, if it was asked for: said, or chosen among the possible ones."""
    other_clip: str | None
    """The answer to the next clip's audio."""


@dataclass(frozen=True)
class Results:
    """What came out."""

    scores: Scores
    rows: tuple[Row, ...]


def evaluate(
    model: Assistant | Engine,
    folder: str | Path,
    scored: bool = False,
    blind: bool = True,
    max_clips: int | None = None,
    max_new_tokens: int = 128,
    progress: Progress = lambda done, total: None,
) -> Results:
    """Asks a model all questions of a folder of synthetic music, and marks the answers.

    Args:
        model: an assistant, or anything that answers.
        folder: that `tinymu_jax.data.synthetic.generate.synthesize` wrote.
        scored: also score the options of multiple choice; slower.
        blind: also ask without audio and with the next clip's; up to three times as many questions.
        max_clips: only the first so many clips.
        max_new_tokens: longest answer of an assistant.
        progress: called with the number of answers so far, and of all.

    Raises:
        InputError: the folder cannot be used: see `read_items`; as `Assistant.ask`.
    """
    asker = BatchEngine(model, max_new_tokens) if isinstance(model, Assistant) else model
    items = read_items(folder, max_clips)
    for item in items:
        if reading(item, item.wanted) != true_reading(item):
            fault = f"the answer {item.wanted!r} to {item.prompt!r} is not what the facts say"
            raise InputError(f"{item.path}: {fault}; {REMEDY}")
    clips = list(dict.fromkeys(item.path for item in items))
    ways = _ways(items, clips, scored, blind)
    asked = _in_order(ways, clips)
    found = asker.ask(asked, progress)
    for reply in found:
        if isinstance(reply, InputError):
            raise reply
    replies = dict(zip(asked, found, strict=True))
    answered = {way: [replies[one] for one in own] for way, own in ways.items()}
    cut = {one.audio for one, reply in replies.items() if reply.cut}
    return Results(_mark(items, answered, len(clips), len(cut)), _rows(items, answered))


def _ways(
    items: Sequence[TestItem], clips: Sequence[Path], scored: bool, blind: bool
) -> dict[str, list[Request]]:
    """Returns each question as it is put to its own clip, to none, and to the next one."""
    own = [
        Request(item.path, item.prompt, item.task, item.options if scored else ()) for item in items
    ]
    ways = {"model": own}
    if blind:
        extra = extra_timbres(items)
        answers = [possible_answers(item, extra) for item in items]
        begun = [caption_beginnings(item, extra) for item in items]
        ways["no_audio"] = [
            one._replace(audio=None, options=given or start or one.options, score_only=bool(given))
            for one, given, start in zip(own, answers, begun, strict=True)
        ]
    if blind and len(clips) > 1:  # there is no other one otherwise
        following = dict(zip(clips, clips[1:] + clips[:1], strict=True))
        ways["other_clip"] = [one._replace(audio=following[one.audio]) for one in own]
    return ways


def _in_order(ways: dict[str, list[Request]], clips: Sequence[Path]) -> list[Request]:
    """Returns all that is asked, each only once, clip by clip.

    What is asked without audio stands behind the clip that it belongs to: batches of nothing but
    silence would have a shape of their own.
    """
    place = {clip: number for number, clip in enumerate(clips)}
    behind = [
        ((place[own.audio if one.audio is None else one.audio], one.audio is None), one)
        for asked in ways.values()
        for own, one in zip(ways["model"], asked, strict=True)
    ]
    return list(dict.fromkeys(one for _, one in sorted(behind, key=lambda pair: pair[0])))


def _mark(
    items: Sequence[TestItem], answered: dict[str, list[Response]], clips: int, cut_clips: int
) -> Scores:
    extra = extra_timbres(items)
    marked = {
        way: [_points(*pair, extra) for pair in zip(items, replies, strict=True)]
        for way, replies in answered.items()
    }
    for way in marked.keys() - {"model"}:
        texts = [reply.text for reply in answered[way]]
        rows = zip(items, marked["model"], marked[way], texts, strict=True)
        marked[way] = [same_facts(*row, extra) for row in rows]
    points = {way: [point for own in marks for point in own] for way, marks in marked.items()}
    points |= {
        guess.__name__: guess(items, marked["model"])
        for guess in (chance, most_frequent, shortest_option)
    }
    return count_scores(points, clips, len(items), cut_clips)


def _points(item: TestItem, reply: Response, extra: Sequence[str]) -> list[Point]:
    """Returns an answer's marks; a caption's timbre by its most probable beginning, if scored.

    Hearing nothing, a caption may name no timbre, which would be less than a guess.
    """
    points = points_of(item, reply.text, reply.log_likelihoods)
    begun = caption_beginnings(item, extra)
    if begun and reply.log_likelihoods:
        points[0] = points_of(item, f"{most_probable(begun, reply.log_likelihoods)}.")[0]
    return points


def _rows(items: Sequence[TestItem], answered: dict[str, list[Response]]) -> tuple[Row, ...]:
    nothing = [None] * len(items)
    columns = zip(
        items,
        answered["model"],
        answered.get("no_audio", nothing),
        answered.get("other_clip", nothing),
        strict=True,
    )
    return tuple(
        Row(
            item.path.name,
            item.task,
            item.facts,
            item.prompt,
            item.wanted,
            own.text,
            is_right(item, own.text),
            most_probable(LETTERS, own.log_likelihoods) if own.log_likelihoods else None,
            silent and silent.text,
            other and other.text,
        )
        for item, own, silent, other in columns
    )


def write_results(results: Results, output: str | Path) -> Path:
    """Writes the scores (scores.json, scores.txt) and every answer (answers.jsonl) into a folder.

    Raises:
        InputError: the place cannot be written to.
    """
    output = make_folder(output)
    write_json(output / SCORES_FILE, results.scores.to_dict())
    write_text(output / TABLE_FILE, as_text(results.scores) + "\n")
    rows = (json.dumps(row._asdict(), ensure_ascii=False) for row in results.rows)
    write_text(output / ANSWERS_FILE, "".join(f"{row}\n" for row in rows))
    return output
