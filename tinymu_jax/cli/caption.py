"""The `tinymu caption` command."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli.options import Model
from tinymu_jax.errors import InputError, note, report
from tinymu_jax.utils.files import remove, write_text
from tinymu_jax.utils.progress import show_progress

CaptionInputs = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|RECORDING")
]


@dataclass(frozen=True)
class CaptionCommand:
    """Describe whole recordings, or folders of them: captions, genre, mood, tempo, key and more.

    A run that was interrupted is continued by the same command.
    """

    recordings: CaptionInputs = ()
    """Folders with recordings, or sound files."""
    format: Literal["jsonl", "csv", "parquet", "txt", "acestep", "musicgen", "webdataset"] = "jsonl"
    """What to write: a table (jsonl, csv, parquet); a file beside each recording (txt: x.txt;
    acestep: x.caption.txt, and a dataset's json; musicgen: x.json); or tar files (webdataset)."""
    output: Path | None = None
    """Table to write, for webdataset a folder (default: captions.jsonl and so on in the folder)."""
    log: Path | None = None
    """File from which an interrupted run is continued (default: .tinymu-captions.jsonl in the
    folder)."""
    prompt: str = "Describe the music."
    """Question whose answer is the caption."""
    caption: bool = True
    """Whether to write captions."""
    max_new_tokens: int = 100
    """Maximum number of tokens of a caption."""
    fields: Path | None = None
    """Yaml file of closed questions (default: genre, mood, instrument, voice, tempo, texture)."""
    score_fields: bool = True
    """Whether to score fields."""
    tempo_and_key: bool = True
    """Whether to estimate beats per minute and key, by signal processing."""
    hop: float | None = None
    """Seconds from the start of a window to the start of the next (default: window length)."""
    trigger: str = ""
    """Trigger word for trainers of music generators."""
    trigger_place: Literal["before", "after", "instead"] = "before"
    """Where the trigger word is put: before the caption, after it, or instead of it."""
    shard_mb: float = 1000.0
    """For webdataset: largest size of a tar file in MB."""
    overwrite: bool = False
    """Replace files that are there already and were not written by this command."""
    batch_size: int = 8
    """Number of recordings whose captions are generated together."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Describe the recordings; return the exit code, 2 if a recording was skipped."""
        from tinymu_jax.library.caption_run import SidecarWriter, describe_library, list_recordings
        from tinymu_jax.library.formats.options import FormatOptions
        from tinymu_jax.library.formats.outputs import (
            check_outputs,
            conflicting_recordings,
            existing_outputs,
            write_table,
        )
        from tinymu_jax.library.run_log import ANY, RunLog

        if not self.recordings:
            raise InputError("no recording: name a folder, or sound files")
        options = self._options()
        formats = FormatOptions(
            trigger=self.trigger,
            trigger_place=self.trigger_place,
            fields=tuple(one.name for one in options.fields),
            shard_bytes=round(self.shard_mb * 1e6),
        )
        recordings = list_recordings(self.recordings)
        table, log_path = self._table(), self._log()
        self._check_paths(recordings, table, log_path)
        check_outputs(self.format, [one.path for one in recordings], table, formats)
        conflicts = conflicting_recordings(self.format, [one.path for one in recordings])
        log, writer = RunLog(log_path), SidecarWriter(self.format, formats, self.overwrite)
        self._check_table(log, table)
        model = self.model.load_assistant()
        model.tokenizer  # noqa: B018 - a missing tokenizer is reported before anything is computed
        with log.writing():
            with show_progress("describing") as progress:
                usable = [one for one in recordings if one.path not in conflicts]
                result = describe_library(
                    model, usable, options, log, writer, self.batch_size, progress
                )
            result.errors.update(
                (one.name, conflicts[one.path]) for one in recordings if one.path in conflicts
            )
            described = [
                (one.path, result.descriptions[one.name])
                for one in recordings
                if one.name in result.descriptions
            ]
            if table is not None and described:
                log.announce(table, ANY)
                write_table(self.format, table, described, formats)
                for path in {table, *existing_outputs(self.format, [], table)}:
                    log.finish(path)
        self._report(result, table, log_path)
        return 2 if result.errors else 0

    def _options(self) -> Any:
        """Return the `DescribeOptions`; raise `InputError` if nothing is asked for."""
        from tinymu_jax.inference.engine import check_max_new_tokens
        from tinymu_jax.library.description import DescribeOptions
        from tinymu_jax.library.fields import read_fields

        if not 0 < self.shard_mb < 1e6:
            raise InputError(f"shard-mb is {self.shard_mb}; give a size in MB")
        if self.batch_size < 1:
            raise InputError(f"batch-size is {self.batch_size}; give 1 or more")
        check_max_new_tokens(self.max_new_tokens)
        if self.caption and not self.prompt:
            raise InputError('no prompt: ask something with --prompt "...", or give --no-caption')
        fields = read_fields(self.fields) if self.score_fields else ()
        prompt = self.prompt if self.caption else None
        options = DescribeOptions(fields, prompt, self.max_new_tokens, self.hop, self.tempo_and_key)
        if not (self.caption or fields or self.tempo_and_key):
            raise InputError("nothing to find out: leave out one of the --no- options")
        return options

    def _folder(self) -> Path:
        """Return the folder of the outputs, if they are not named: the first that is named."""
        first = Path(self.recordings[0])
        return first if first.is_dir() else first.parent

    def _table(self) -> Path | None:
        from tinymu_jax.library.formats.outputs import default_table

        default = default_table(self.format, self._folder())
        if self.output is not None and default is None:
            raise InputError(f"--output: {self.format} is written beside each recording")
        return default if self.output is None else self.output

    def _log(self) -> Path:
        if self.log is not None:
            return self.log
        if self.output is not None:
            return self.output.with_name(f".{self.output.name}.tinymu.jsonl")
        return self._folder() / ".tinymu-captions.jsonl"

    def _check_paths(self, recordings: list[Any], table: Path | None, log: Path) -> None:
        """Raise `InputError` if a file to write is one of the recordings."""
        for path in filter(None, (table, log)):
            if path.is_file() and any(
                one.path.is_file() and path.samefile(one.path) for one in recordings
            ):
                raise InputError(f"{path}: is one of the recordings; name another file")

    def _check_table(self, log: Any, table: Path | None) -> None:
        """Raise `InputError` if there is a table already that is of no earlier run."""
        from tinymu_jax.library.formats.outputs import existing_outputs

        if table is None or log.is_written(table):
            return
        for path in existing_outputs(self.format, [], table):
            log.check(path, self.overwrite)

    def _report(self, result: Any, table: Path | None, log: Path) -> None:
        """Print what was done, and what was skipped and why."""
        for error in result.errors.values():
            report(error)
        silent = sum(description.silent for description in result.descriptions.values())
        total, skipped = len(result.descriptions), len(result.errors)
        parts = [
            f"{total:,} recordings described ({result.num_new:,} of them now)",
            f"{silent:,} silent" if silent else "",
            f"{skipped:,} skipped" if skipped else "",
            f"in {table}" if table is not None and total else "",
        ]
        print("; ".join(filter(None, parts)))
        if result.num_new and any(d.bpm or d.key for d in result.descriptions.values()):
            note("tempo and key are measured by signal processing, not by the model")
        listing = log.with_suffix(".skipped.json")
        if not skipped:
            remove(listing)
            return
        content = {name: str(error) for name, error in result.errors.items()}
        write_text(listing, json.dumps(content, ensure_ascii=True, indent=1) + "\n")
        print(f"skipped recordings are listed in {listing}", file=sys.stderr)
