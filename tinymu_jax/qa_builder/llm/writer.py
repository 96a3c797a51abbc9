"""A language model as a writer of captions and questions, beside the rules.

It sees what is known of a clip (`tinymu_jax.qa_builder.llm.prompt`); what it writes is checked
against that (`.writer_checks`), and its answers are kept (`.writer_answers`).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.question_formats import CAPTIONING, QA
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.llm.cache import AnswerCache, WriterAnswer, ask_all, read_answers
from tinymu_jax.qa_builder.llm.checks import (
    Draft,
    Judged,
    MalformedAnswerError,
    TagWords,
    judge,
    parse,
)
from tinymu_jax.qa_builder.llm.client import LLMServer, RetryPolicy
from tinymu_jax.qa_builder.llm.prompt import Request, request_for
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem
from tinymu_jax.qa_builder.questions.seeded_choice import hash_choice, hash_int
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.vocabulary import Tag

NOTHING_KNOWN = "it has no tags and no captions"


@dataclass(frozen=True)
class WriterConfig:
    """Which server writes, and how much."""

    url: str
    """Of a server that speaks OpenAI's protocol, as http://localhost:8000/v1."""
    model: str | None = None
    """None: the first that the server names."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key, if it wants one. The key itself is
    in no config, so that none can be written down with it."""
    timeout: float = 60.0
    """Seconds for an answer."""
    retries: int = 3
    """Tries after the first one."""
    first_wait: float = 1.0
    """Seconds before the second try of a server that cannot be reached, is busy or broken; twice
    as long before each one after it, or as long as the server says, up to a minute."""
    parallel: int = 8
    """Requests at once."""
    captions: int = 2
    """Of a clip, at most."""
    questions: int = 3
    """Of a clip, at most."""
    temperature: float = 0.7
    seed: int = 0
    """With the clip it gives the seed that the server gets."""


class WriterReport(NamedTuple):
    """What became of the clips."""

    model: str
    asked: int
    """Clips that the server was asked about now."""
    cached: int
    """Clips that it was asked about before."""
    captions: int
    """Accepted."""
    questions: int
    """Accepted."""
    refused: Mapping[str, int]
    """Texts that were left out, by reason; the cache holds each of them."""
    skipped: tuple[tuple[AnnotatedClip, str], ...]
    """Clips that nothing was written about, each with the reason."""

    def summary(self, cache: Path) -> str:
        """Returns the counts in one line."""
        refused = ", ".join(f"{why}: {n}" for why, n in sorted(self.refused.items()))
        return (
            f"{self.model} wrote {self.captions} captions and {self.questions} questions "
            f"({self.cached} clips from {cache}); refused: {refused or 'none'}; "
            f"{len(self.skipped)} clips skipped"
        )


def write_items(
    clips: Sequence[AnnotatedClip],
    vocabulary: TagWords,
    templates: Templates,
    config: WriterConfig,
    cache: Path,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> tuple[list[QAItem], WriterReport]:
    """Lets a language model write captions and questions.

    The server is asked only for what the cache does not hold; where it holds everything and the
    model is named, none is needed. Answers are judged whenever they are read.

    Args:
        clips: with the vocabulary's tags.
        vocabulary: tells which tags a text names.
        templates: gives the prompts of captions.
        config: which server, and how much.
        cache: a jsonl of answers; it is gone on with if it is there.
        progress: called with the number of clips that are done, and of all.

    Returns:
        Items in the order of the clips, captions first; and what became of the clips.

    Raises:
        InputError: a setting that cannot be; no server; one that gives nothing that can be used;
            a cache that is none or cannot be written.
    """
    _check(config)
    patience = RetryPolicy(config.timeout, config.retries, config.first_wait)
    server = LLMServer(config.url, patience, config.key_variable)
    texts = read_answers(cache)
    model = config.model or _first_model(server)
    requests = [_request(clip, model, config) for clip in clips]
    asked = _ask_missing(server, requests, texts, vocabulary, config, cache, progress)
    texts |= {one.request.key: one.text for one in asked if one.text is not None}
    silent = {one.request.key: one.fault for one in asked if one.text is None}
    items: list[QAItem] = []
    refused: Counter[str] = Counter()
    skipped = []
    for clip, request in zip(clips, requests, strict=True):
        try:
            drafts = _drafts(request, texts, silent)
        except MalformedAnswerError as error:
            skipped.append((clip, str(error)))
            continue
        judged = _judge(clip, drafts, vocabulary, config)
        refused.update(one.reason for one in judged.refused)
        items += _items(clip, judged.accepted, vocabulary, config.seed, templates)
    captions = sum(item.task == CAPTIONING for item in items)
    cached = len({one.key for one in requests if one}) - len(asked)
    report = WriterReport(
        model, len(asked), cached, captions, len(items) - captions, dict(refused), tuple(skipped)
    )
    return items, report


def _ask_missing(
    server: LLMServer,
    requests: Sequence[Request | None],
    texts: Mapping[str, str],
    vocabulary: TagWords,
    config: WriterConfig,
    cache: Path,
    progress: Callable[[int, int], Any],
) -> list[WriterAnswer]:
    """Asks for what is not there."""
    wanted = {one.key: one for one in requests if one}
    missing = [one for key, one in wanted.items() if key not in texts]
    cached = len(wanted) - len(missing)
    progress(cached, len(wanted))
    if not missing:
        return []
    if config.model:
        server.models()  # a server that is down is told at once, not clip by clip
    kept = AnswerCache(cache, lambda clip, drafts: _judge(clip, drafts, vocabulary, config))
    return ask_all(
        server, missing, kept, config.parallel, lambda done: progress(cached + done, len(wanted))
    )


def _check(config: WriterConfig) -> None:
    """Refuses settings that cannot be."""
    lowest = {"retries": 0, "parallel": 1, "captions": 0, "questions": 0, "first_wait": 0}
    for name, least in lowest.items():
        if not least <= getattr(config, name) < math.inf:
            raise InputError(f"{name} is {getattr(config, name)}: give {least} or more")
    if not 0 < config.timeout < math.inf:
        raise InputError(f"timeout is {config.timeout}: give seconds, more than 0")
    if not 0 <= config.temperature <= 2:
        raise InputError(f"temperature is {config.temperature}: give 0 to 2")
    if not config.captions + config.questions:
        raise InputError("captions and questions are 0: let the language model write one of them")


def _first_model(server: LLMServer) -> str:
    names = server.models()
    if not names:
        raise InputError(f"{server.url}: the server names no model; name one yourself")
    return names[0]


def _request(clip: AnnotatedClip, model: str, config: WriterConfig) -> Request | None:
    """Returns what is asked about a clip; None where nothing is known of it."""
    if not clip.captions and not any(clip.tags.values()):
        return None
    wanted = config.captions, config.questions
    return request_for(clip, model, *wanted, config.temperature, config.seed)


def _drafts(
    request: Request | None, texts: Mapping[str, str], silent: Mapping[str, str]
) -> list[Draft]:
    """Returns what was written about a clip.

    Raises:
        NonsenseError: nothing; the message says why.
    """
    if request is None:
        raise MalformedAnswerError(NOTHING_KNOWN)
    if request.key in silent:
        raise MalformedAnswerError(silent[request.key])
    return parse(texts[request.key])


def _judge(
    clip: AnnotatedClip, drafts: Sequence[Draft], vocabulary: TagWords, config: WriterConfig
) -> Judged:
    return judge(drafts, clip, vocabulary, config.captions, config.questions)


def _items(
    clip: AnnotatedClip,
    drafts: Sequence[Draft],
    vocabulary: TagWords,
    seed: int,
    templates: Templates,
) -> list[QAItem]:
    """Returns what was accepted in the form of all questions."""
    items = []
    for draft in drafts:
        if draft.question is None:
            # Captions come first, so that they are counted by the items so far.
            task = CAPTIONING
            about = (seed, clip.source, clip.clip, len(items))
            prompt = hash_choice(templates.of("caption"), *about)
            named: tuple[str, ...] = ()
        else:
            task, prompt = QA, draft.question
            own = clip.tags.get(draft.category, ())
            tags = (Tag(draft.category, name) for name in own)
            named = tuple(sorted(t.name for t in tags if vocabulary.mentions(draft.answer, t)))
        key = hash_int(seed, task, WRITER, clip.source, clip.clip, clip.start, prompt, draft.answer)
        items.append(
            QAItem(clip, task, prompt, draft.answer, draft.category, named, by=WRITER, key=key)
        )
    return items
