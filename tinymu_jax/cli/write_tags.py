"""The options of `tinymu tag` that write tags into files, undo that, and write playlists."""

import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.audio.files import find_file, list_named
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


BATCH_SIZE = 8
"""Number of recordings that are described together."""
Results = Iterable[dict[str, Any] | InputError]
"""JSON object of each file's description, or why there is none."""


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
        if self.descriptions is None:
            known, results = self._describe(files, {*names, *lists}, model)
        else:
            known, results = self._look_up(files)
        for option, used in (("--write", names), ("--playlist", lists), (f"{self.map}:", renames)):
            check_names(used, known, option)
        folder = Path(recordings[0])
        folder = folder if folder.is_dir() else folder.parent
        with self._open_undo(folder, bool(names)) as log:
            rows, num_failed = self._write(files, results, names, renames, log, as_json)
        if lists and rows:
            num_failed += self._write_playlists(rows, lists, renames, as_json)
        return 2 if num_failed else 0

    def _look_up(self, files: Sequence[NamedFile]) -> tuple[Sequence[str], Results]:
        """Return the names of all fields, and the description of each file in --descriptions."""
        from tinymu_jax.library.tag_values import known_names, read_descriptions

        descriptions = read_descriptions(self.descriptions)
        results: list[dict[str, Any] | InputError] = []
        paths_by_key: dict[str, Path] = {}
        for path, keys in files:
            key = next((key for key in keys if key in descriptions), None)
            if not exists(path):
                results.append(InputError(f"{path}: no such file; check the recording's path"))
            elif key is None:
                results.append(
                    InputError(
                        f"{path}: has no description in {self.descriptions}; describe it with "
                        "`tinymu caption`, or name the same folder as for that"
                    )
                )
            else:
                other = paths_by_key.setdefault(key, path)
                if other != path:
                    raise InputError(
                        f"{self.descriptions}: {key} may be {other} or {path}; name one folder at "
                        "a time"
                    )
                results.append(descriptions[key])
        return known_names(descriptions.values()), results

    def _describe(
        self, files: Sequence[NamedFile], needed: set[str], model: Model
    ) -> tuple[Sequence[str], Results]:
        """Return the names of all fields, and an iterator that describes the files."""
        from tinymu_jax.library.description import (
            CAPTION_PROMPT,
            DescribeOptions,
            describe_recordings,
        )
        from tinymu_jax.library.fields import read_fields
        from tinymu_jax.library.tag_values import MEASURED

        choices = read_fields(self.fields)
        options = DescribeOptions(
            fields=[field for field in choices if field.name in needed],
            prompt=CAPTION_PROMPT if "comment" in needed else None,
            tempo_and_key=not needed.isdisjoint(("bpm", "key")),
        )

        def results() -> Iterator[dict[str, Any] | InputError]:
            assistant = model.load_assistant()
            # A batch is described together.
            for start in range(0, len(files), BATCH_SIZE):
                batch = [(str(file.path), file.path) for file in files[start : start + BATCH_SIZE]]
                for result in describe_recordings(assistant, batch, options):
                    yield result if isinstance(result, InputError) else result.to_json()

        return (*MEASURED, *(field.name for field in choices)), results()

    def _write(
        self,
        files: Sequence[NamedFile],
        results: Results,
        names: Sequence[str],
        renames: Mapping[str, Any],
        log: Any,
        as_json: bool,
    ) -> tuple[dict[Path, dict[str, Any]], int]:
        """Write the fields `names` into all files, if there are any, and print a summary.

        Returns the descriptions by file, and the number of files that failed.
        """
        from tinymu_jax.library.tag_values import tag_values

        rows: dict[Path, dict[str, Any]] = {}
        outcomes = Counter[str]()
        with show_progress("tagging", len(files), quiet=self.dry_run) as progress:
            for done, (file, row) in enumerate(zip(files, results, strict=True)):
                progress(done)
                try:
                    if isinstance(row, InputError):
                        raise row
                    rows[file.path] = row
                    if names:
                        values = tag_values(row, names, renames)
                        outcomes[self._write_one(file.path, row, values, log, as_json)] += 1
                except InputError as error:
                    show_error(str(file.path), error, as_json)
                    outcomes["failed"] += 1
        if names:
            parts = [text.format(outcomes[key]) for key, text in OUTCOMES.items() if outcomes[key]]
            can_undo = log is not None and log.path.stat().st_size > 0
            hint = f"; to undo: tinymu tag --undo {log.path}" if can_undo else ""
            print(", ".join(parts) + hint, file=sys.stderr if as_json else sys.stdout)
        return rows, outcomes["failed"]

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
    def _open_undo(self, folder: Path, needed: bool) -> Iterator[Any]:
        """Yield the log for --undo, by default in `folder`; remove it if nothing was written.

        None is yielded in a dry run, or if it is not needed.
        """
        from tinymu_jax.library.file_tags import undo_log

        if self.dry_run or not needed:
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
            f"{outcomes['exact'] + outcomes['restored']} as before the run ({outcomes['exact']} to "
            f"the byte), {outcomes['left']} with tags changed since, {outcomes['failed']} failed",
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
            text = f"playlists of {name}: {len(paths)} in {self.playlist_folder}"
            print(text, file=sys.stderr if as_json else sys.stdout)
        return num_left_out


def list_named_files(recordings: Sequence[str]) -> list[NamedFile]:
    """Return the recordings that are named or lie in named folders, each file once.

    Raises:
        InputError: a folder has no recordings.
    """
    from tinymu_jax.library.tag_values import file_key

    files: dict[str, NamedFile] = {}
    for name, folder in list_named(recordings):
        path = name if folder is not None else find_file(name)
        below = name if folder is None else path.relative_to(folder)
        keys = [file_key(str(path)), file_key(str(below))]
        # `tinymu caption` names a file by its path in the folder if it is given one folder.
        keys = keys[::-1] if len(recordings) == 1 else keys
        files.setdefault(os.path.realpath(path), NamedFile(path, tuple(keys)))
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
