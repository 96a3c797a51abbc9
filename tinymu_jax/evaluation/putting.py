"""A model as evaluations ask it: over all devices, its replies kept, gone on with after a kill."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from tinymu_jax import fingerprint
from tinymu_jax.assistant import Assistant
from tinymu_jax.config import MeshConfig
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.answers_file import Kept, put_questions
from tinymu_jax.evaluation.asking import Asking, BatchAsker, Progress, Reply
from tinymu_jax.files import make_folder
from tinymu_jax.mesh import make_mesh

REPLIES_FILE = "replies.jsonl"


def putter(
    model: Assistant, output: Path, max_new_tokens: int, progress: Progress
) -> Callable[[Sequence[Asking]], list[Reply | InputError]]:
    """Returns what puts questions to a model and keeps the replies in a folder.

    Args:
        model: the assistant.
        output: folder of the evaluation.
        max_new_tokens: of an answer.
        progress: called with the number of replies so far, and of all.
    """
    mesh = make_mesh(MeshConfig(), jax.local_devices()) if jax.local_device_count() > 1 else None
    asker = BatchAsker(model, max_new_tokens, mesh)
    depends = {
        "config": model.config.to_dict(),
        "weights": fingerprint.of_weights(model.params),
        "tokenizer": fingerprint.of_text(model.tokenizer.text),
        "max_new_tokens": max_new_tokens,
    }
    kept = Kept(make_folder(output) / REPLIES_FILE, json.dumps(depends, default=str))
    return lambda asked: put_questions(asker, asked, kept, progress)
