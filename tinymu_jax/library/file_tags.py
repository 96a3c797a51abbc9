"""Writes values into the tags of recordings, and restores the tags that were there before.

A file is replaced by a changed copy, so that a killed process leaves no half-written recording.
Before that, the copy's tags are read back, its audio packets are compared with the original's, and
what is needed to undo the change is on disk.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.errors import InputError, translate
from tinymu_jax.library.packets import Packets, read_packets
from tinymu_jax.library.tag_formats import TaggedFile, find_format, open_tags
from tinymu_jax.library.tag_values import Values
from tinymu_jax.utils.files import edit_atomic
from tinymu_jax.utils.fingerprint import of_file
from tinymu_jax.utils.jsonl import JsonlLog

SECONDS_TOLERANCE = 1.0
"""Seconds by which a recording's length may differ from its description's (or 1 % of it)."""


class Change(NamedTuple):
    """What is done to one field of one file."""

    field: str
    before: list[str]
    """Values in the file."""
    wanted: list[str]
    """Values to write, as the format holds them."""
    action: str
    """write, keep (another value is there), same (the value is there), or refuse."""
    reason: str = ""
    """Why the format cannot hold the value, if `action` is "refuse"."""

    @property
    def after(self) -> list[str]:
        """Values after the run."""
        return self.wanted if self.action == "write" else self.before

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON object."""
        reason = {"reason": self.reason} if self.reason else {}
        values = {"before": self.before, "after": self.after, "action": self.action}
        return {"field": self.field} | values | reason


class Undo(NamedTuple):
    """What is needed to restore one file's tags."""

    path: str
    """Absolute path, without links."""
    had_tags: bool
    """Whether the file had a container for tags before."""
    padding: int
    """Number of free bytes after the tags before; negative if there was no padding."""
    sha256: str
    """Fingerprint of the whole file before."""
    before: Mapping[str, Sequence[Any]]
    """`TaggedFile.dump` of each field that was written, before."""
    after: Mapping[str, Sequence[str]]
    """Values that were written, by field."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of a line of the undo file."""
        return {"key": self.path} | {k: v for k, v in self._asdict().items() if k != "path"}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Undo":
        """Return the record of a line; raise `LookupError` or `TypeError` if it is malformed."""
        undo = cls(row["key"], *(row[name] for name in cls._fields[1:]))
        if not (isinstance(undo.before, dict) and isinstance(undo.after, dict)):
            raise TypeError("before or after is no map")
        if undo.before.keys() != undo.after.keys():
            raise LookupError("before and after have different fields")
        return undo


def undo_log(path: Path) -> JsonlLog[Undo]:
    """Return the log of what a run wrote, with a line per file."""
    return JsonlLog(path, Undo.from_json, "a record of written tags", "name an undo file")


def plan_changes(
    path: str | Path, values: Values, overwrite: bool, seconds: float | None = None
) -> list[Change]:
    """Return what writing values into a file's tags changes; nothing is written.

    Args:
        path: the file.
        values: the values to write, by field.
        overwrite: whether to replace values that are in the file.
        seconds: length of the recording when it was described, if that is known.

    Raises:
        InputError: the file is damaged, its format holds no tags, or its length differs from
            `seconds`.
    """
    tags = open_tags(path, find_format(path))
    length = read_packets(path).seconds
    if (length and seconds) and abs(length - seconds) > max(SECONDS_TOLERANCE, 0.01 * seconds):
        raise InputError(
            f"{path}: lasts {length:.1f} s, but {seconds:.1f} s when it was described; it has "
            "changed: describe it again"
        )
    return [_plan_field(tags, field, texts, overwrite) for field, texts in values.items()]


def _plan_field(tags: TaggedFile, field: str, values: Sequence[str], overwrite: bool) -> Change:
    before = tags.texts(field)
    try:
        wanted = tags.encode(field, values)
    except InputError as error:
        return Change(field, before, list(values), "refuse", str(error))
    if before == wanted:
        return Change(field, before, wanted, "same")
    # An empty value is none.
    return Change(field, before, wanted, "keep" if any(before) and not overwrite else "write")


def write_changes(path: str | Path, changes: Sequence[Change], log: JsonlLog[Undo]) -> None:
    """Write changes (those whose action is "write") into a file; first append an `Undo` to a log.

    Raises:
        InputError: the file cannot be replaced, or its format does not hold the values; the file is
            as it was.
    """
    planned = [change for change in changes if change.action == "write"]
    after = {change.field: change.after for change in planned}
    format, target = find_format(path), os.path.realpath(path)

    def edit(copy: Path) -> None:
        packets, sha256 = read_packets(copy), of_file(copy)
        tags = open_tags(copy, format)
        if any(tags.texts(change.field) != change.before for change in planned):
            raise InputError(f"{path}: another process is changing it; run this again later")
        before = {field: tags.dump(field) for field in after}
        undo = Undo(target, tags.had_tags, tags.measure_padding(), sha256, before, after)
        for field, texts in after.items():
            tags.set(field, texts)
        tags.save()
        written = open_tags(copy, format)
        for field, texts in after.items():
            if written.texts(field) != texts:
                raise InputError(f"{path}: its tags do not hold {field} {'; '.join(texts)!r}")
        _check_audio(path, copy, packets)
        log.append([undo.to_json()])
        _sync(log.path)

    with _name_copy(path):
        edit_atomic(path, edit)


def restore(undo: Undo) -> tuple[list[str], bool]:
    """Restore the tags of a file that `write_changes` changed.

    Returns a sentence for each field that is left as it is, since its present value is not what was
    written; and whether the file's bytes are now those from before.

    Raises:
        InputError: the file cannot be read or replaced; it is as it was.
    """
    path = undo.path
    format = find_format(path)
    tags = open_tags(path, format)
    fields, left = [], []
    for field, texts in undo.after.items():
        present = tags.texts(field)
        if present == list(texts):
            fields.append(field)
        elif tags.dump(field) != undo.before[field]:
            left.append(f"{field} is {'; '.join(present)!r} now, not what was written; it stays")
    if not fields:
        return left, of_file(path) == undo.sha256

    def edit(copy: Path) -> None:
        packets = read_packets(copy)
        tags = open_tags(copy, format)
        tags.load({field: undo.before[field] for field in fields})
        if not undo.had_tags and tags.is_empty():
            tags.remove(undo.padding)
        else:
            tags.save(lambda info: max(undo.padding, 0))
        _check_audio(path, copy, packets)

    with _name_copy(path):
        edit_atomic(path, edit)
    return left, of_file(path) == undo.sha256


def _check_audio(path: str | Path, copy: Path, packets: Packets) -> None:
    if read_packets(copy) != packets:
        raise InputError(
            f"{path}: writing its tags would change its audio; it is as it was: repair the file "
            "with its format's own tools"
        )


def _name_copy(path: str | Path) -> Any:
    """Convert errors of mutagen, which would name the copy of a file, to an `InputError`."""
    return translate(f"{path}: its tags cannot be written ({{reason}}); it is as it was")


def _sync(path: Path) -> None:
    """Wait until a file is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
