"""Options and printing functions of the commands that process recordings."""

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
"""Hub name of the published model's decoder, which has the model's tokenizer."""
Recordings = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]


@dataclass(frozen=True)
class Model:
    """Options that select the model and its precision."""

    checkpoint: str = PUBLISHED
    """Hub name, published .pt, checkpoint or run folder, or nano (the model in the package)."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder's matrix products; bfloat16 is faster, but not exact."""
    decoder_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision of the decoder. int8 weights are smaller and faster, but not exact; bfloat16 is
    meant for accelerators."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, for a checkpoint without a tokenizer."""
    max_seconds: float | None = None
    """Seconds of a recording that are encoded, from its start (default: the checkpoint's limit,
    10 s as published; nano 4 s)."""
    revision: str | None = None
    """Revision of the hub repository that has the checkpoint."""

    def load(self) -> Any:
        """Loads the model that the options select."""
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
        """Loads the model; raises `InputError` if it is an encoder, which answers no questions."""
        from tinymu_jax.inference.assistant import Assistant

        model = self.load()
        if not isinstance(model, Assistant):
            raise InputError(
                f"{self.checkpoint}: is an encoder, which answers nothing; name a TinyMU checkpoint"
            )
        return model


def require_recordings(recordings: tuple[str, ...], as_json: bool) -> None:
    """Ends the program if none of the recordings exists; called before a model is loaded.

    Raises:
        InputError: no recording was named.
        SystemExit: none of the named recordings exists; an error was printed for each.
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
    """Prints the error of one recording to stderr and, if `as_json`, to stdout as JSON."""
    if as_json:
        print(json.dumps({"file": recording, "error": str(error)}, ensure_ascii=False), flush=True)
    report(error)


def seconds_fields(clip: Any) -> dict[str, float]:
    """Returns a clip's encoded and total seconds, as fields of a JSON object."""
    names = ("encoded_seconds", "total_seconds")
    return {name: round(getattr(clip, name), 3) for name in names}


def seconds_text(clip: Any) -> str:
    """Returns a text that says how many seconds of a clip were encoded."""
    return f"encoded {clip.encoded_seconds:.1f} s of {clip.total_seconds:.1f} s"


def run_each(
    recordings: tuple[str, ...], label: str, as_json: bool, function: Callable[[str], Any]
) -> int:
    """Calls a function with each recording, and prints the `InputError`s that it raises.

    Returns the exit code, 2 if there were errors. `label` names the work in the progress display.
    """
    num_errors = 0
    for (recording,) in in_batches(recordings, label, size=1):
        try:
            function(recording)
        except InputError as error:
            show_error(recording, error, as_json)
            num_errors += 1
    return 2 if num_errors else 0


def in_batches(recordings: tuple[str, ...], label: str, size: int = 8) -> Iterator[list[str]]:
    """Yields recordings in batches of `size`; shows progress if stdout is not a terminal."""
    batches = [list(recordings[i : i + size]) for i in range(0, len(recordings), size)]
    # On a terminal, the printed answers show the progress already.
    quiet = len(batches) == 1 or sys.stdout.isatty() or not sys.stderr.isatty()
    with show_progress(label, len(batches), quiet=quiet) as progress:
        for done, batch in enumerate(batches):
            progress(done)
            yield batch
