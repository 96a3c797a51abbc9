"""The file of an index: embeddings of the recordings of a library, in safetensors.

windows          (W, E) float16: embeddings of all windows, recording by recording
recordings       (R, E) float16: mean of each recording's windows
window_spans     (W, 2) float32: start and end of each window in seconds
window_silent    (W,) bool: whether a window is silence
first_window     (R + 1,) int64: number of each recording's first window, and W
window_norms     (W,) float32, recording_norms (R,) float32: lengths of the vectors
files            bytes: a line of JSON for each recording, sorted by file
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64

from tinymu_jax.checkpoints.safetensors import map_safetensors
from tinymu_jax.errors import InputError, reason_of
from tinymu_jax.utils.files import exists, printable, write_atomic

FORMAT = "tinymu index 1"
ALIGNMENT = 64
"""The arrays begin at a multiple of this in the file, where processors read fastest."""
BLOCK_ROWS = 1024
"""Vectors that are read at once."""
_TYPES = {np.float16: "F16", np.float32: "F32", np.int64: "I64", np.uint8: "U8", np.bool_: "BOOL"}


class IndexInfo(NamedTuple):
    """What made an index; vectors of different models, or of other windows, are not compared."""

    model: str
    """Fingerprint of the encoder's weights."""
    checkpoint: str
    """Name of the checkpoint."""
    seconds: float
    """Length of a window."""


class IndexedRecording(NamedTuple):
    """A recording in an index."""

    file: str
    """Path relative to the index's folder, with "/" between folders."""
    content: str
    """SHA-256 fingerprint of the file's encoded audio; tags may change."""
    seconds: float


class Entry(NamedTuple):
    """A recording to be written to an index."""

    recording: IndexedRecording
    spans: Float32[np.ndarray, "w 2"]
    """Start and end of each window in seconds."""
    silent: Bool[np.ndarray, "w"]
    read: Callable[[], Float16[np.ndarray, "w E"]]
    """Returns the embeddings of the windows."""


@dataclass(frozen=True)
class Index:
    """An open index. The arrays are memory-mapped: they are read when they are used."""

    path: Path
    info: IndexInfo
    files: Sequence[IndexedRecording]
    windows: Float16[np.ndarray, "W E"]
    window_norms: Float32[np.ndarray, "W"]
    window_spans: Float32[np.ndarray, "W 2"]
    window_silent: Bool[np.ndarray, "W"]
    first_window: Int64[np.ndarray, "R+1"]
    recordings: Float16[np.ndarray, "R E"]
    recording_norms: Float32[np.ndarray, "R"]

    @cached_property
    def recording_of_window(self) -> Int64[np.ndarray, "W"]:
        """Number of the recording that each window is part of."""
        return np.repeat(np.arange(len(self.files)), np.diff(self.first_window))

    def rows(self, number: int) -> slice:
        """Return which rows of `windows` are those of a recording, by its number in `files`."""
        return slice(*self.first_window[number : number + 2].tolist())

    def place(self, number: int) -> str:
        """Return the path of a recording, relative to the working folder if the index's path is."""
        return os.path.normpath(self.path.parent / self.files[number].file)


def open_index(path: str | Path) -> Index:
    """Open an index.

    Raises:
        InputError: the file is missing, damaged, or no index.
    """
    from safetensors import safe_open

    path = Path(path)
    if not exists(path):
        raise InputError(
            f"{path}: no such index; make it with: tinymu index FOLDER --output {path}"
        )
    try:
        arrays = map_safetensors(path)
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        info = IndexInfo(metadata["model"], metadata["checkpoint"], float(metadata["seconds"]))
        lines = arrays.pop("files").tobytes().decode().splitlines()
        files = [IndexedRecording(**json.loads(line)) for line in lines]
        index = Index(path, info, files, **arrays)
        _check_shapes(index)
    except (InputError, ValueError, LookupError, TypeError) as error:
        # An `InputError` of the reader names remedies for a checkpoint.
        reason = "damaged" if isinstance(error, InputError) else reason_of(error)
        raise InputError(
            f"{path}: is no whole index ({reason}); make it again with tinymu index"
        ) from error
    return index


def _check_shapes(index: Index) -> None:
    """Raise `ValueError` unless all arrays are of the same recordings and windows."""
    (num_windows, width), num_recordings = index.windows.shape, len(index.files)
    shapes = {
        "recordings": (num_recordings, width),
        "window_spans": (num_windows, 2),
        "window_silent": (num_windows,),
        "first_window": (num_recordings + 1,),
        "window_norms": (num_windows,),
        "recording_norms": (num_recordings,),
    }
    wrong = [name for name, shape in shapes.items() if getattr(index, name).shape != shape]
    if wrong or index.first_window[-1] != num_windows:
        raise ValueError(f"its arrays disagree in size: {', '.join(wrong) or 'first_window'}")


def write_index(path: Path, info: IndexInfo, entries: Iterable[Entry], width: int) -> None:
    """Write an index of one or more recordings atomically; `width` is E.

    The vectors pass through memory a recording at a time.

    Raises:
        InputError: the file cannot be written.
    """
    entries = sorted(entries, key=lambda entry: entry.recording.file)
    spans = np.concatenate([entry.spans for entry in entries]).astype(np.float32)
    first = np.cumsum([0, *(len(entry.spans) for entry in entries)], dtype=np.int64)
    lines = [json.dumps(entry.recording._asdict()) + "\n" for entry in entries]
    means = np.empty((len(entries), width), np.float16)

    def write(partial: Path) -> None:
        rest = {
            "recordings": means,
            "window_spans": spans,
            "first_window": first,
            "window_silent": np.concatenate([entry.silent for entry in entries]),
            "window_norms": np.empty(len(spans), np.float32),
            "recording_norms": np.empty(len(entries), np.float32),
            "files": np.frombuffer("".join(lines).encode("ascii"), np.uint8),
        }
        specs = {name: (array.dtype.type, array.shape) for name, array in rest.items()}
        with partial.open("wb") as file:
            file.write(_header(info, {"windows": (np.float16, (len(spans), width))} | specs))
            for number, entry in enumerate(entries):
                windows = np.ascontiguousarray(entry.read(), np.float16)
                file.write(windows.data)
                rest["window_norms"][slice(*first[number : number + 2])] = norms(windows)
                means[number] = windows.mean(0, dtype=np.float64)
            rest["recording_norms"][:] = norms(means)
            for array in rest.values():
                file.write(array.data)

    write_atomic(path, write)


def _header(info: IndexInfo, specs: dict[str, tuple[Any, tuple[int, ...]]]) -> bytes:
    """Return the bytes before the arrays of a safetensors file.

    The library can only write arrays that are all in memory.
    """
    metadata = {
        "format": FORMAT,
        "model": info.model,
        "checkpoint": printable(info.checkpoint),
        "seconds": repr(info.seconds),
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, (dtype, shape) in specs.items():
        end = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _TYPES[dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode("ascii")
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def norms(vectors: Float16[np.ndarray, "n E"]) -> Float32[np.ndarray, "n"]:
    """Return the length of each vector; 1 for a vector of zeros, which has no direction."""
    parts = [
        np.linalg.norm(block.astype(np.float32), axis=1) for block in blocks(vectors, BLOCK_ROWS)
    ]
    lengths = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return np.where(lengths > 0, lengths, 1).astype(np.float32)


def blocks(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield an array's rows in blocks of `size`; the last may be shorter."""
    for start in range(0, len(array), size):
        yield array[start : start + size]
