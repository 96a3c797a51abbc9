"""One shard of a prepared data set: written whole by one process, or not at all."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.features import (
    as_log_mel,
    as_waveform,
    num_columns,
    read,
    read_text_tokens,
)
from tinymu_jax.data.musicskills import ClipQuestions
from tinymu_jax.data.records import Record, StoredQuestion, encode_record
from tinymu_jax.errors import InputError
from tinymu_jax.files import write_json, write_whole
from tinymu_jax.tokenizer import Tokenizer

Featured = tuple[ClipQuestions, np.ndarray | InputError]


class Shard(NamedTuple):
    """Work for one process."""

    path: Path
    """Of the `.array_record`."""
    clips: Sequence[ClipQuestions]
    features: FeatureConfig
    tokenizer: str | None
    """The text of a `tokenizer.json`; None where nothing is asked."""


def read_features(shard: Shard, done: Callable[[], Any]) -> Iterable[Featured]:
    """Yields every clip with its waveform, log-mel or text, or with what is wrong with it.

    Args:
        shard: its clips, and what is to be stored.
        done: called after each clip.
    """
    store = shard.features.store
    make = as_waveform if store == "waveform" else as_log_mel
    tokenizer = _tokenizer_of(shard)
    for clip in shard.clips:
        try:
            if store == "text":
                yield clip, read_text_tokens(clip.path, tokenizer)
            else:
                yield clip, make(read(clip.path, shard.features))
        except InputError as error:
            yield clip, error
        done()


def write_shard(shard: Shard, featured: Iterable[Featured], side: int = 16) -> dict[str, Any]:
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
            page["columns"].append(num_columns(features, shard.features.store, side))
            page["prompts"].append([len(q.prompt_ids) for q in record.questions])
            page["answers"].append([len(q.answer_ids) for q in record.questions])
        writer.close()

    write_whole(shard.path, write)
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
