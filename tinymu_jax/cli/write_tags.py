"""The options of `tinymu tag` that write tags into files, undo that, and write playlists."""

import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.files import find_file, list_audio_files
from tinymu_jax.cli.options import Model, require_recordings, show_error
from tinymu_jax.errors import InputError, note
from tinymu_jax.utils.files import check_folder, exists, printable
from tinymu_jax.utils.progress import show_progress

OUTCOMES = {
    "written": "{} written",
    "planned": "{} to be written",
    "same": "{} unchanged",
    "none": "{} without a known value",
    "failed": "{} failed",
}
"""Outcome for a file -> its part of the summary."""


class NamedFile(NamedTuple):
    """A recording, and the names by which its description may be listed."""

    path: Path
    keys: tuple[str, ...]


@dataclass(frozen=True)
class FileTags:
    """Options that write tags into the recordings' files, or write playlists."""

    write: str = ""
    """Fields to write into the files' tags, such as genre,mood,comment (the caption),bpm,key."""
    descriptions: Path | None = None
    """A jsonl file that `tinymu caption` wrote; without it, the recordings are described now."""
    fields: Path | None = None
    """Without --descriptions: yaml file of the fields to ask for (default: those for music)."""
    map: Path | None = None
    """A yaml file that renames values: `genre: {electronic: Electronica, rock: [Rock, Pop]}`."""
    overwrite: bool = False
    """Replace values that are in the files, and playlists; by default, they are kept."""
    dry_run: bool = False
    """Show what would be written, and write nothing."""
    undo_file: Path | None = None
    """File to write for --undo (default: tinymu-undo-<time>.jsonl beside the recordings)."""
    undo: Path | None = None
    """Restore the tags that were there before the run that wrote this undo file."""
    playlist: str = ""
    """Fields, such as mood, for which to write one m3u8 playlist per value."""
    playlist_folder: Path = Path("playlists")
    """Folder for the playlists."""

    def is_used(self, output: Path | None) -> bool:
        """Return whether these options ask for work.

        Raises:
            InputError: an option has no effect without --write; there is a file `output` for the
                tags of windows, too.
        """
        used = bool(self.write or self.playlist or self.undo)
        if not used and self != FileTags():
            names = [option.name for option in dataclasses.fields(self)]
            option = next(n for n in names if getattr(self, n) != getattr(FileTags(), n))
            raise InputError(
                f"--{option.replace('_', '-')} goes with --write or --playlist; name fields, such "
                "as --write genre,mood"
            )
        if used and output is not None:
            raise InputError("--output is for the tags of windows; leave it out with --write")
        return used

    def run(self, recordings: tuple[str, ...], model: Model, as_json: bool) -> int:
        """Write tags and playlists, or undo; return the exit code, 2 if a recording failed."""
        from tinymu_jax.library.tag_values import check_names, read_renames, split_names

        if self.undo is not None:
            return self._undo(recordings, as_json)
        names = split_names(self.write, "--write")
        lists = split_names(self.playlist, "--playlist")
        renames = {} if self.map is None else read_renames(self.map)
        if lists:
            check_folder(self.playlist_folder)
        require_recordings(recordings, as_json)
        files = list_named_files(recordings)
        results = self._read_rows(files, model)
        rows = {path: row for path, row in results.items() if not isinstance(row, InputError)}
        for option, used in (("--write", names), ("--playlist", lists), (f"{self.map}:", renames)):
            if rows:
                check_names(used, rows.values(), option)
        for path, result in results.items():
            if isinstance(result, InputError):
                show_error(str(path), result, as_json)
        num_failed = len(results) - len(rows)
        if names and rows:
            num_failed += self._write(rows, num_failed, names, renames, as_json)
        if lists and rows:
            num_failed += self._write_playlists(rows, lists, renames, as_json)
        return 2 if num_failed else 0

    def _read_rows(
        self, files: Sequence[NamedFile], model: Model
    ) -> Mapping[Path, dict[str, Any] | InputError]:
        """Return the JSON object of each file's description, or an error."""
        from tinymu_jax.library.tag_values import read_descriptions

        if self.descriptions is None:
            return self._describe([file.path for file in files], model)
        descriptions = read_descriptions(self.descriptions)
        rows: dict[Path, dict[str, Any] | InputError] = {}
        paths_by_key: dict[str, Path] = {}
        for path, keys in files:
            if not exists(path):
                rows[path] = InputError(f"{path}: no such file; check the path of the recording")
                continue
            key = next((key for key in keys if key in descriptions), None)
            if key is None:
                rows[path] = InputError(
                    f"{path}: has no description in {self.descriptions}; describe it with `tinymu "
                    "caption`, or name the same folder as for that"
                )
                continue
            other = paths_by_key.setdefault(key, path)
            if other != path:
                raise InputError(
                    f"{self.descriptions}: {key} may be {other} or {path}; name one folder at a "
                    "time"
                )
            rows[path] = descriptions[key]
        return rows

    def _describe(
        self, paths: Sequence[Path], model: Model
    ) -> Mapping[Path, dict[str, Any] | InputError]:
        """Return the JSON object of each file's description, computed with the model."""
        from tinymu_jax.library.description import describe_recordings
        from tinymu_jax.library.fields import read_fields

        results = describe_recordings(model.load_assistant(), paths, read_fields(self.fields))
        return {
            path: result if isinstance(result, InputError) else result.to_json()
            for path, result in zip(paths, results, strict=True)
        }

    def _write(
        self,
        rows: Mapping[Path, dict[str, Any]],
        num_failed: int,
        names: Sequence[str],
        renames: Mapping[str, Any],
        as_json: bool,
    ) -> int:
        """Write the tags of all files; return the number of files that fail.

        The summary that is printed counts `num_failed` files more.
        """
        from tinymu_jax.library.tag_values import tag_values

        outcomes = Counter[str]()
        with self._open_undo(next(iter(rows)).parent) as log:
            with show_progress("tagging", len(rows), quiet=self.dry_run) as progress:
                for done, (path, row) in enumerate(rows.items()):
                    progress(done)
                    try:
                        values = tag_values(row, names, renames)
                        outcomes[self._write_one(path, row, values, log, as_json)] += 1
                    except InputError as error:
                        show_error(str(path), error, as_json)
                        outcomes["failed"] += 1
            written = log is not None and log.path.stat().st_size > 0
        errors = outcomes["failed"]
        outcomes["failed"] += num_failed
        parts = [text.format(outcomes[name]) for name, text in OUTCOMES.items() if outcomes[name]]
        undo = f"; to undo: tinymu tag --undo {log.path}" if written else ""
        print(", ".join(parts) + undo, file=sys.stderr if as_json else sys.stdout)
        return errors

    def _write_one(
        self, path: Path, row: Mapping[str, Any], values: Any, log: Any, as_json: bool
    ) -> str:
        """Write one file's tags; return the outcome."""
        from tinymu_jax.library.file_tags import plan_changes, write_changes

        changes = plan_changes(path, values, self.overwrite, row.get("seconds"))
        to_write = any(change.action == "write" for change in changes)
        if to_write and log is not None:
            names = os.stat(path).st_nlink
            write_changes(path, changes, log)
            if names > 1:
                note(f"{path}: has {names} names (hard links); the others keep the old tags")
        if as_json:
            fields = {"file": str(path), "written": to_write and log is not None}
            fields["changes"] = [change.to_json() for change in changes]
            print(json.dumps(fields, ensure_ascii=False), flush=True)
        elif self.dry_run:
            _show(path, changes)
        refused = [change.reason for change in changes if change.action == "refuse"]
        if refused:
            raise InputError("; ".join(refused))
        if to_write:
            return "planned" if log is None else "written"
        return "same" if changes else "none"

    @contextmanager
    def _open_undo(self, folder: Path) -> Iterator[Any]:
        """Yield the log for --undo, by default in `folder`; remove it if nothing was written.

        In a dry run, None is yielded.
        """
        from tinymu_jax.library.file_tags import undo_log

        if self.dry_run:
            yield None
            return
        log = undo_log(self.undo_file or _default_undo_file(folder))
        if exists(log.path):
            raise InputError(f"{log.path}: exists; name another file with --undo-file")
        with log.writing():
            try:
                yield log
            finally:
                if not log.path.stat().st_size:
                    log.path.unlink()

    def _undo(self, recordings: tuple[str, ...], as_json: bool) -> int:
        """Restore the files of an undo file; return the exit code."""
        from tinymu_jax.library.file_tags import restore, undo_log

        if recordings or self.write or self.playlist or self.dry_run:
            raise InputError("--undo restores all files of its run; pass nothing else with it")
        if not exists(self.undo):
            raise InputError(f"{self.undo}: no such file; name an undo file")
        records = undo_log(self.undo).read()
        outcomes = Counter[str]()
        with show_progress("restoring", len(records)) as progress:
            for done, (path, record) in enumerate(records.items()):
                progress(done)
                try:
                    left, is_exact = restore(record)
                except InputError as error:
                    show_error(path, error, as_json)
                    outcomes["failed"] += 1
                    continue
                if as_json:
                    fields = {"file": path, "same_bytes": is_exact, "left": left}
                    print(json.dumps(fields, ensure_ascii=False), flush=True)
                for sentence in left:
                    note(f"{path}: {sentence}")
                outcomes["left" if left else "exact" if is_exact else "restored"] += 1
        print(
            f"{outcomes['exact'] + outcomes['restored']} restored ({outcomes['exact']} to the same "
            f"bytes), {outcomes['left']} with tags changed since, {outcomes['failed']} failed",
            file=sys.stderr if as_json else sys.stdout,
        )
        return 2 if outcomes["failed"] or outcomes["left"] else 0

    def _write_playlists(
        self,
        rows: Mapping[Path, dict[str, Any]],
        names: Sequence[str],
        renames: Mapping[str, Any],
        as_json: bool,
    ) -> int:
        """Write the playlists of all fields; return the number of recordings left out."""
        from tinymu_jax.library.playlists import Entry, write_playlists
        from tinymu_jax.library.tag_values import tag_values

        if self.dry_run:
            note("a dry run writes no playlists")
            return 0
        entries = [
            Entry(path, row.get("seconds") or -1.0, tag_values(row, names, renames))
            for path, row in rows.items()
        ]
        num_left_out = 0
        for name in names:
            paths, left_out = write_playlists(entries, name, self.playlist_folder, self.overwrite)
            for sentence in left_out:
                note(sentence)
            num_left_out += len(left_out)
            text = f"{len(paths)} playlists of {name} in {self.playlist_folder}"
            print(text, file=sys.stderr if as_json else sys.stdout)
        return num_left_out


def list_named_files(recordings: Sequence[str]) -> list[NamedFile]:
    """Return the recordings that are named or lie in named folders, each file once.

    Raises:
        InputError: a folder has no recordings.
    """
    from tinymu_jax.library.tag_values import file_key

    files: dict[str, NamedFile] = {}
    for name in recordings:
        paths = list_audio_files(name) if os.path.isdir(name) else [find_file(name)]
        for path in paths:
            keys = [file_key(str(path)), file_key(name)]
            if os.path.isdir(name):
                keys[1] = file_key(str(path.relative_to(name)))
            # The name within the folder comes first.
            files.setdefault(os.path.realpath(path), NamedFile(path, tuple(reversed(keys))))
    return list(files.values())


def _default_undo_file(folder: Path) -> Path:
    """Return the path of a new undo file in a folder."""
    stem, number = time.strftime("tinymu-undo-%Y%m%d-%H%M%S"), 1
    path = folder / f"{stem}.jsonl"
    while exists(path):
        number += 1
        path = folder / f"{stem}-{number}.jsonl"
    return path


def _show(path: Path, changes: Sequence[Any]) -> None:
    """Print what a dry run would do to a file."""
    print(printable(str(path)))
    for change in changes:
        before, wanted = ("; ".join(texts) or "-" for texts in (change.before, change.wanted))
        outcome = {
            "write": f"{before} -> {wanted}",
            "same": f"{before} (the same)",
            "keep": f"{before} (kept; with --overwrite: {wanted})",
            "refuse": f"{before} ({wanted}: cannot be held)",
        }[change.action]
        print(f"  {change.field:<12} {outcome}")
