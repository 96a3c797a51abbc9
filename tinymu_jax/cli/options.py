"""Options and output that the commands about recordings share."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.errors import InputError, report
from tinymu_jax.models.config import PUBLISHED
from tinymu_jax.utils.progress import show_progress

DECODER = "HuggingFaceTB/SmolLM2-135M"
"""The published model's decoder, and its tokenizer."""

Recordings = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]


@dataclass(frozen=True)
class Model:
    """The model and its precision."""

    checkpoint: str = PUBLISHED
    """Hub name, published .pt, or checkpoint folder."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 matrix products in the encoder: faster, not exact."""
    decoder_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """int8 weights in the decoder: smaller and faster, not exact; bfloat16 is for accelerators."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, for a checkpoint without one."""
    max_seconds: float | None = None
    """How much of a recording is encoded (default: the checkpoint's, 10 s)."""
    revision: str | None = None
    """Revision of the hub repository."""

    def load(self) -> Any:
        """Returns the model."""
        from tinymu_jax.inference.load import load

        return load(
            self.checkpoint,
            encoder_dtype=self.encoder_dtype,
            decoder_dtype=self.decoder_dtype,
            tokenizer=self.tokenizer,
            max_seconds=self.max_seconds,
            revision=self.revision,
        )

    def load_assistant(self) -> Any:
        """Returns the model if it answers questions, else raises `InputError`."""
        from tinymu_jax.inference.assistant import Assistant

        model = self.load()
        if not isinstance(model, Assistant):
            raise InputError(
                f"{self.checkpoint}: is an encoder, which answers nothing; name a TinyMU checkpoint"
            )
        return model


def require_recordings(recordings: tuple[str, ...], as_json: bool) -> None:
    """Ends the program before a model is loaded if no recording exists.

    Raises:
        InputError: no recording was named.
        SystemExit: none of the named ones exists.
    """
    if not recordings:
        raise InputError("no recording: name one or more wav, flac, ogg or mp3 files")
    if any(map(os.path.exists, recordings)):
        return
    for recording in recordings:
        error = InputError(f"{recording}: no such file; check the path of the recording")
        show_error(recording, error, as_json)
    raise SystemExit(2)


def show_error(recording: str, error: InputError, as_json: bool) -> None:
    """Prints the error of one recording; the others continue."""
    if as_json:
        print(json.dumps({"file": recording, "error": str(error)}, ensure_ascii=False), flush=True)
    report(error)


def seconds_fields(clip: Any) -> dict[str, float]:
    """Returns the JSON fields of how much of a recording was encoded."""
    names = ("encoded_seconds", "total_seconds")
    return {name: round(getattr(clip, name), 3) for name in names}


def seconds_text(clip: Any) -> str:
    """Returns how much of a recording was encoded, as printed."""
    return f"encoded {clip.encoded_seconds:.1f} s of {clip.total_seconds:.1f} s"


def run_each(
    recordings: tuple[str, ...], label: str, as_json: bool, function: Callable[[str], Any]
) -> int:
    """Calls a function with each recording and prints its errors; returns the exit code."""
    num_errors = 0
    for (recording,) in in_batches(recordings, label, size=1):
        try:
            function(recording)
        except InputError as error:
            show_error(recording, error, as_json)
            num_errors += 1
    return 2 if num_errors else 0


def in_batches(recordings: tuple[str, ...], label: str, size: int = 8) -> Iterator[list[str]]:
    """Yields recordings in batches, and shows progress where the output goes to a file."""
    batches = [list(recordings[i : i + size]) for i in range(0, len(recordings), size)]
    # On a terminal the answers themselves show the progress.
    quiet = len(batches) == 1 or sys.stdout.isatty() or not sys.stderr.isatty()
    with show_progress(label, len(batches), quiet=quiet) as progress:
        for done, batch in enumerate(batches):
            progress(done)
            yield batch
