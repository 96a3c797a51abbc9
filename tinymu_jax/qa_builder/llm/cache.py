"""Answers of a language model: asked for side by side, kept as they come, one a line.

The file is only ever added to: a run that was killed, or a build that is made again, asks for what
is not there.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.llm.checks import SCHEMA, Draft, Judged, MalformedAnswerError, parse
from tinymu_jax.qa_builder.llm.client import LLMServer, UnansweredError
from tinymu_jax.qa_builder.llm.prompt import Request
from tinymu_jax.utils.files import exists, make_folder, read_text, write_text

GIVE_UP = 20
"""Clips: so many at the start without anything that can be used, or so many in a row without any
answer, and it is the server that is at fault."""

REMEDY = "move the file away, or name another folder"


class WriterAnswer(NamedTuple):
    """What came back about a clip."""

    request: Request
    text: str | None
    """None: nothing came."""
    fault: str = ""
    """Why nothing can be made of it."""


class AnswerCache(NamedTuple):
    """Where answers go, and what is said of them there."""

    path: Path
    """Of the file; it is gone on with if it is there."""
    judge: Callable[[AnnotatedClip, Sequence[Draft]], Judged]


def read_answers(path: Path) -> dict[str, str]:
    """Returns kept texts by their keys; a line that a kill cut short is taken off the file.

    Raises:
        InputError: the file holds something else, or cannot be read.
    """
    if not exists(path):
        return {}
    whole, newline, rest = read_text(path, REMEDY).rpartition("\n")
    if rest:
        write_text(path, whole + newline)
    found = {}
    for number, line in enumerate(whole.split("\n") if newline else (), 1):
        try:
            row = json.loads(line)
            key, text = row["key"], row["answer"]
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path}: line {number} is no kept answer; {REMEDY}") from error
        if not (isinstance(key, str) and isinstance(text, str)):
            raise InputError(f"{path}: line {number} has no key or no answer; {REMEDY}")
        found[key] = text
    return found


def ask_all(
    server: LLMServer,
    requests: Sequence[Request],
    kept: AnswerCache,
    parallel: int,
    progress: Callable[[int], Any],
) -> list[WriterAnswer]:
    """Asks, some requests at a time, and keeps each answer at once.

    Nonsense is kept too, so that it is not asked for again, once there is anything better.

    Args:
        server: that answers.
        requests: in the order in which they are put.
        kept: where answers go.
        parallel: requests at once.
        progress: called with the number of requests that are done.

    Returns:
        An answer to each request, in the order in which they came.

    Raises:
        InputError: the server gives nothing that can be used, or the file cannot be written.
    """
    found: list[WriterAnswer] = []
    held: list[WriterAnswer] = []
    try:
        with _open(kept.path) as file, ThreadPool(parallel) as pool:
            for answer in pool.imap_unordered(partial(_ask, server), requests):
                found.append(answer)
                held.append(answer)
                if len(held) < len(found) or not answer.fault:
                    _write(file, held, kept)
                    held = []
                _check_luck(found, bool(held), server, kept.path)
                progress(len(found))
    finally:
        server.stop()
    return found


def _ask(server: LLMServer, request: Request) -> WriterAnswer:
    """Asks about a clip; where nonsense comes, again with other seeds."""
    text = fault = ""
    for more in range(server.patience.retries + 1):
        settings = dict(request.settings) | {"seed": request.settings["seed"] + more}
        try:
            text = server.complete(request.messages, SCHEMA, **settings)
            parse(text)
        except UnansweredError as error:
            return WriterAnswer(request, None, f"the server {error}")
        except MalformedAnswerError as error:
            fault = str(error)
        else:
            return WriterAnswer(request, text)
    return WriterAnswer(request, text, fault)


def _check_luck(
    found: Sequence[WriterAnswer], only_faults: bool, server: LLMServer, path: Path
) -> None:
    """Ends a run whose server gives nothing.

    Raises:
        InputError: it does.
    """
    last = found[-GIVE_UP:]
    if len(last) < GIVE_UP:
        return
    if only_faults:
        what = f"the first {GIVE_UP} clips got no answer that can be used"
    elif all(answer.text is None for answer in last):
        what = f"{GIVE_UP} clips in a row got no answer"
    else:
        return
    raise InputError(
        f"{server.url}: {what} (at last: {last[-1].fault}); see to the server or name another "
        f"model, then start again: what was answered is kept in {path}"
    )


def _write(file: TextIO, answers: Sequence[WriterAnswer], kept: AnswerCache) -> None:
    """Adds answers to the file; those that did not come are left out."""
    for answer in answers:
        if answer.text is None:
            continue
        clip = answer.request.clip
        judged = Judged((), ())
        if not answer.fault:
            judged = kept.judge(clip, parse(answer.text))
        line = {
            "key": answer.request.key,
            "clip": clip.clip,
            "source": clip.source,
            **answer.request.settings,
            "answer": answer.text,
            "accepted": [_shown(draft) for draft in judged.accepted],
            "refused": [
                {"text": _shown(one.draft), "reason": one.reason, "detail": one.detail}
                for one in judged.refused
            ],
            "fault": answer.fault,
        }
        try:
            # Letters beyond ASCII are escaped, so that a kill cannot leave half of one.
            file.write(json.dumps(line) + "\n")
            file.flush()
        except OSError as error:
            raise _unwritten(kept.path, error) from error


def _open(path: Path) -> TextIO:
    make_folder(path.parent)
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> InputError:
    problem = f"cannot be written ({error.strerror or error})"
    return InputError(f"{path}: {problem}; name a place that can be written to")


def _shown(draft: Draft) -> str:
    return " | ".join(draft.texts)
