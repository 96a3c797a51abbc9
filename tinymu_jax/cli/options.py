"""What the commands about recordings share: which model, which files, how faults are shown."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.errors import InputError, report
from tinymu_jax.models.config import PUBLISHED

DECODER = "HuggingFaceTB/SmolLM2-135M"
"""Whose tokenizer the published model has."""

Recordings = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]


@dataclass(frozen=True)
class Model:
    """Which model answers, and how exactly."""

    checkpoint: str = PUBLISHED
    """Hub name, published .pt, or checkpoint folder."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 products in the encoder: faster, not exact."""
    decoder_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """int8 weights in the decoder: smaller and faster, not exact; bfloat16 is for accelerators."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, where the checkpoint has none."""
    max_seconds: float | None = None
    """How much of a recording is heard (default: the checkpoint's own, 10 s)."""
    revision: str | None = None
    """Of the hub repository."""

    def load(self) -> Any:
        """Loads it."""
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
        """Loads it and makes sure that it answers questions."""
        from tinymu_jax.inference.assistant import Assistant

        model = self.load()
        if not isinstance(model, Assistant):
            raise InputError(
                f"{self.checkpoint}: is an encoder, which answers nothing; name a TinyMU checkpoint"
            )
        return model


def need_recordings(recordings: tuple[str, ...], as_json: bool) -> None:
    """Ends the program before a model is loaded if there is nothing that could be heard.

    Raises:
        InputError: no recording was named.
        SystemExit: none of those named is there.
    """
    if not recordings:
        raise InputError("no recording: name one or more wav, flac, ogg or mp3 files")
    if any(map(os.path.exists, recordings)):
        return
    for recording in recordings:
        fault = InputError(f"{recording}: no such file; check the path of the recording")
        show_fault(recording, fault, as_json)
    raise SystemExit(2)


def show_fault(recording: str, error: InputError, as_json: bool) -> None:
    """Reports a recording that could not be used; the others go on."""
    if as_json:
        print(json.dumps({"file": recording, "error": str(error)}, ensure_ascii=False), flush=True)
    report(error)


def seconds(clip: Any) -> dict[str, float]:
    """Returns the json fields that say how much of a recording was heard."""
    names = ("encoded_seconds", "total_seconds")
    return {name: round(getattr(clip, name), 3) for name in names}


def heard(clip: Any) -> str:
    """Returns the words that say how much of a recording was heard."""
    return f"heard {clip.encoded_seconds:.1f} s of {clip.total_seconds:.1f} s"


def in_batches(recordings: tuple[str, ...], doing: str, size: int = 8) -> Iterator[list[str]]:
    """Yields recordings in groups; with a progress bar where there are many and none is seen."""
    groups = [list(recordings[i : i + size]) for i in range(0, len(recordings), size)]
    # On a terminal the answers themselves show how far it is.
    if len(groups) == 1 or sys.stdout.isatty() or not sys.stderr.isatty():
        yield from groups
        return
    with progress_bar() as bar:
        yield from bar.track(groups, description=doing)


def progress_bar() -> Any:
    """Returns rich's bar on stderr, which leaves alone what goes to stdout."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False)


@contextmanager
def showing_progress(doing: str) -> Iterator[Callable[[int, int], Any]]:
    """Yields what shows how far it is: a bar with the time left, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with progress_bar() as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
