"""Reads, memory-maps and writes safetensors files."""

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np

from tinymu_jax.errors import translate
from tinymu_jax.utils.files import check_content, write_atomic

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""Numpy data types by their names in safetensors files."""


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turn errors raised inside the context while reading `path` into an `InputError`."""
    check_content(path)
    damaged = f"{path}: is not a whole safetensors file ({{reason}}); download or convert it again"
    missing = f"{path}: no such file; convert or download the checkpoint again"
    with translate(damaged, {FileNotFoundError: missing}):
        yield


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of a safetensors file, by name; bfloat16 is `ml_dtypes.bfloat16`.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors.numpy import load_file

    with _reading(path):
        return load_file(path)


def map_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Memory-map a safetensors file and return its arrays as read-only views, by name.

    The views take no memory until they are read. The file must not be overwritten meanwhile.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors import safe_open

    with _reading(path):
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            specs = {n: (DTYPES[s.get_dtype()], tuple(s.get_shape())) for n, s in slices.items()}
        # The library, which would copy the arrays, only checks the file and lists names, data types
        # and shapes. The arrays are at the end of the file, in the order of `offset_keys`, no gaps.
        sizes = [dtype.itemsize * int(np.prod(shape)) for dtype, shape in specs.values()]
        data = np.memmap(path, np.uint8, "r")
        starts = data.size - sum(sizes) + np.cumsum([0, *sizes])
        return {
            name: np.ndarray(shape, dtype, data, int(start))
            for (name, (dtype, shape)), start in zip(specs.items(), starts, strict=False)
        }


def release_pages(array: np.ndarray) -> None:
    """Let the system reclaim the memory of a mapped file, given one of its arrays.

    The arrays stay usable, since what is needed again is read again. Any other array is ignored.
    """
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Write arrays, by name, to a safetensors file atomically; any memory layout is accepted.

    Raises:
        InputError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}

    def write(partial: Path) -> None:
        try:
            save_file(contiguous, partial, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_atomic(path, write)
