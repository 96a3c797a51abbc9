"""Embeds the recordings of a library, and writes them to an index.

Finished batches are files in the folder "<index>.work" until the index is written, so that a killed
run loses at most a batch.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float16, Float32

from tinymu_jax.audio.files import list_named
from tinymu_jax.audio.load import MAX_CLIP_SECONDS
from tinymu_jax.audio.windows import MIN_SECONDS, AudioWindow, read_windows
from tinymu_jax.checkpoints.safetensors import read_safetensors, write_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.chunked_encoding import encode_clips
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.library.index_file import (
    Entry,
    Index,
    IndexedRecording,
    IndexInfo,
    open_index,
    write_index,
)
from tinymu_jax.library.packets import audio_fingerprint
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import exists, folder_lock, new_folder, read_json_object, write_json
from tinymu_jax.utils.progress import Progress, no_progress

DEFAULT_SECONDS = 10.0
"""Length of a window for an encoder without a limit of its own."""
ENCODED_TOGETHER = 16
"""Windows per call of the encoder."""
WINDOWS_PER_PART = 64
"""Least number of windows in a file of finished recordings."""
INFO_FILE = "info.json"
ErrorHandler = Callable[[str, InputError], Any]
"""Called with the path of a recording that is left out, and the reason."""


class IndexReport(NamedTuple):
    """What `build_index` did."""

    recordings: int
    """Number of recordings in the index."""
    windows: int
    embedded: int
    """Number of recordings that were embedded by this run."""
    removed: int
    """Number of recordings that were removed, since their files have vanished."""
    vanished: int
    """Number of recordings in the index whose files have vanished."""
    failed: int
    """Number of recordings that cannot be used."""


class WindowEncoder:
    """The encoder of a model, for windows of a fixed length."""

    def __init__(self, model: Assistant | Embedder, checkpoint: str, seconds: float | None) -> None:
        """Take the encoder of a model, and the name of its checkpoint.

        `seconds` is the length of a window; None: the model's limit, or `DEFAULT_SECONDS`.

        Raises:
            InputError: `seconds` is less than `MIN_SECONDS`, or more than a day.
        """
        is_assistant = isinstance(model, Assistant)
        params = model.params["encoder"] if is_assistant else model.params
        self.config = model.config.encoder if is_assistant else model.config
        self.params, self.keep_damaged = params, model.keep_damaged
        if seconds is None:
            seconds = model.max_seconds or DEFAULT_SECONDS
        if not MIN_SECONDS <= seconds <= MAX_CLIP_SECONDS:
            raise InputError(
                f"window is {seconds}; give {MIN_SECONDS} to {MAX_CLIP_SECONDS} seconds"
            )
        weights = {name: value for name, value in params.items() if name != "head"}
        self.info = IndexInfo(fingerprint.of_weights(weights), checkpoint, float(seconds))

    def read(self, recording: str | Path) -> Iterator[AudioWindow]:
        """Yield the windows of a recording; see `read_windows` for errors."""
        return read_windows(recording, self.info.seconds, keep_damaged=self.keep_damaged)

    def embed(self, clips: Sequence[Float32[np.ndarray, "_"]]) -> Float16[np.ndarray, "n E"]:
        """Return the embeddings of n clips (16 kHz samples), averaged over time.

        Raises:
            InputError: the encoder gives NaN, infinity, or numbers too large for float16.
        """
        encoded = encode_clips(self.params, clips, self.config)
        means = np.stack([np.asarray(vectors[0]).mean(0, dtype=np.float64) for vectors in encoded])
        if np.abs(means).max() > np.finfo(np.float16).max:
            raise InputError("the encoder gives numbers too large for float16; check its weights")
        return means.astype(np.float16)

    def embed_recording(self, recording: str | Path) -> Entry:
        """Return a recording as an entry without a name; see `read` and `embed` for errors."""
        windows = list(self.read(recording))
        batches = _in_batches(windows, ENCODED_TOGETHER)
        parts = [self.embed([window.samples for window in batch]) for batch in batches]
        vectors, seconds = np.concatenate(parts), windows[-1].end
        spans = np.array([window[:2] for window in windows], np.float32)
        silent = np.array([window.is_silent for window in windows])
        return Entry(IndexedRecording("", "", seconds), spans, silent, lambda: vectors)


def check_model(index: Index, info: IndexInfo) -> None:
    """Raise `InputError` unless an index was made by a model, for windows of the same length."""
    if index.info.model != info.model:
        raise InputError(
            f"{index.path}: was made by another model ({index.info.checkpoint}), or in another "
            "precision; name that one with --checkpoint, or make another index"
        )
    if index.info.seconds != info.seconds:
        raise InputError(
            f"{index.path}: has windows of {index.info.seconds:g} s, not {info.seconds:g} s; leave "
            "--window out, or make another index"
        )


def list_paths(places: Sequence[str | Path]) -> list[str]:
    """Return the paths of the recordings below folders, and of recordings named one by one.

    Raises:
        InputError: a folder has no recordings, or a file is missing.
    """
    for place in places:
        if not exists(place):
            raise InputError(f"{place}: no such file or folder; check the path")
    return list(dict.fromkeys(os.path.normpath(path) for path, _ in list_named(places)))


def build_index(
    encoder: WindowEncoder,
    places: Sequence[str | Path],
    output: Path,
    update: bool = False,
    prune: bool = False,
    on_error: ErrorHandler = lambda recording, error: None,
    progress: Progress = no_progress,
) -> IndexReport:
    """Embed the recordings in folders, and write the index `output`.

    The same recordings give the same bytes, in any order. If the run is killed, the next one
    continues its work.

    Args:
        encoder: the encoder, whose windows have the length of the index's.
        places: folders, or paths of recordings.
        output: the file to write.
        update: whether to add to the index `output`, if there is one. Recordings whose content is
            in the index are not embedded again.
        prune: whether to remove recordings whose files have vanished.
        on_error: called with each recording that cannot be used, and the error.
        progress: called with the numbers of finished recordings and of all recordings to embed.

    Raises:
        InputError: the index exists and is not to be updated, or is of another model; it cannot be
            written; another process is writing it; no recording can be used.
    """
    paths, failed = list_paths(places), list[str]()

    def leave_out(recording: str, error: InputError) -> None:
        failed.append(recording)
        on_error(recording, error)

    work = output.with_name(f"{output.name}.work")
    with new_folder(work), folder_lock(work):
        old = _open_old(output, update, encoder.info)
        contents = _contents(paths, leave_out)
        entries, embedded = _embed_new(encoder, contents, old, work, leave_out, progress)
        named = {_name(path, output): entry for path, entry in entries.items()}
        old_entries, vanished, removed = _remaining(old, named, prune)
        entries = old_entries | {
            name: entry._replace(recording=entry.recording._replace(file=name))
            for name, entry in named.items()
        }
        if not entries:
            raise InputError(f"{output}: not written, since no recording can be used; see above")
        write_index(output, encoder.info, entries.values(), encoder.config.output_width)
        shutil.rmtree(work)
    windows = sum(len(entry.spans) for entry in entries.values())
    return IndexReport(len(entries), windows, embedded, removed, vanished, len(failed))


def _embed_new(
    encoder: WindowEncoder,
    contents: Mapping[str, str],
    old: Index | None,
    work: Path,
    on_error: ErrorHandler,
    progress: Progress,
) -> tuple[dict[str, Entry], int]:
    """Embed the recordings whose content is neither in the old index nor in the folder `work`.

    `contents` are fingerprints by path. Returns the entries of all recordings by path, with the
    names in the old index or none, and how many were embedded now.
    """
    old_entries = [_entry(old, number) for number in range(len(old.files))] if old else []
    known = {entry.recording.content: entry for entry in old_entries}
    parts = _Parts(work, encoder.info)
    todo: dict[str, str] = {}
    for path, content in contents.items():
        if content not in known and content not in parts:
            todo.setdefault(content, path)  # copies are embedded once
    errors = parts.embed(encoder, todo, progress)
    entries = {}
    for path, content in contents.items():
        if content in errors:
            on_error(path, errors[content])
        else:
            entries[path] = known.get(content) or parts[content]
    return entries, len(todo) - len(errors)


def _open_old(output: Path, update: bool, info: IndexInfo) -> Index | None:
    """Return the index to update, None if there is none; see `build_index` for errors."""
    if not exists(output):
        return None
    if not update:
        raise InputError(f"{output}: exists; add to it with --update, or name another file")
    index = open_index(output)
    check_model(index, info)
    return index


def _contents(paths: Sequence[str], on_error: ErrorHandler) -> dict[str, str]:
    """Return the fingerprint of each readable recording's audio, by path."""
    contents = {}
    for path in paths:
        try:
            contents[path] = audio_fingerprint(path)
        except InputError as error:
            on_error(path, error)
    return contents


def _name(path: str, output: Path) -> str:
    """Return a recording's path relative to the folder of the index, with "/" between folders."""
    return Path(os.path.relpath(path, output.parent)).as_posix()


def _entry(index: Index, number: int) -> Entry:
    rows = index.rows(number)
    spans, silent = index.window_spans[rows], index.window_silent[rows]
    return Entry(index.files[number], spans, silent, lambda: index.windows[rows])


def _remaining(
    old: Index | None, entries: dict[str, Entry], prune: bool
) -> tuple[dict[str, Entry], int, int]:
    """Return the entries of the old index that stay, and how many have vanished and are removed."""
    remaining, vanished, removed = {}, 0, 0
    for number, recording in enumerate(old.files if old else ()):
        if recording.file in entries:
            continue
        is_gone = not os.path.exists(old.place(number))
        if is_gone and prune:
            removed += 1
            continue
        vanished += is_gone
        remaining[recording.file] = _entry(old, number)
    return remaining, vanished, removed


class _Parts:
    """Files with the embeddings of finished recordings, by content."""

    def __init__(self, folder: Path, info: IndexInfo) -> None:
        """Open the files of an earlier run; raise `InputError` if another model made them."""
        self.folder, self._info = folder, info._asdict()
        if exists(folder / INFO_FILE):
            earlier = read_json_object(folder / INFO_FILE, "remove its folder")
            if any(earlier.get(name) != self._info[name] for name in ("model", "seconds")):
                raise InputError(
                    f"{folder}: holds the unfinished work of another model "
                    f"({earlier.get('checkpoint')}), or of other windows; finish that, or remove "
                    "the folder"
                )
        self._entries: dict[str, Entry] = {}
        self._read = lru_cache(maxsize=2)(read_safetensors)
        for file in sorted(folder.glob("*.safetensors")):
            self._add(file, read_safetensors(file))

    def _add(self, file: Path, arrays: dict[str, np.ndarray]) -> None:
        for content in {name.partition(".")[0] for name in arrays}:
            spans, silent = arrays[f"{content}.spans"], arrays[f"{content}.silent"]
            recording = IndexedRecording("", content, round(float(spans[-1, 1]), 3))
            read = partial(self._windows, file, content)
            self._entries[content] = Entry(recording, spans, silent, read)

    def _windows(self, file: Path, content: str) -> np.ndarray:
        return self._read(file)[content]

    def __contains__(self, content: str) -> bool:
        return content in self._entries

    def __getitem__(self, content: str) -> Entry:
        """Return the entry, without a name, of a recording."""
        return self._entries[content]

    def embed(
        self, encoder: WindowEncoder, todo: Mapping[str, str], progress: Progress
    ) -> dict[str, InputError]:
        """Embed recordings (content -> path), and write files; return the errors by content."""
        errors: dict[str, InputError] = {}
        arrays: dict[str, np.ndarray] = {}
        num_windows = 0
        progress(0, len(todo))
        for done, (content, result) in enumerate(_embed_all(encoder, todo), 1):
            if isinstance(result, InputError):
                errors[content] = result
            else:
                windows, vectors = result
                num_windows += len(windows)
                arrays[content] = vectors
                arrays[f"{content}.spans"] = _spans(windows)
                arrays[f"{content}.silent"] = np.array([silent for _, _, silent in windows])
            if arrays and (num_windows >= WINDOWS_PER_PART or done == len(todo)):
                self._write(arrays)
                arrays, num_windows = {}, 0
            progress(done, len(todo))
        return errors

    def _write(self, arrays: dict[str, np.ndarray]) -> None:
        path = self.folder / f"{min(arrays)}.safetensors"
        write_json(self.folder / INFO_FILE, self._info)
        write_safetensors(path, arrays)
        self._add(path, arrays)


class _WindowInfo(NamedTuple):
    """A window whose samples are no longer needed."""

    start: float
    end: float
    is_silent: bool


def _spans(windows: Sequence[_WindowInfo]) -> Float32[np.ndarray, "w 2"]:
    return np.array([(window.start, window.end) for window in windows], np.float32)


Embedded = tuple[list[_WindowInfo], Float16[np.ndarray, "w E"]]


def _embed_all(
    encoder: WindowEncoder, todo: Mapping[str, str]
) -> Iterator[tuple[str, Embedded | InputError]]:
    """Yield the windows and embeddings, or the error, of each recording, by content.

    Windows of several recordings are encoded together.
    """
    windows: dict[str, list[_WindowInfo]] = defaultdict(list)
    vectors: dict[str, list[np.ndarray]] = defaultdict(list)
    for batch in _in_batches(_windows(encoder, todo), ENCODED_TOGETHER):
        clips = [item.samples for _, item in batch if isinstance(item, AudioWindow)]
        rows = iter(encoder.embed(clips) if clips else ())
        for content, item in batch:
            if isinstance(item, AudioWindow):
                windows[content].append(_WindowInfo(item.start, item.end, item.is_silent))
                vectors[content].append(next(rows))
                continue
            result = windows.pop(content, []), vectors.pop(content, [])
            yield content, item or (result[0], np.stack(result[1]))


def _windows(
    encoder: WindowEncoder, todo: Mapping[str, str]
) -> Iterator[tuple[str, AudioWindow | InputError | None]]:
    """Yield each recording's windows by content, and at its end None or an error."""
    for content, path in todo.items():
        try:
            for window in encoder.read(path):
                yield content, window
            if audio_fingerprint(path) == content:
                yield content, None
            else:
                raise InputError(f"{path}: changed while it was read; run the command again")
        except InputError as error:
            yield content, error


def _in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield items in lists of `size`; the last may be shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
