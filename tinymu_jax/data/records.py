"""One record of a prepared data set: a clip's features with all its questions, as bytes."""

from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from jaxtyping import Int

from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.packing import PackedQuestion

_TYPES = {
    "int16": np.dtype(np.int16),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int32": np.dtype(np.int32),
}


class StoredQuestion(NamedTuple):
    """A question and its answer, as text and as the tokens of the data set's tokenizer."""

    prompt: str
    answer: str
    task: str
    prompt_ids: Int[np.ndarray, "P"]
    """All of them; `as_packed_question` cuts what the model does not take."""
    answer_ids: Int[np.ndarray, "Y"]
    """Without the end token."""


class Record(NamedTuple):
    """A clip and its questions."""

    clip: str
    """Path of the recording as the lists named it."""
    dataset: str
    features: np.ndarray
    """Of the data set's store: waveform (n,) int16, log_mel (frames, 80) float16, embeddings
    (A, E) bfloat16, or text (A,) int32."""
    questions: tuple[StoredQuestion, ...]


def encode_record(record: Record) -> bytes:
    """Returns the bytes of a record."""
    features = np.ascontiguousarray(record.features)
    content = {
        "clip": record.clip,
        "dataset": record.dataset,
        "type": features.dtype.name,
        "shape": features.shape,
        "features": features.tobytes(),
        "questions": [
            (q.prompt, q.answer, q.task, _ids(q.prompt_ids), _ids(q.answer_ids))
            for q in record.questions
        ],
    }
    return msgpack.packb(content)


def decode_record(content: bytes) -> Record:
    """Returns the record that the bytes hold; its features are a view of them."""
    fields: dict[str, Any] = msgpack.unpackb(content)
    features = np.frombuffer(fields["features"], _TYPES[fields["type"]])
    questions = tuple(
        StoredQuestion(*texts, *(np.frombuffer(ids, np.int32) for ids in both))
        for *texts, both in ((p, a, t, (pi, ai)) for p, a, t, pi, ai in fields["questions"])
    )
    return Record(fields["clip"], fields["dataset"], features.reshape(fields["shape"]), questions)


def _ids(tokens: Int[np.ndarray, "T"]) -> bytes:
    return np.asarray(tokens, np.int32).tobytes()


def as_packed_question(stored: StoredQuestion, config: TinyMUConfig) -> PackedQuestion:
    """Returns a question as it is trained on, as published.

    A prompt of more than `max_text_tokens` tokens is cut; an answer of as many or more is cut to
    that and gets no end token, a shorter one gets it.
    """
    limit = config.max_text_tokens
    answer = stored.answer_ids.tolist()
    labels = [*answer, config.end_token] if len(answer) < limit else answer[:limit]
    return PackedQuestion(stored.prompt_ids[:limit].tolist(), labels)
