"""Weights of a safetensors file as views of it: they cost no memory until they are looked at."""

import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists, write_atomic

TYPES = {
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
"""Names of the format's types."""


def map_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Returns all arrays of a safetensors file, read-only; it must not be rewritten meanwhile.

    Raises:
        InputError: it is missing, or not a whole safetensors file.
    """
    path = Path(path)
    try:
        mapped = np.memmap(path, np.uint8, "r")
        start = 8 + int(mapped[:8].view("<u8")[0])
        header = json.loads(mapped[8:start].tobytes())
        return {
            name: _array(mapped[start:], one) for name, one in header.items() if name[:2] != "__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not a whole safetensors file ({error}); download or convert it again"
        ) from error


def _array(data: np.ndarray, told: dict) -> np.ndarray:
    first, last = told["data_offsets"]
    if last > data.size:
        raise ValueError("it is cut short")
    # The format does not align single numbers; numpy reads them all the same.
    return np.ndarray(tuple(told["shape"]), TYPES[told["dtype"]], data[first:last])


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns all arrays of a safetensors file; bfloat16 arrays come as ml_dtypes'.

    Raises:
        InputError: it is missing, or not a whole safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not exists(path):
        raise InputError(f"{path}: no such file; convert or download the checkpoint again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is not a whole safetensors file ({error}); download or convert it again"
        ) from error


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes arrays, whatever their order in memory, to a safetensors file, whole or not at all.

    Raises:
        InputError: the place cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}

    def write(partial: Path) -> None:
        try:
            save_file(whole, partial, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_atomic(path, write)
