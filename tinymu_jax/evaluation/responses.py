"""Replies kept as they come, one json object a line: an evaluation that was killed goes on.

A line is found again by what was asked, heard and used to answer, so that nothing is taken from a
run of another model or another recording.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.engine import BatchEngine, Engine, Progress, Request, Response
from tinymu_jax.mesh import MeshConfig, make_mesh
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import exists, make_folder, read_text, write_text

TOGETHER = 64
"""Recordings whose replies are kept at once: what a kill loses."""


class ResponseCache(NamedTuple):
    """Where replies are kept, and what they depend on beside the question."""

    path: Path
    """Of the file; it is gone on with if it is there."""
    model: str
    """What tells this model, and how it is used, from any other."""


def run_cached(
    asker: Engine,
    asked: Sequence[Request],
    kept: ResponseCache,
    progress: Progress = lambda done, total: None,
) -> list[Response | InputError]:
    """Asks what was not asked before, and keeps the replies.

    Args:
        asker: answers.
        asked: the questions; those on one recording need not stand together.
        kept: where replies are, and go.
        progress: called with the number of replies so far, and of all.

    Returns:
        A reply to each; the fault of a recording or prompt in its place, which is not kept.

    Raises:
        InputError: the file holds something else, or cannot be written.
    """
    there = _read(kept.path)
    keys = _keys(asked, kept.model)
    found: dict[str, Response | InputError] = {key: there[key] for key in keys if key in there}
    missing = {key: one for key, one in zip(keys, asked, strict=True) if key not in found}
    pairs = sorted(missing.items(), key=lambda pair: _place(pair[1].audio))
    total = len(set(keys))
    for batch in _batches(pairs):
        before = len(found)
        replies = asker.ask(
            [one for _, one in batch],
            lambda done, _, before=before: progress(before + done, total),
        )
        with kept.path.open("a", encoding="utf-8") as file:
            for (key, one), reply in zip(batch, replies, strict=True):
                found[key] = reply
                if isinstance(reply, Response):
                    file.write(json.dumps(_line(key, one, reply)) + "\n")
    progress(total, total)
    return [found[key] for key in keys]


def _keys(asked: Sequence[Request], model: str) -> list[str]:
    """Returns what each question is found again by: all that its reply depends on."""
    recordings = {one.audio: _state(one.audio) for one in asked}
    return [
        fingerprint.of_text(
            json.dumps([model, recordings[one.audio], one.prompt, one.options, one.choose])
        )
        for one in asked
    ]


def _state(audio: Path | None) -> list[Any]:
    """Returns name, time and size of a recording: one that was replaced is asked about anew."""
    if audio is None or not exists(audio):
        return [str(audio)]
    status = os.stat(audio)
    return [str(audio), status.st_mtime_ns, status.st_size]


def _place(audio: Path | None) -> str:
    return "" if audio is None else str(audio)


def _batches(pairs: Sequence[tuple[str, Request]]) -> Iterator[list[tuple[str, Request]]]:
    """Yields questions, all on some recordings at a time; of those on none, as many."""
    runs: list[list[tuple[str, Request]]] = []
    for place, run in groupby(pairs, key=lambda pair: _place(pair[1].audio)):
        own = list(run)
        runs += [own] if place else [[pair] for pair in own]
    for start in range(0, len(runs), TOGETHER):
        yield [pair for run in runs[start : start + TOGETHER] for pair in run]


def _line(key: str, one: Request, reply: Response) -> dict[str, Any]:
    """Returns what is kept of a reply: all of it, and what was asked, for whoever reads it."""
    return {
        "key": key,
        "audio": None if one.audio is None else str(one.audio),
        "prompt": one.prompt,
        "options": list(one.options),
        **reply._asdict(),
    }


def _read(path: Path) -> dict[str, Response]:
    """Returns the replies of an earlier run; a line that a kill cut short is taken off the file."""
    if not exists(path):
        return {}
    remedy = "move the file away, or name another output"
    text = read_text(path, remedy)
    whole, _, rest = text.rpartition("\n")
    if rest:
        write_text(path, f"{whole}\n" if whole else "")
    found = {}
    # Only "\n" ends a line: texts hold other separators.
    for number, line in enumerate(whole.split("\n") if whole else (), 1):
        try:
            row = json.loads(line)
            found[row["key"]] = Response(row["text"], tuple(row["log_likelihoods"]), row["cut"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{path}: line {number} is no reply; {remedy}") from error
    return found


REPLIES_FILE = "replies.jsonl"


def cached_engine(
    model: Assistant, output: Path, max_new_tokens: int, progress: Progress
) -> Callable[[Sequence[Request]], list[Response | InputError]]:
    """Returns what puts questions to a model and keeps the replies in a folder.

    Args:
        model: the assistant.
        output: folder of the evaluation.
        max_new_tokens: of an answer.
        progress: called with the number of replies so far, and of all.
    """
    mesh = make_mesh(MeshConfig(), jax.local_devices()) if jax.local_device_count() > 1 else None
    asker = BatchEngine(model, max_new_tokens, mesh)
    depends = {
        "config": model.config.to_dict(),
        "weights": fingerprint.of_weights(model.params),
        "tokenizer": fingerprint.of_text(model.tokenizer.text),
        "max_new_tokens": max_new_tokens,
    }
    kept = ResponseCache(make_folder(output) / REPLIES_FILE, json.dumps(depends, default=str))
    return lambda asked: run_cached(asker, asked, kept, progress)
