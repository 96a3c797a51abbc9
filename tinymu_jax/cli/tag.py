"""The `tinymu tag` command."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli.options import Model, Recordings, require_recordings, show_error
from tinymu_jax.cli.write_tags import FileTags
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import PUBLISHED
from tinymu_jax.utils.progress import show_progress


@dataclass(frozen=True)
class Tagger:
    """Options that select the encoder and its classification head."""

    checkpoint: str
    """.pt or checkpoint folder of an encoder with a classification head."""
    labels: Path | None = None
    """Names of the classes: AudioSet's csv, a json, or a text file with one name per line."""
    probe: Path | None = None
    """File of a probe (a linear classifier), for an encoder without a head."""
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder; bfloat16 is faster, but not exact."""
    keep_damaged: bool = False
    """Use what can be read of a damaged recording, instead of refusing it."""

    def assistant_options(self) -> Model:
        """Return the options that load a checkpoint as an `Assistant`, by default the published."""
        options = {"encoder_dtype": self.encoder_dtype, "keep_damaged": self.keep_damaged}
        return Model(self.checkpoint or PUBLISHED, **options)

    def load(self) -> Any:
        """Return the encoder, an `Embedder`; raise `InputError` if it has no head."""
        from tinymu_jax.inference.embedder import Embedder
        from tinymu_jax.inference.load import load

        options = {"encoder_dtype": self.encoder_dtype, "labels": self.labels, "probe": self.probe}
        options["keep_damaged"] = self.keep_damaged
        model = load(self.checkpoint, **options)
        if not isinstance(model, Embedder) or model.config.head is None:
            raise InputError(
                f"{self.checkpoint}: has no head to tag with; name an encoder with its head, or "
                "give a probe's file with --probe"
            )
        return model


@dataclass(frozen=True)
class TagCommand:
    """Print the tags of each window of recordings, or write them to a csv or jsonl file.

    With --write, write genre, mood, caption and other fields into the files' own tags.
    """

    recordings: Recordings = ()
    """Sound files (wav, flac, ogg, mp3, m4a, ...), or folders of them."""
    model: Annotated[Tagger, tyro.conf.arg(name="")] = field(default_factory=lambda: Tagger(""))
    window: float = 10.0
    """Length of a window in seconds."""
    hop: float | None = None
    """Seconds from the start of a window to the start of the next (default: the window length)."""
    top: int = 5
    """Number of tags per window, the most probable first."""
    output: Path | None = None
    """A .csv or .jsonl file to write; recordings that it already contains are not tagged again."""
    json: bool = False
    """Print one JSON object per window (with --write: per file) instead of text."""
    files: Annotated[FileTags, tyro.conf.arg(name="")] = field(default_factory=FileTags)

    def run(self) -> int:
        """Print or write each recording's tags; return the exit code, 2 if a recording failed."""
        from tinymu_jax.inference.tagging import TagFile, check_window, tag_windows

        if self.files.is_used(self.output):
            return self.files.run(self.recordings, self.model.assistant_options(), self.json)
        hop = self.window if self.hop is None else self.hop
        check_window(self.window, hop, self.top)
        if not self.model.checkpoint:
            raise InputError("no checkpoint: name an encoder with a head with --checkpoint")
        require_recordings(self.recordings, self.json)
        recordings = self._list_recordings()
        file = None if self.output is None else TagFile(self.output)
        model, num_errors = self.model.load(), 0
        with show_progress("tagging", quiet=self.output is None) as progress:
            for done, recording in enumerate(recordings):
                progress(done, len(recordings))
                if file is not None and file.key(recording) in file.done:
                    continue
                try:
                    windows = tag_windows(model, recording, self.window, hop, self.top)
                except InputError as error:
                    show_error(recording, error, self.json)
                    num_errors += 1
                    continue
                if file is None:
                    self._show(recording, windows)
                else:
                    file.write(recording, windows)
        return 2 if num_errors else 0

    def _list_recordings(self) -> list[str]:
        from tinymu_jax.audio.files import list_named

        folders = [name for name in self.recordings if os.path.isdir(name)]
        if folders and self.output is None:
            raise InputError(f"{folders[0]}: is a folder; name a file for its tags with --output")
        return [str(path) for path, _ in list_named(self.recordings)]

    def _show(self, recording: str, windows: list[Any]) -> None:
        if not self.json:
            print(recording)
        for window in windows:
            if self.json:
                print(json.dumps(window.to_json(recording), ensure_ascii=False), flush=True)
                continue
            tags = ", ".join(f"{tag} {probability:.2f}" for tag, probability in window.tags)
            print(f"{window.start:7.1f} - {window.end:.1f} s  {tags}", flush=True)
