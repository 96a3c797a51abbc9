"""Serializes records, the entries of a data set: a clip's features with all questions about it."""

from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from jaxtyping import Int

from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackedQuestion

_DTYPES = {np.dtype(t).name: np.dtype(t) for t in (np.int16, np.int32, np.float16)} | {
    "bfloat16": np.dtype(ml_dtypes.bfloat16)
}


class StoredQuestion(NamedTuple):
    """A question and its answer, as text and as token ids from the data set's tokenizer."""

    prompt: str
    answer: str
    task: str
    prompt_ids: Int[np.ndarray, "P"]
    """Token ids of the whole prompt; `as_packed_question` truncates them."""
    answer_ids: Int[np.ndarray, "Y"]
    """Token ids of the whole answer, without the end token."""


class Record(NamedTuple):
    """A clip's stored features, and all questions about the clip."""

    clip: str
    """Path of the recording."""
    dataset: str
    features: np.ndarray
    """Features of the data set's kind: waveform (samples,) int16, log_mel (frames, 80) float16,
    embeddings (vectors, width) bfloat16, or text (tokens,) int32."""
    questions: tuple[StoredQuestion, ...]


def encode_record(record: Record) -> bytes:
    """Serialize a record to bytes. Inverse of `decode_record`."""
    features = np.ascontiguousarray(record.features)
    content = {
        "clip": record.clip,
        "dataset": record.dataset,
        "type": features.dtype.name,
        "shape": features.shape,
        "features": features.tobytes(),
        "questions": [
            (q.prompt, q.answer, q.task, *(np.asarray(ids, np.int32).tobytes() for ids in q[3:]))
            for q in record.questions
        ],
    }
    # A path may hold bytes that are not UTF-8.
    return msgpack.packb(content, unicode_errors="surrogateescape")


def decode_record(content: bytes) -> Record:
    """Deserialize a record from bytes; the record's arrays are read-only views of the bytes."""
    fields: dict[str, Any] = msgpack.unpackb(content, unicode_errors="surrogateescape")
    features = np.frombuffer(fields["features"], _DTYPES[fields["type"]])
    questions = tuple(
        StoredQuestion(*texts, np.frombuffer(prompt, np.int32), np.frombuffer(answer, np.int32))
        for *texts, prompt, answer in fields["questions"]
    )
    return Record(fields["clip"], fields["dataset"], features.reshape(fields["shape"]), questions)


def as_packed_question(stored: StoredQuestion, config: TinyMUConfig) -> PackedQuestion:
    """Cut a prompt and its answer to `max_text_tokens` tokens each, as the published code does.

    Only answers that are shorter than the limit get an end token.
    """
    limit = config.max_text_tokens
    labels = [*stored.answer_ids.tolist(), config.end_token][:limit]
    return PackedQuestion(stored.prompt_ids[:limit].tolist(), labels)
