"""Writes recordings and their descriptions to the tar files of a webdataset.

Each recording is three members with one key, a number: its bytes as they are, the description as
json, and the caption as txt. In the json, `text` is the caption, too: Stable Audio Tools takes it
for the prompt (data/dataset.py, `wds_preprocess`).
"""

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tinymu_jax.errors import InputError
from tinymu_jax.library.description import Description
from tinymu_jax.library.formats.options import FormatOptions
from tinymu_jax.library.formats.tables import json_line, to_json
from tinymu_jax.utils.files import make_folder, remove, write_atomic

SHARD_NAME = "captions-{:06d}.tar"
Shard = list[tuple[int, Path, Description]]
"""Number, path and description of each recording in a tar file."""


def list_shards(folder: Path) -> list[Path]:
    """Return the tar files that were written to a folder, sorted."""
    return sorted(p for p in folder.glob("*.tar") if re.fullmatch(r"captions-\d{6}\.tar", p.name))


def write_shards(
    folder: Path, described: Iterable[tuple[Path, Description]], options: FormatOptions
) -> None:
    """Write the tar files of a webdataset, each atomically; remove others of an earlier run.

    Recordings that are silent are left out. A tar file's bytes depend on the recordings' names,
    bytes and descriptions alone.

    Raises:
        InputError: a recording cannot be read, or a tar file cannot be written.
    """
    make_folder(folder)
    audible = [(path, description) for path, description in described if not description.silent]
    written = set()
    for number, shard in enumerate(_plan(audible, options)):
        path = folder / SHARD_NAME.format(number)
        write_atomic(path, lambda partial, shard=shard: _write_shard(partial, shard, options))
        written.add(path)
    for path in list_shards(folder):
        if path not in written:
            remove(path)


def _plan(described: list[tuple[Path, Description]], options: FormatOptions) -> Iterator[Shard]:
    """Yield the recordings of each tar file."""
    shard: Shard = []
    size = 0
    for number, (path, description) in enumerate(described):
        with _open(path) as file:
            length = os.fstat(file.fileno()).st_size
        length += sum(len(data) for _, data in _texts(description, options))
        if shard and size + length > options.shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append((number, path, description))
        size += length
    if shard:
        yield shard


def _texts(description: Description, options: FormatOptions) -> Iterator[tuple[str, bytes]]:
    """Yield suffix and content of the members beside the recording."""
    content = to_json(description, options)
    caption = content["caption"]
    if caption is None:
        yield "json", json_line(content).encode()
        return
    yield "json", json_line(content | {"text": caption}).encode()
    yield "txt", caption.encode()


def _write_shard(partial: Path, shard: Shard, options: FormatOptions) -> None:
    with tarfile.open(partial, "w") as tar:
        for number, path, description in shard:
            # A number has no dot, at the first of which webdataset would end the key.
            key, suffix = f"{number:08d}", path.suffix[1:].lower()
            if not re.fullmatch("[a-z0-9]+", suffix) or suffix in ("json", "txt"):
                suffix = "audio"
            with _open(path) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    _add(tar, f"{key}.{suffix}", size, file)
                except OSError as error:
                    if error.errno is None:  # tarfile's own: the recording has become shorter
                        raise InputError(f"{path}: changed while it was read; run again") from error
                    raise
            for kind, data in _texts(description, options):
                _add(tar, f"{key}.{kind}", len(data), io.BytesIO(data))


def _add(tar: tarfile.TarFile, name: str, size: int, file: BinaryIO) -> None:
    """Add a member without a time or an owner."""
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, file)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
