"""One shard of a prepared data set: written whole by one process, or not at all."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of
from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.features import (
    as_embeddings,
    as_log_mel,
    as_waveform,
    num_columns,
    read_recording,
    read_text_tokens,
)
from tinymu_jax.data.musicskills import ClipQuestions
from tinymu_jax.data.records import Record, StoredQuestion, encode_record
from tinymu_jax.errors import InputError
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.files import write_atomic, write_json
from tinymu_jax.utils.process_pool import SPAWN, worker_pool

ClipFeatures = tuple[ClipQuestions, np.ndarray | InputError]


class Shard(NamedTuple):
    """Work for one process."""

    path: Path
    """Of the `.array_record`."""
    clips: Sequence[ClipQuestions]
    features: FeatureConfig
    tokenizer: str | None
    """The text of a `tokenizer.json`; None where nothing is asked."""


def read_features(shard: Shard, done: Callable[[], Any]) -> Iterable[ClipFeatures]:
    """Yields every clip with its waveform, log-mel or text, or with what is wrong with it.

    Args:
        shard: its clips, and what is to be stored.
        done: called after each clip.
    """
    store = shard.features.kind
    make = as_waveform if store == "waveform" else as_log_mel
    tokenizer = _tokenizer_of(shard)
    for clip in shard.clips:
        try:
            if store == "text":
                yield clip, read_text_tokens(clip.path, tokenizer)
            else:
                yield clip, make(read_recording(clip.path, shard.features))
        except InputError as error:
            yield clip, error
        done()


def write_shard(shard: Shard, featured: Iterable[ClipFeatures], side: int = 16) -> dict[str, Any]:
    """Writes a shard and the page beside it; returns the page.

    Args:
        shard: where, and with which tokenizer.
        featured: every clip with its features or its fault.
        side: frames of one of the encoder's columns.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    tokenizer = _tokenizer_of(shard)
    page: dict[str, Any] = {"columns": [], "prompts": [], "answers": [], "bad": []}

    def write(partial: Path) -> None:
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        for clip, features in featured:
            if isinstance(features, InputError):
                page["bad"].append({"clip": str(clip.path), "reason": str(features)})
                continue
            record = Record(str(clip.path), clip.dataset, features, _tokenised(clip, tokenizer))
            writer.write(encode_record(record))
            page["columns"].append(num_columns(features, shard.features.kind, side))
            page["prompts"].append([len(q.prompt_ids) for q in record.questions])
            page["answers"].append([len(q.answer_ids) for q in record.questions])
        writer.close()

    write_atomic(shard.path, write)
    page |= {"name": shard.path.name, "bytes": shard.path.stat().st_size}
    write_json(shard.path.with_suffix(".json"), page)
    return page


def _tokenizer_of(shard: Shard) -> Tokenizer | None:
    return None if shard.tokenizer is None else Tokenizer(shard.tokenizer)


def _tokenised(clip: ClipQuestions, tokenizer: Tokenizer | None) -> tuple[StoredQuestion, ...]:
    return tuple(
        StoredQuestion(
            *pair,
            np.array(tokenizer.encode(pair.prompt), np.int32),
            np.array(tokenizer.encode(pair.answer), np.int32),
        )
        for pair in clip.pairs
    )


ENCODE_BATCH = 8
"""Clips in one call of the encoder."""

Progress = Callable[[int, int], Any]
"""Called with the clips that are done, and all."""


class ProgressCounter:
    """Clips that are done, told to `progress`."""

    def __init__(self, done: int, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = done, total, progress
        progress(done, total)

    def show(self, more: int) -> None:
        """Tells that `more` clips are done beyond those before."""
        self.progress(self.done + more, self.total)


_shared: Any = None
"""In a worker: the clips that all workers have done."""


def _start_worker(counter: Any) -> None:
    global _shared
    _shared = counter
    # Workers share the cores; what they compute is small.
    os.environ["JAX_PLATFORMS"] = "cpu"


def _work(shard: Shard) -> dict[str, Any]:
    def done() -> None:
        with _shared.get_lock():
            _shared.value += 1

    return write_shard(shard, read_features(shard, done))


def make_shards(
    work: Sequence[Shard], workers: int, count: ProgressCounter
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Makes shards in processes; yields number and page of each as it is done."""
    if not work:
        return
    counter = SPAWN.Value("q", 0)
    workers = min(workers or os.cpu_count() or 1, len(work))
    with worker_pool(workers, _start_worker, (counter,)) as pool:
        futures: dict[Future, int] = {pool.submit(_work, s): i for i, s in enumerate(work)}
        while futures:
            finished, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
            count.show(counter.value)
            for future in finished:
                yield futures.pop(future), future.result()


def encode_shards(
    work: Sequence[Shard], encoder: Checkpoint, count: ProgressCounter
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Makes shards of embeddings: recordings are read in threads, and encoded here in batches."""
    import jax

    from tinymu_jax.inference.chunked_encoding import encode_clips
    from tinymu_jax.inference.param_layout import by_rows, unstack
    from tinymu_jax.models import matpac

    config, params, *_ = encoder_of(encoder)
    laid_out = jax.device_put(by_rows(unstack(params, matpac.param_axes(config))))
    made = 0

    def featured(shard: Shard, pool: ThreadPoolExecutor) -> Iterable[ClipFeatures]:
        nonlocal made

        def try_read(clip: ClipQuestions) -> Any:
            try:
                return read_recording(clip.path, shard.features)
            except InputError as error:
                return error

        for start in range(0, len(shard.clips), ENCODE_BATCH):
            group = shard.clips[start : start + ENCODE_BATCH]
            clips = list(pool.map(try_read, group))
            good = [clip.samples for clip in clips if not isinstance(clip, InputError)]
            vectors = iter(encode_clips(laid_out, good, config))
            for clip, heard in zip(group, clips, strict=True):
                fault = isinstance(heard, InputError)
                yield clip, heard if fault else as_embeddings(next(vectors)[0])
            made += len(group)
            count.show(made)

    with ThreadPoolExecutor() as pool:
        for number, shard in enumerate(work):
            yield number, write_shard(shard, featured(shard, pool), config.patch_size)
