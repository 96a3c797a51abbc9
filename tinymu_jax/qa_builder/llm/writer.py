"""Add captions and questions that a language model writes to the rule-based ones.

Module `prompt` makes requests, `checks` rejects unsupported texts, `cache` stores answers.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.question_formats import CAPTIONING, QA
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.llm.cache import answer_log, ask_all
from tinymu_jax.qa_builder.llm.checks import Draft, MalformedAnswerError, judge, parse
from tinymu_jax.qa_builder.llm.client import LLMClient
from tinymu_jax.qa_builder.llm.prompt import WriterRequest, make_request
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem
from tinymu_jax.qa_builder.questions.seeded_choice import hash_choice, hash_int
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary
from tinymu_jax.utils.progress import Progress, no_progress

NOTHING_KNOWN = "it has no tags and no captions"


@dataclass(frozen=True)
class WriterConfig:
    """Settings of the language model: server, model name, requests, and limits per clip."""

    url: str
    """Base URL of a server with an OpenAI-compatible API, for example http://localhost:8000/v1."""
    model: str | None = None
    """Name of the model; None: the first model that the server lists."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key; saved settings contain only this name."""
    timeout: float = 60.0
    """Seconds to wait for an answer."""
    retries: int = 3
    """Number of further attempts if the server fails or its answer is malformed."""
    parallel: int = 8
    """Maximum number of concurrent requests."""
    captions: int = 2
    """Maximum number of captions per clip."""
    questions: int = 3
    """Maximum number of questions per clip."""
    temperature: float = 0.7
    seed: int = 0
    """Random seed; the seed of each request is a hash of this seed and the clip."""

    def check(self) -> None:
        """Raise `InputError` if a setting is out of its range."""
        minimums = {"retries": 0, "parallel": 1, "captions": 0, "questions": 0}
        for name, minimum in minimums.items():
            if not minimum <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}: give {minimum} or more")
        if not 0 < self.timeout < math.inf:
            raise InputError(f"timeout is {self.timeout}: give seconds, more than 0")
        if not 0 <= self.temperature <= 2:
            raise InputError(f"temperature is {self.temperature}: give 0 to 2")
        if not self.captions + self.questions:
            raise InputError("captions and questions are both 0: give 1 or more of one of them")


class WriterReport(NamedTuple):
    """Numbers of requested clips, and of accepted and rejected captions and questions."""

    model: str
    requested: int
    """Number of clips sent to the server in this run."""
    cached: int
    """Number of clips whose answers were in the cache."""
    captions: int
    questions: int
    rejected: Mapping[str, int]
    """Number of rejected texts by reason; the cache lists the texts."""
    skipped: tuple[tuple[AnnotatedClip, str], ...]
    """Clips without a usable answer, each with the reason."""

    def summary(self, cache: Path) -> str:
        """Return the numbers of the report and the path of the cache in one line."""
        rejected = ", ".join(f"{reason}: {n}" for reason, n in sorted(self.rejected.items()))
        return (
            f"{self.model} wrote {self.captions} captions and {self.questions} questions "
            f"({self.cached} clips from {cache}); rejected: {rejected or 'none'}; "
            f"{len(self.skipped)} clips skipped"
        )


def write_items(
    clips: Sequence[AnnotatedClip],
    vocabulary: Vocabulary,
    templates: Templates,
    config: WriterConfig,
    cache: Path,
    progress: Progress = no_progress,
) -> tuple[list[QAItem], WriterReport]:
    """Return captions and questions about clips, written by a language model, and a report.

    Requests are sent only if `cache`, a JSONL file, does not hold their answers. No server is
    needed if the cache holds all answers and `config` names the model. Cached answers are checked
    again. Texts are in the order of the clips, with the captions of a clip first.

    Raises:
        InputError: a setting is out of its range, the server gives no usable answer, or the cache
            is malformed or cannot be written.
    """
    config.check()
    client = LLMClient(config.url, config.timeout, config.retries, config.key_variable)
    log = answer_log(cache)
    texts = log.read()
    model = config.model or next(iter(client.models()), None)
    if model is None:
        raise InputError(f"{client.url}: the server lists no model; name one")
    requests = [_request(clip, model, config) for clip in clips]
    judge_clip = partial(
        judge, vocabulary=vocabulary, captions=config.captions, questions=config.questions
    )
    new_answers = ask_all(client, requests, texts, log, judge_clip, config.parallel, progress)
    texts |= {one.request.key: one.text for one in new_answers if one.text is not None}
    errors = {one.request.key: one.error for one in new_answers if one.text is None}
    items: list[QAItem] = []
    rejected: Counter[str] = Counter()
    skipped = []
    for clip, request in zip(clips, requests, strict=True):
        try:
            drafts = _drafts(request, texts, errors)
        except MalformedAnswerError as error:
            skipped.append((clip, str(error)))
            continue
        judged = judge_clip(drafts, clip)
        rejected.update(one.reason for one in judged.rejected)
        items += _items(clip, judged.accepted, vocabulary, templates, config.seed)
    captions = sum(item.task == CAPTIONING for item in items)
    cached = len({one.key for one in requests if one}) - len(new_answers)
    counts = (len(new_answers), cached, captions, len(items) - captions)
    return items, WriterReport(model, *counts, dict(rejected), tuple(skipped))


def _request(clip: AnnotatedClip, model: str, config: WriterConfig) -> WriterRequest | None:
    if not clip.captions and not any(clip.tags.values()):
        return None
    amounts = config.captions, config.questions
    return make_request(clip, model, *amounts, config.temperature, config.seed)


def _drafts(
    request: WriterRequest | None, texts: Mapping[str, str], errors: Mapping[str, str]
) -> list[Draft]:
    """Return the drafts in the answer to a request; raise `MalformedAnswerError` if unusable.

    `texts` has the answers, and `errors` the reasons why answers are missing, by request key.
    """
    if request is None:
        raise MalformedAnswerError(NOTHING_KNOWN)
    if request.key in errors:
        raise MalformedAnswerError(errors[request.key])
    return parse(texts[request.key])


def _items(
    clip: AnnotatedClip,
    drafts: Sequence[Draft],
    vocabulary: Vocabulary,
    templates: Templates,
    seed: int,
) -> list[QAItem]:
    items = []
    for draft in drafts:
        tags: tuple[str, ...] = ()
        if draft.question is None:
            task = CAPTIONING
            # Captions come first: the number of items so far is the index of the caption.
            about = (seed, clip.source, clip.clip, len(items))
            prompt = hash_choice(templates.of("caption"), *about)
        else:
            task, prompt = QA, draft.question
            names = sorted(clip.tags.get(draft.category, ()))
            tags = tuple(
                name
                for name in names
                if vocabulary.mentions(draft.answer, Tag(draft.category, name))
            )
        key = hash_int(seed, task, WRITER, clip.source, clip.clip, clip.start, prompt, draft.answer)
        items.append(
            QAItem(clip, task, prompt, draft.answer, draft.category, tags, by=WRITER, key=key)
        )
    return items
