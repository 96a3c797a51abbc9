"""Send requests about clips to a language model in parallel, and log every answer.

A repeated or resumed build sends only the requests whose answers are not in the log.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.llm.checks import (
    SCHEMA,
    Draft,
    JudgedDrafts,
    MalformedAnswerError,
    parse,
)
from tinymu_jax.qa_builder.llm.client import LLMClient, UnansweredError
from tinymu_jax.qa_builder.llm.prompt import WriterRequest
from tinymu_jax.utils.jsonl import JsonlLog
from tinymu_jax.utils.progress import Progress

MAX_FAILURES = 20
"""A build fails if its first 20 requests get no usable answer, or 20 in a row get no answer."""


class WriterAnswer(NamedTuple):
    """Answer of the language model to a request."""

    request: WriterRequest
    text: str | None
    """Text of the answer; None if the server gave no answer."""
    error: str = ""
    """Reason why the answer is missing or unusable; "" if it is usable."""


Judge = Callable[[Sequence[Draft], AnnotatedClip], JudgedDrafts]


def answer_log(path: Path) -> JsonlLog[str]:
    """Return the log file at a path, which maps request keys to answer texts."""
    remedy = "move the file away, or name another folder"
    return JsonlLog(path, _read_answer, "a cached answer", remedy)


def _read_answer(row: Any) -> str:
    if not isinstance(row["answer"], str):
        raise TypeError("the answer is not a string")
    return row["answer"]


def ask_all(
    client: LLMClient,
    requests: Sequence[WriterRequest | None],
    texts: Mapping[str, str],
    log: JsonlLog[str],
    judge: Judge,
    parallel: int,
    progress: Progress,
) -> list[WriterAnswer]:
    """Send the requests whose answers are not in `texts`; log and return the new answers.

    `texts` maps request keys to logged answers. `judge` accepts or rejects the captions and
    questions in an answer, for the log. At most `parallel` requests run at a time. Malformed
    answers are logged too, so that they are not requested again. They are logged only after the
    first usable answer, because a misconfigured server may give malformed answers only.

    Raises:
        InputError: the server is down or gives no usable answer, or the log cannot be written.
    """
    by_key = {one.key: one for one in requests if one}
    missing = [one for key, one in by_key.items() if key not in texts]
    cached, total = len(by_key) - len(missing), len(by_key)
    progress(cached, total)
    if not missing:
        return []
    client.models()  # fails at once, not request by request, if the server is down
    answers: list[WriterAnswer] = []
    unlogged: list[WriterAnswer] = []
    try:
        with log.writing(), ThreadPool(parallel) as pool:
            for answer in pool.imap_unordered(partial(_ask, client), missing):
                answers.append(answer)
                unlogged.append(answer)
                if len(unlogged) < len(answers) or not answer.error:
                    log.append(_row(one, judge) for one in unlogged if one.text is not None)
                    unlogged = []
                _check_failures(answers, bool(unlogged), client, log.path)
                progress(cached + len(answers), total)
    finally:
        client.close()
    return answers


def _ask(client: LLMClient, request: WriterRequest) -> WriterAnswer:
    """Return the answer to a request; request malformed answers again with other seeds."""
    answer = WriterAnswer(request, None)
    for attempt in range(client.retries + 1):
        settings = dict(request.settings) | {"seed": request.settings["seed"] + attempt}
        text = None
        try:
            text = client.complete(request.messages, SCHEMA, **settings)
            parse(text)
        except UnansweredError as error:
            answer = WriterAnswer(request, None, f"the server {error}")
            if not error.retry:
                break
        except MalformedAnswerError as error:
            answer = WriterAnswer(request, text, str(error))
        else:
            return WriterAnswer(request, text)
    return answer


def _check_failures(
    answers: Sequence[WriterAnswer], none_usable: bool, client: LLMClient, path: Path
) -> None:
    """Raise `InputError` after `MAX_FAILURES` answers if none is usable or the last are missing."""
    last = answers[-MAX_FAILURES:]
    if len(last) < MAX_FAILURES:
        return
    if none_usable:
        problem = f"the first {MAX_FAILURES} clips got no usable answer"
    elif all(answer.text is None for answer in last):
        problem = f"{MAX_FAILURES} clips in a row got no answer"
    else:
        return
    raise InputError(
        f"{client.url}: {problem} (last: {last[-1].error}); check the server or name another "
        f"model, then start again: the answers so far are in {path}"
    )


def _row(answer: WriterAnswer, judge: Judge) -> dict[str, Any]:
    """Return the log entry of an answer, with its accepted and rejected drafts."""
    clip = answer.request.clip
    judged = JudgedDrafts((), ())
    if not answer.error:
        judged = judge(parse(answer.text), clip)
    return {
        "key": answer.request.key,
        "clip": clip.clip,
        "source": clip.source,
        **answer.request.settings,
        "answer": answer.text,
        "accepted": [" | ".join(draft.texts) for draft in judged.accepted],
        "rejected": [
            {"text": " | ".join(one.draft.texts), "reason": one.reason, "detail": one.detail}
            for one in judged.rejected
        ],
        "error": answer.error,
    }
