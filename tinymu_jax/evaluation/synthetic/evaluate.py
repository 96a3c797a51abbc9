"""Evaluate a model on synthetic music, whose facts (musical attributes) are known.

As baselines, every question is also asked without audio and with the next clip's audio. Without
audio, models often generate no valid answer, which would be worse than a guess. The baseline
therefore takes the most likely of the possible answers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.errors import InputError, note_damage
from tinymu_jax.evaluation.answer_parsing import most_probable
from tinymu_jax.evaluation.synthetic.baselines import (
    chance,
    extra_timbres,
    match_caption_facts,
    most_frequent,
    shortest_option,
)
from tinymu_jax.evaluation.synthetic.grading import (
    FormatScore,
    caption_prefixes,
    grade,
    is_right,
    parse_answer,
    possible_answers,
    value_from_facts,
)
from tinymu_jax.evaluation.synthetic.items import REMEDY, SyntheticItem, read_items
from tinymu_jax.evaluation.synthetic.scores import Scores, as_text, average_scores
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.engine import Engine, Request, Response
from tinymu_jax.utils.files import make_folder, write_json, write_text
from tinymu_jax.utils.progress import Progress, no_progress

SCORES_FILE, TABLE_FILE, ANSWERS_FILE = "scores.json", "scores.txt", "answers.jsonl"


class AnsweredItem(NamedTuple):
    """A question about a synthetic clip, with the expected answer and the model's answers."""

    clip: str
    task: str
    facts: tuple[str, ...]
    prompt: str
    expected: str
    answer: str
    right: bool
    scored: str | None
    """Letter of the most probable option; None if the options were not scored."""
    no_audio: str | None
    """Answer without audio, if asked: generated text, or the most probable possible answer."""
    other_clip: str | None
    """Answer to the question with the next clip's audio, if asked."""


@dataclass(frozen=True)
class SyntheticResult:
    """Scores of a model on synthetic music, and its answers to all questions."""

    scores: Scores
    rows: tuple[AnsweredItem, ...]


def evaluate(
    model: Assistant | Engine,
    folder: str | Path,
    score_options: bool = False,
    text_only: bool = True,
    max_clips: int | None = None,
    max_new_tokens: int = 128,
    progress: Progress = no_progress,
) -> SyntheticResult:
    """Ask a model all questions about a folder of synthetic clips, and grade the answers.

    Args:
        model: the model that answers.
        folder: the folder that `tinymu_jax.data.synthetic.generate.synthesize` wrote.
        score_options: whether to also compare multiple-choice options by likelihood (slower).
        text_only: whether to also ask without audio and with the next clip's audio, which takes up
            to three times as long.
        max_clips: the maximum number of clips to ask about; default all.
        max_new_tokens: the maximum number of tokens of an answer; ignored if `model` is an engine.
        progress: called with the number of answers so far and the total number.

    Raises:
        InputError: the folder, a clip or a prompt cannot be used.
    """
    engine = model.batch_engine(max_new_tokens) if isinstance(model, Assistant) else model
    items = read_items(folder, max_clips)
    for item in items:
        if parse_answer(item, item.expected) != value_from_facts(item):
            problem = f"the answer {item.expected!r} to {item.prompt!r} contradicts the facts"
            raise InputError(f"{item.path}: {problem}; {REMEDY}")
    clips = list(dict.fromkeys(item.path for item in items))
    conditions = _requests(items, clips, score_options, text_only)
    requests = _by_clip(conditions, clips)
    replies = engine.ask(requests, progress)
    for request, reply in zip(requests, replies, strict=True):
        if isinstance(reply, InputError):
            raise reply
        if reply.damage:
            note_damage(str(request.audio), reply.damage)
    response_to = dict(zip(requests, replies, strict=True))
    responses = {
        condition: [response_to[request] for request in group]
        for condition, group in conditions.items()
    }
    cut = {request.audio for request, response in response_to.items() if response.cut}
    scores = _scores(items, responses, len(clips), len(cut))
    return SyntheticResult(scores, _rows(items, responses))


def _requests(
    items: Sequence[SyntheticItem], clips: Sequence[Path], score_options: bool, text_only: bool
) -> dict[str, list[Request]]:
    """Return one request per question for each condition: its clip, no audio, the next clip."""
    requests = [
        Request(item.path, item.prompt, item.task, item.options if score_options else ())
        for item in items
    ]
    conditions = {"model": requests}
    if text_only:
        extra = extra_timbres(items)
        conditions["no_audio"] = [
            request._replace(
                audio=None,
                options=possible_answers(item, extra)
                or caption_prefixes(item, extra)
                or request.options,
                score_only=bool(possible_answers(item, extra)),
            )
            for item, request in zip(items, requests, strict=True)
        ]
    if text_only and len(clips) > 1:
        following = dict(zip(clips, clips[1:] + clips[:1], strict=True))
        conditions["other_clip"] = [r._replace(audio=following[r.audio]) for r in requests]
    return conditions


def _by_clip(conditions: Mapping[str, list[Request]], clips: Sequence[Path]) -> list[Request]:
    """Sort the distinct requests by clip; a clip's requests without audio come last."""
    place = {clip: number for number, clip in enumerate(clips)}
    pairs = [
        (original, request)
        for requests in conditions.values()
        for original, request in zip(conditions["model"], requests, strict=True)
    ]

    def key(pair: tuple[Request, Request]) -> tuple[int, bool]:
        original, request = pair
        without = request.audio is None
        return place[original.audio if without else request.audio], without

    return list(dict.fromkeys(request for _, request in sorted(pairs, key=key)))


def _scores(
    items: Sequence[SyntheticItem],
    responses: Mapping[str, list[Response]],
    clips: int,
    cut_clips: int,
) -> Scores:
    extra = extra_timbres(items)
    graded = {
        condition: [_grade(*pair, extra) for pair in zip(items, replies, strict=True)]
        for condition, replies in responses.items()
    }
    for condition in graded.keys() - {"model"}:
        texts = [response.text for response in responses[condition]]
        rows = zip(items, graded["model"], graded[condition], texts, strict=True)
        graded[condition] = [match_caption_facts(*row, extra) for row in rows]
    scores = {
        condition: [score for item_scores in by_item for score in item_scores]
        for condition, by_item in graded.items()
    }
    scores |= {
        baseline.__name__: baseline(items, graded["model"])
        for baseline in (chance, most_frequent, shortest_option)
    }
    return average_scores(scores, clips, len(items), cut_clips)


def _grade(item: SyntheticItem, response: Response, extra: Sequence[str]) -> list[FormatScore]:
    """Return the scores of the response to a question.

    If the response scores the possible first words of a caption (see `caption_prefixes`), the most
    probable ones decide the timbre. `extra` are possible timbres beside the standard ones.
    """
    scores = grade(item, response.text, response.log_likelihoods)
    prefixes = caption_prefixes(item, extra)
    if prefixes and response.log_likelihoods:
        scores[0] = grade(item, f"{prefixes[most_probable(response.log_likelihoods)]}.")[0]
    return scores


def _rows(
    items: Sequence[SyntheticItem], responses: Mapping[str, list[Response]]
) -> tuple[AnsweredItem, ...]:
    none = [None] * len(items)
    columns = zip(
        items,
        responses["model"],
        responses.get("no_audio", none),
        responses.get("other_clip", none),
        strict=True,
    )
    return tuple(
        AnsweredItem(
            item.path.name,
            item.task,
            item.facts,
            item.prompt,
            item.expected,
            response.text,
            is_right(item, response.text),
            LETTERS[most_probable(response.log_likelihoods)] if response.log_likelihoods else None,
            no_audio and no_audio.text,
            other_clip and other_clip.text,
        )
        for item, response, no_audio, other_clip in columns
    )


def write_results(result: SyntheticResult, output: str | Path) -> Path:
    """Write scores.json, scores.txt and answers.jsonl to a folder; return the folder.

    Raises:
        InputError: the folder cannot be written.
    """
    output = make_folder(output)
    write_json(output / SCORES_FILE, result.scores.to_dict())
    write_text(output / TABLE_FILE, as_text(result.scores) + "\n")
    rows = (json.dumps(row._asdict(), ensure_ascii=False) for row in result.rows)
    write_text(output / ANSWERS_FILE, "".join(f"{row}\n" for row in rows))
    return output
