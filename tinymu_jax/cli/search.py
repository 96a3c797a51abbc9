"""The `tinymu index`, `tinymu similar`, `tinymu duplicates` and `tinymu find` commands."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from tinymu_jax.cli.options import Model, show_error
from tinymu_jax.errors import InputError, note
from tinymu_jax.utils.progress import show_progress

DEFAULT_INDEX = Path("library.index")
Folders = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


@dataclass(frozen=True)
class IndexCommand:
    """Embed the recordings of a library, and write them to an index to search in."""

    folders: Folders = ()
    """Folders of sound files (wav, flac, ogg, mp3, m4a, ...), or single files."""
    output: Path = DEFAULT_INDEX
    """File to write. It names the recordings relative to its folder."""
    window: float | None = None
    """Length in seconds of the windows that are embedded (default: the model's limit)."""
    update: bool = False
    """Add to the file: embed new and changed recordings only."""
    prune: bool = False
    """With --update: remove recordings whose files have vanished."""
    json: bool = False
    """Print the counts as a JSON object instead of text."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Write the index; return the exit code, 2 if a recording failed."""
        from tinymu_jax.library.indexing import WindowEncoder, build_index, list_paths

        if not self.folders:
            raise InputError("no folder: name one or more folders of recordings")
        if self.prune and not self.update:
            raise InputError("--prune without --update: give both")
        if self.output.exists() and not self.update:
            raise InputError(
                f"{self.output}: exists; add to it with --update, or name another with --output"
            )
        list_paths(self.folders)  # a missing folder is reported before the model is loaded
        encoder = WindowEncoder(self.model.load(), self.model.checkpoint, self.window)
        with show_progress("embedding") as progress:
            report = build_index(
                encoder,
                self.folders,
                self.output,
                self.update,
                self.prune,
                lambda recording, error: show_error(recording, error, self.json),
                progress,
            )
        if self.json:
            print(json.dumps({"output": str(self.output)} | report._asdict(), ensure_ascii=False))
            return 2 if report.failed else 0
        parts = {"embedded now": report.embedded, "removed": report.removed}
        parts |= {"whose files have vanished": report.vanished, "unusable": report.failed}
        counts = "".join(f", {count:,} {name}" for name, count in parts.items() if count)
        text = f"{report.recordings:,} recordings in {report.windows:,} windows"
        print(f"{self.output}: {text}{counts}")
        return 2 if report.failed else 0


@dataclass(frozen=True)
class Similar:
    """Print the recordings of an index that sound most like a recording."""

    recording: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDING")]
    """Sound file to compare, or - for stdin."""
    index: Path = DEFAULT_INDEX
    """File that `tinymu index` wrote."""
    top: int = 20
    """Number of recordings to print."""
    windows: bool = False
    """Compare windows instead of whole recordings, and print the best of each recording."""
    json: bool = False
    """Print one JSON object per recording instead of text."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Print the most similar recordings; return the exit code."""
        from tinymu_jax.library.index_file import open_index
        from tinymu_jax.library.search import similar

        if self.top < 1:
            raise InputError(f"top is {self.top}; give 1 or more")
        index = open_index(self.index)
        for match in similar(index, self._query(index), self.top, self.windows):
            fields = match._asdict() | {"similarity": round(match.similarity, 5)}
            text = f"{match.similarity:6.3f}  {match.file}"
            if self.windows:
                text += f"  {match.start:.1f} - {match.end:.1f} s"
                text += f" like {match.query_start:.1f} - {match.query_end:.1f} s"
            _show(text, fields, self.json)
        return 0

    def _query(self, index: Any) -> Any:
        """Return the recording as a query: from the index if it is there, else embedded now."""
        from tinymu_jax.audio.files import find_file
        from tinymu_jax.audio.source import is_stream
        from tinymu_jax.library.packets import audio_fingerprint
        from tinymu_jax.library.search import indexed_query

        stored = None
        if not is_stream(self.recording):
            path = find_file(self.recording)
            stored = indexed_query(index, path, audio_fingerprint(path))
        if stored is not None:
            return stored
        from tinymu_jax.library.indexing import WindowEncoder, check_model
        from tinymu_jax.library.search import Query

        encoder = WindowEncoder(self.model.load(), self.model.checkpoint, index.info.seconds)
        check_model(index, encoder.info)
        entry = encoder.embed_recording(self.recording)
        return Query(entry.read(), entry.spans, entry.silent)


@dataclass(frozen=True)
class Duplicates:
    """Print groups of recordings in an index that are copies of each other, or nearly so."""

    index: Path = DEFAULT_INDEX
    """File that `tinymu index` wrote."""
    threshold: float | None = None
    """Least similarity of two windows of near-duplicates (default: 0.97)."""
    json: bool = False
    """Print one JSON object per group instead of text."""

    def run(self) -> int:
        """Print the groups of duplicates; return the exit code."""
        from tinymu_jax.library.duplicates import THRESHOLD, find_duplicates
        from tinymu_jax.library.index_file import open_index

        threshold = THRESHOLD if self.threshold is None else self.threshold
        index = open_index(self.index)
        with show_progress("comparing") as progress:
            groups = find_duplicates(index, threshold, progress)
        for group in groups:
            copies = [copy._asdict() for copy in group.copies]
            lines = [f"{group.file}  {group.seconds:.1f} s"]
            lines += [
                f"    {copy.similarity:.3f}  {copy.kind:10}  {copy.file}  {copy.seconds:.1f} s"
                for copy in group.copies
            ]
            _show("\n".join(lines), group._asdict() | {"copies": copies}, self.json)
        if not groups:
            note(f"{self.index}: no duplicates in {len(index.files):,} recordings")
        return 0


@dataclass(frozen=True)
class Find:
    """Print the recordings of an index that fit words, by asking the model about a shortlist."""

    words: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORDS")]
    """Words such as "calm piano"."""
    index: Path = DEFAULT_INDEX
    """File that `tinymu index` wrote. Answers are stored in a file beside it."""
    top: int = 20
    """Number of recordings to print."""
    budget: int = 200
    """Number of recordings to ask the model about; stored answers count too."""
    prompt: str = "Is it {}?"
    """Question that is answered with yes or no, with {} in place of the words."""
    seed: int = 0
    """Random seed of the recordings that are asked about first."""
    json: bool = False
    """Print one JSON object per recording instead of text."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Print the recordings that fit best; return the exit code, 2 if a recording failed."""
        from tinymu_jax.library.find import WordSearch
        from tinymu_jax.library.index_file import open_index
        from tinymu_jax.library.indexing import WindowEncoder, check_model

        index, model = open_index(self.index), self.model.load_assistant()
        check_model(index, WindowEncoder(model, self.model.checkpoint, index.info.seconds).info)
        failed = []

        def on_error(recording: str, error: InputError) -> None:
            failed.append(recording)
            show_error(recording, error, self.json)

        search = WordSearch(index, model, on_error)
        with show_progress("asking") as progress:
            fits = search.find(self.words, self.top, self.budget, self.prompt, self.seed, progress)
        for fit in fits:
            fields = fit._asdict() | {"probability": round(fit.probability, 5)}
            text = f"{fit.probability:6.3f}  {fit.file}  {fit.start:.1f} - {fit.end:.1f} s"
            _show(text, fields, self.json)
        return 2 if failed else 0


def _show(text: str, fields: Mapping[str, Any], as_json: bool) -> None:
    """Print a result as text, or as a JSON object of its fields."""
    print(json.dumps(fields, ensure_ascii=False) if as_json else text, flush=True)
