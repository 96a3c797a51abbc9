"""Cache the responses of an evaluation in a file, so that a killed run can be continued."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from tinymu_jax.audio.files import find_file
from tinymu_jax.errors import InputError, note_damage
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.engine import Engine, Request, Response
from tinymu_jax.mesh import MeshConfig, make_mesh
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import make_folder
from tinymu_jax.utils.jsonl import JsonlLog
from tinymu_jax.utils.progress import Progress, no_progress

RESPONSES_FILE = "responses.jsonl"
RECORDINGS_PER_WRITE = 64
"""Number of recordings whose responses are written at once; a kill loses at most this many."""
CachedEngine = Callable[[Sequence[Request]], list[Response | InputError]]
"""Function that returns a response to each request, or the error of a failed request."""


class EvalModel(NamedTuple):
    """A model under evaluation."""

    name: str
    """Name or path of the checkpoint."""
    engine: CachedEngine
    """Function that answers requests; an evaluation passes all its requests in one call."""
    count_tokens: Callable[[str], int] = len
    """Function that returns the number of tokens of a prompt."""
    max_prompt_tokens: int = 129
    """Maximum number of tokens of a prompt; a question with a longer prompt is skipped."""
    settings: Mapping[str, str] = MappingProxyType({})
    """Settings of the model by name, for the report."""


class ResponseCache(NamedTuple):
    """A file that caches responses, and the model whose responses may be reused."""

    path: Path
    model: str
    """Text that identifies the model and its settings; responses of other models are not reused."""


def cached_engine(
    model: Assistant, output: Path, max_new_tokens: int, progress: Progress
) -> CachedEngine:
    """Return a function that answers requests on all local devices and caches the responses.

    The folder `output` holds the cache. `progress` is called with the number of responses so far
    and the total number.
    """
    mesh = make_mesh(MeshConfig(), jax.local_devices()) if jax.local_device_count() > 1 else None
    engine = model.batch_engine(max_new_tokens, mesh)
    identity = {
        "config": model.config.to_dict(),
        "weights": fingerprint.of_weights(model.params),
        "tokenizer": fingerprint.of_text(model.tokenizer.text),
        "max_new_tokens": max_new_tokens,
    }
    if model.keep_damaged:
        identity["keep_damaged"] = True
    cache = ResponseCache(make_folder(output) / RESPONSES_FILE, json.dumps(identity, default=str))
    return lambda requests: run_cached(engine, requests, cache, progress)


def run_cached(
    engine: Engine,
    requests: Sequence[Request],
    cache: ResponseCache,
    progress: Progress = no_progress,
) -> list[Response | InputError]:
    """Return the response to each request, or its error, from the cache or else from the engine.

    New responses are appended to the cache, errors are not. Equal requests run once. `progress` is
    called with the number of responses so far and the total number.

    Raises:
        InputError: the cache holds anything but responses, or cannot be read or written.
    """
    log = JsonlLog(
        cache.path, _parse, "a response", "move the file away, or name another output folder"
    )
    keys = _keys(requests, cache.model)
    cached, total = log.read(), len(set(keys))
    responses: dict[str, Response | InputError] = {k: cached[k] for k in keys if k in cached}
    missing = {k: request for k, request in zip(keys, requests, strict=True) if k not in responses}
    if missing:
        with log.writing():
            for batch in _batches(missing):
                before = len(responses)
                replies = engine.ask(
                    list(batch.values()),
                    lambda done, _, before=before: progress(before + done, total),
                )
                answered = dict(zip(batch, replies, strict=True))
                log.append(
                    _row(key, batch[key], reply)
                    for key, reply in answered.items()
                    if isinstance(reply, Response)
                )
                responses |= answered
    progress(total, total)
    for key, request in zip(keys, requests, strict=True):
        response = responses[key]
        if isinstance(response, Response) and response.damage:
            note_damage(str(request.audio), response.damage)
    return [responses[key] for key in keys]


def _keys(requests: Sequence[Request], model: str) -> list[str]:
    """Return each request's cache key: a hash of everything that determines the response."""
    recordings = {request.audio: _file_state(request.audio) for request in requests}
    return [
        fingerprint.of_text(
            json.dumps([model, recordings[r.audio], r.prompt, r.options, r.score_only])
        )
        for r in requests
    ]


def _file_state(audio: Path | None) -> list[Any]:
    """Return a recording's path, modification time and size, to detect a replaced file."""
    try:
        status = os.stat("" if audio is None else find_file(audio))
    except (OSError, ValueError):  # missing, or a name that no file can have
        return [str(audio)]
    return [str(audio), status.st_mtime_ns, status.st_size]


def _batches(requests: Mapping[str, Request]) -> Iterator[dict[str, Request]]:
    """Split requests, by cache key, into batches; requests about one recording stay together."""

    def recording(item: tuple[str, Request]) -> str:
        return "" if item[1].audio is None else str(item[1].audio)

    groups: list[list[tuple[str, Request]]] = []
    for name, group in groupby(sorted(requests.items(), key=recording), key=recording):
        items = list(group)
        groups += [items] if name else [[item] for item in items]
    for start in range(0, len(groups), RECORDINGS_PER_WRITE):
        block = groups[start : start + RECORDINGS_PER_WRITE]
        yield {key: request for group in block for key, request in group}


def _row(key: str, request: Request, response: Response) -> dict[str, Any]:
    """Return a response as a JSON object; the request is included for human readers."""
    return {
        "key": key,
        "audio": None if request.audio is None else str(request.audio),
        "prompt": request.prompt,
        "options": list(request.options),
        **response._asdict(),
    }


def _parse(row: Mapping[str, Any]) -> Response:
    row = {"damage": None, **row}  # not in the rows of earlier versions
    values = (row[name] for name in Response._fields)
    return Response(*(tuple(v) if isinstance(v, list) else v for v in values))
