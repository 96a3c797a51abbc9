"""Writes the shards of a prepared data set; a shard is written atomically by one process."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tinymu_jax.audio.load import Clip
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
from tinymu_jax.data.unusable import bad_entry
from tinymu_jax.errors import InputError
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.files import write_atomic, write_json
from tinymu_jax.utils.process_pool import SPAWN, worker_pool

ENCODE_BATCH = 8
"""Number of clips per call of the encoder."""
ClipFeatures = tuple[ClipQuestions, np.ndarray | InputError]
"""A clip with its questions, and either its features or the error that reading them raised."""
FinishedShard = tuple[int, dict[str, Any]]
"""The index of a written shard in the given sequence of shards, and the shard's manifest."""
ReportDone = Callable[[int], Any]
"""Callback that receives the number of clips done so far."""


class Shard(NamedTuple):
    """A shard (file) to write: the clips that it holds, and how to read and tokenize them."""

    path: Path
    """Path of the `.array_record` file."""
    clips: Sequence[ClipQuestions]
    features: FeatureConfig
    tokenizer: str | None
    """Contents of a `tokenizer.json`; None if there are neither questions nor texts to encode."""


def write_shard(
    shard: Shard, clip_features: Iterable[ClipFeatures], patch_size: int = 16
) -> dict[str, Any]:
    """Write a shard's clips and its manifest (a .json file beside it); return the manifest.

    A clip whose features are an error is not written, but listed under `bad` in the manifest.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    tokenizer = None if shard.tokenizer is None else Tokenizer(shard.tokenizer)
    manifest: dict[str, Any] = {"columns": [], "prompts": [], "answers": [], "bad": []}

    def encode(text: str) -> np.ndarray:
        return np.array(tokenizer.encode(text), np.int32)

    def write(partial: Path) -> None:
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        for clip, features in clip_features:
            if isinstance(features, InputError):
                manifest["bad"].append(bad_entry(clip.path, features))
                continue
            questions = tuple(
                StoredQuestion(*question, encode(question.prompt), encode(question.answer))
                for question in clip.questions
            )
            writer.write(encode_record(Record(str(clip.path), clip.dataset, features, questions)))
            manifest["columns"].append(num_columns(features, shard.features.kind, patch_size))
            manifest["prompts"].append([len(q.prompt_ids) for q in questions])
            manifest["answers"].append([len(q.answer_ids) for q in questions])
        writer.close()

    write_atomic(shard.path, write)
    manifest |= {"name": shard.path.name, "bytes": shard.path.stat().st_size}
    write_json(shard.path.with_suffix(".json"), manifest)
    return manifest


def read_features(shard: Shard, done: Callable[[], Any]) -> Iterator[ClipFeatures]:
    """Yield each clip with its waveform, log-mel, tokens or error; call `done` after each clip."""
    kind = shard.features.kind
    convert = as_waveform if kind == "waveform" else as_log_mel
    tokenizer = None if shard.tokenizer is None else Tokenizer(shard.tokenizer)
    for clip in shard.clips:
        try:
            if kind == "text":
                yield clip, read_text_tokens(clip.path, tokenizer)
            else:
                yield clip, convert(read_recording(clip.path, shard.features))
        except InputError as error:
            yield clip, error
        done()


# In a worker process: the shared counter of the clips that all workers have done.
_clips_done: Any = None


def _start_worker(counter: Any) -> None:
    global _clips_done
    _clips_done = counter
    # Log-mels are cheap; workers must not claim the accelerator. jax, which is imported by now,
    # ignores the environment.
    for option in ("jax_platforms", "jax_platform_name"):
        jax.config.update(option, "cpu")


def _read_and_write(shard: Shard) -> dict[str, Any]:
    def done() -> None:
        with _clips_done.get_lock():
            _clips_done.value += 1

    return write_shard(shard, read_features(shard, done))


def make_shards(
    shards: Sequence[Shard], workers: int, report_done: ReportDone
) -> Iterator[FinishedShard]:
    """Write shards in `workers` processes (0: one per core); yield each when it is finished.

    `report_done` is called repeatedly with the number of clips done so far.
    """
    if not shards:
        return
    counter = SPAWN.Value("q", 0)
    workers = min(workers or os.cpu_count() or 1, len(shards))
    with worker_pool(workers, _start_worker, (counter,)) as pool:
        futures: dict[Future, int] = {
            pool.submit(_read_and_write, shard): i for i, shard in enumerate(shards)
        }
        while futures:
            finished, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
            report_done(counter.value)
            for future in finished:
                yield futures.pop(future), future.result()


def encode_shards(
    shards: Sequence[Shard], encoder: Checkpoint, report_done: ReportDone
) -> Iterator[FinishedShard]:
    """Encode clips and write shards of embeddings; yield each shard when it is finished."""
    from tinymu_jax.inference.chunked_encoding import encode_clips
    from tinymu_jax.inference.param_layout import by_rows, unstack
    from tinymu_jax.models import matpac

    config, params, *_ = encoder_of(encoder)
    layout = jax.device_put(by_rows(unstack(params, matpac.param_axes(config))), may_alias=False)
    num_done = 0

    def embeddings(shard: Shard, pool: ThreadPoolExecutor) -> Iterator[ClipFeatures]:
        nonlocal num_done

        def read(clip: ClipQuestions) -> Clip | InputError:
            try:
                return read_recording(clip.path, shard.features)
            except InputError as error:
                return error

        for start in range(0, len(shard.clips), ENCODE_BATCH):
            batch = shard.clips[start : start + ENCODE_BATCH]
            recordings = list(pool.map(read, batch))
            samples = [clip.samples for clip in recordings if isinstance(clip, Clip)]
            vectors = iter(encode_clips(layout, samples, config))
            for clip, recording in zip(batch, recordings, strict=True):
                failed = isinstance(recording, InputError)
                yield clip, recording if failed else as_embeddings(next(vectors)[0])
            num_done += len(batch)
            report_done(num_done)

    with ThreadPoolExecutor() as pool:
        for index, shard in enumerate(shards):
            yield index, write_shard(shard, embeddings(shard, pool), config.patch_size)
