"""The `tinymu tag` command."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli.options import Recordings, need_recordings, show_fault, showing_progress
from tinymu_jax.errors import InputError


@dataclass(frozen=True)
class Tagger:
    """Which encoder with a head tags."""

    checkpoint: str
    """Encoder with its AudioSet head, or with a probe: .pt or checkpoint folder."""
    labels: Path | None = None
    """Names of the classes: AudioSet's csv, a json, or a text file with one a line."""
    probe: Path | None = None
    """A probe's own file, for an encoder without head."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: faster, not exact."""

    def load(self) -> Any:
        """Loads it and makes sure that it tags."""
        from tinymu_jax.inference.embedder import Embedder
        from tinymu_jax.inference.load import load

        options = {"encoder_dtype": self.encoder_dtype, "labels": self.labels, "probe": self.probe}
        model = load(self.checkpoint, **options)
        if not isinstance(model, Embedder) or model.config.head is None:
            raise InputError(
                f"{self.checkpoint}: has no head to tag with; name an encoder with its head, or "
                "give a probe's file with --probe"
            )
        return model


@dataclass(frozen=True)
class Tag:
    """Print what recordings are, window by window; a folder's go to a csv or jsonl."""

    recordings: Recordings = ()
    """wav, flac, ogg or mp3 files, or folders of them."""
    model: Annotated[Tagger, tyro.conf.arg(name="")] = field(default_factory=lambda: Tagger(""))
    window: float = 10.0
    """Seconds of a window."""
    hop: float | None = None
    """Seconds from one window to the next; default a window."""
    top: int = 5
    """How many tags."""
    output: Path | None = None
    """A .csv or .jsonl to write; recordings that are in it already are not tagged again."""
    json: bool = False
    """One json object for each window instead of text."""

    def run(self) -> int:
        """Tags; returns the exit code."""
        from tinymu_jax.inference.tagging import TagFile, check_window, tag_windows

        hop = self.window if self.hop is None else self.hop
        check_window(self.window, hop, self.top)
        if not self.model.checkpoint:
            raise InputError("no checkpoint: name an encoder with a head with --checkpoint")
        need_recordings(self.recordings, self.json)
        names = self._files()
        file = None if self.output is None else TagFile(self.output)
        model, failed = self.model.load(), 0
        with showing_progress("tagging") as progress:
            for number, name in enumerate(names):
                progress(number, len(names))
                if file is not None and name in file.done:
                    continue
                try:
                    windows = tag_windows(model, name, self.window, hop, self.top)
                except InputError as error:
                    show_fault(name, error, self.json)
                    failed += 1
                    continue
                if file is None:
                    self._show(name, windows)
                else:
                    file.write(name, windows)
        return 2 if failed else 0

    def _files(self) -> list[str]:
        """Returns all recordings, those in folders included."""
        from tinymu_jax.audio.load import list_audio_files

        folders = [name for name in self.recordings if os.path.isdir(name)]
        if folders and self.output is None:
            raise InputError(f"{folders[0]}: is a folder; say where its tags go with --output")
        return [
            str(path)
            for name in self.recordings
            for path in (list_audio_files(name) if os.path.isdir(name) else [name])
        ]

    def _show(self, name: str, windows: list[Any]) -> None:
        """Prints a recording's windows."""
        if not self.json:
            print(name)
        for start, end, tags in windows:
            if self.json:
                page = {"file": name, "start": start, "end": end, "tags": dict(tags)}
                print(json.dumps(page, ensure_ascii=False), flush=True)
                continue
            words = ", ".join(f"{tag} {probability:.2f}" for tag, probability in tags)
            print(f"{start:7.1f} - {end:.1f} s  {words}", flush=True)
