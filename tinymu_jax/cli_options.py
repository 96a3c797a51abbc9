"""What the commands about recordings share: which model, which files, how faults are shown."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.config import PUBLISHED
from tinymu_jax.errors import InputError, report

Recordings = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]


@dataclass(frozen=True)
class Model:
    """Which model answers, and how exactly."""

    checkpoint: str = PUBLISHED
    """Hub name, published .pt, or checkpoint folder."""
    encoder: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 products in the encoder: faster, not exact."""
    decoder: Literal["float32", "bfloat16", "int8"] = "float32"
    """int8 weights in the decoder: smaller and faster, not exact; bfloat16 is for accelerators."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, where the checkpoint has none."""
    max_seconds: float | None = None
    """How much of a recording is heard (default: the checkpoint's own, 10 s)."""
    revision: str | None = None
    """Of the hub repository."""

    def load(self) -> Any:
        """Loads it."""
        from tinymu_jax.pretrained import load

        return load(
            self.checkpoint,
            encoder=self.encoder,
            decoder=self.decoder,
            tokenizer=self.tokenizer,
            max_seconds=self.max_seconds,
            revision=self.revision,
        )

    def load_assistant(self) -> Any:
        """Loads it and makes sure that it answers questions."""
        from tinymu_jax.assistant import Assistant

        model = self.load()
        if not isinstance(model, Assistant):
            raise InputError(
                f"{self.checkpoint}: is an encoder, which answers nothing; name a TinyMU checkpoint"
            )
        return model


def need_recordings(recordings: tuple[str, ...]) -> None:
    """Raises `InputError` if there is nothing to do."""
    if not recordings:
        raise InputError("no recording: name one or more wav, flac, ogg or mp3 files")


def show_fault(recording: str, error: InputError, as_json: bool) -> None:
    """Reports a recording that could not be used; the others go on."""
    if as_json:
        print(json.dumps({"file": recording, "error": str(error)}, ensure_ascii=False), flush=True)
    report(error)


def in_batches(recordings: tuple[str, ...], doing: str, size: int = 8) -> Iterator[list[str]]:
    """Yields recordings in groups, with a progress bar where there are many."""
    groups = [list(recordings[i : i + size]) for i in range(0, len(recordings), size)]
    if len(groups) == 1 or not sys.stderr.isatty():
        yield from groups
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(groups, doing, console=Console(stderr=True))
