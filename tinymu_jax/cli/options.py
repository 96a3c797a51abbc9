"""Options and output functions of the commands that process recordings."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.audio.files import find_file
from tinymu_jax.errors import InputError, report
from tinymu_jax.models.config import PUBLISHED
from tinymu_jax.utils.progress import show_progress

DECODER = "HuggingFaceTB/SmolLM2-135M"
"""Hub name of the published model's decoder and tokenizer."""
Recordings = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]


@dataclass(frozen=True)
class Model:
    """Options that select the model and its precision."""

    checkpoint: str = PUBLISHED
    """Hub name, published .pt, checkpoint or run folder, or nano (the model in the package)."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder; bfloat16 is faster, but not exact."""
    decoder_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision of the decoder. int8: smaller and faster, not exact; bfloat16: for accelerators."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, for a checkpoint without a tokenizer."""
    max_seconds: float | None = None
    """Seconds to encode from a recording's start; default: the checkpoint's limit (10; nano: 4)."""
    revision: str | None = None
    """Revision of the hub repository with the checkpoint."""
    keep_damaged: bool = False
    """Use what can be read of a damaged recording, instead of refusing it."""

    def load(self) -> Any:
        """Return the selected model, an `Assistant` or an `Embedder`."""
        from tinymu_jax.inference.load import load

        return load(
            self.checkpoint,
            encoder_dtype=self.encoder_dtype,
            decoder_dtype=self.decoder_dtype,
            tokenizer=self.tokenizer,
            max_seconds=self.max_seconds,
            revision=self.revision,
            keep_damaged=self.keep_damaged,
        )

    def load_assistant(self) -> Any:
        """Return the selected model; raise `InputError` if it is only an encoder."""
        from tinymu_jax.inference.assistant import Assistant

        model = self.load()
        if not isinstance(model, Assistant):
            raise InputError(
                f"{self.checkpoint}: is an encoder, which answers nothing; name a TinyMU checkpoint"
            )
        return model


def require_recordings(recordings: tuple[str, ...], as_json: bool) -> None:
    """Check that at least one recording exists.

    Raises:
        InputError: no recording was named.
        SystemExit: all named recordings are missing; an error was printed for each.
    """
    if not recordings:
        raise InputError("no recording: name one or more sound files")
    if any(name == "-" or os.path.exists(find_file(name)) for name in recordings):
        return
    for recording in recordings:
        error = InputError(f"{recording}: no such file; check the path of the recording")
        show_error(recording, error, as_json)
    raise SystemExit(2)


def show_error(recording: str, error: InputError, as_json: bool) -> None:
    """Print a recording's error to stderr and, if `as_json`, to stdout as JSON."""
    if as_json:
        print(json.dumps({"file": recording, "error": str(error)}, ensure_ascii=False), flush=True)
    report(error)


def seconds_fields(clip: Any) -> dict[str, Any]:
    """Return the seconds (and damage, if any) of a `Clip` or `Response` as JSON fields."""
    names = ("encoded_seconds", "total_seconds")
    damage = {"damage": clip.damage} if clip.damage else {}
    silent = {"silent": True} if getattr(clip, "silent", False) else {}
    return {name: round(getattr(clip, name), 3) for name in names} | damage | silent


def seconds_text(clip: Any) -> str:
    """Return a text such as "encoded 10.0 s of 31.5 s" for a clip."""
    damage = f" ({clip.damage})" if clip.damage else ""
    damage += ", which are silent" if getattr(clip, "silent", False) else ""
    return f"encoded {clip.encoded_seconds:.1f} s of {clip.total_seconds:.1f} s{damage}"


def run_each(
    recordings: tuple[str, ...], label: str, as_json: bool, function: Callable[[str], Any]
) -> int:
    """Call a function with each recording and print any `InputError`; return the exit code.

    The exit code is 2 after an error, else 0. `label` names the work in the progress display.
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
    """Yield recordings in batches of `size`; show progress if stdout is not a terminal."""
    batches = [list(recordings[i : i + size]) for i in range(0, len(recordings), size)]
    # On a terminal, the printed answers show the progress already.
    quiet = len(batches) == 1 or sys.stdout.isatty() or not sys.stderr.isatty()
    with show_progress(label, len(batches), quiet=quiet) as progress:
        for done, batch in enumerate(batches):
            progress(done)
            yield batch
