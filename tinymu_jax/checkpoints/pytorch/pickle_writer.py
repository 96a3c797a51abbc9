"""Writes PyTorch's zip checkpoints without PyTorch; see `pickle_reader` for the format."""

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np

from tinymu_jax.checkpoints.pytorch.pickle_reader import STORAGES, file_error
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import write_atomic

_ALIGNMENT = 64  # bytes, as in torch.save: tensors in a memory-mapped file are aligned

# The pickler writes a `_Global` as a global, importable or not, and a `_Storage` as a storage's id.
_Global = namedtuple("_Global", "module name")
_Storage = namedtuple("_Storage", "tag type key location numel")
_STORAGE_GLOBALS = {dtype: _Global("torch", name) for name, dtype in STORAGES.items()}
_REBUILD_TENSOR = _Global("torch._utils", "_rebuild_tensor_v2")
_ENCODE = _Global("_codecs", "encode")
_WRITABLE = (dict, OrderedDict, list, tuple, str, int, float, bool, type(None))


def write_torch_file(path: str | Path, obj: object) -> None:
    """Write a checkpoint that ``torch.load(path, weights_only=True)`` reads, atomically.

    `obj` is a tree of dict, OrderedDict, list, tuple, str, bytes, int, float, bool, None and numpy
    arrays of float16/32/64, bfloat16, int8/16/32/64, uint8 or bool. Arrays become contiguous CPU
    tensors with the same bits; an array object that occurs twice becomes one tensor. Numpy scalars
    become Python numbers. Equal content gives equal bytes.

    Raises:
        InputError: `obj` contains an object of another type, or the file cannot be written.
    """
    path = Path(path)
    pickled = io.BytesIO()
    pickler = _Pickler(pickled)
    try:
        pickler.dump(obj)
    except InputError as error:
        raise file_error(path, str(error)) from error

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w") as archive:
            _write_record(archive, "data.pkl", pickled.getbuffer())
            _write_record(archive, "byteorder", memoryview(sys.byteorder.encode()))
            for key, array in enumerate(pickler.arrays):
                flat = np.ascontiguousarray(array).reshape(-1)
                _write_record(archive, f"data/{key}", flat.view(np.uint8).data)
            _write_record(archive, "version", memoryview(b"3\n"))

    write_atomic(path, write)


class _Pickler(pickle._Pickler):
    """Pickles a tree like torch.save and collects its arrays; pickle's C version has no hooks."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=2)  # the default protocol of torch.save
        self.arrays: list[np.ndarray] = []

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        obj = obj.item() if isinstance(obj, np.generic) else obj
        # Pickle writes only identical objects once: equal strings are made identical.
        obj = sys.intern(obj) if type(obj) is str else obj
        if id(obj) in self.memo or type(obj) in _WRITABLE or obj is OrderedDict:
            super().save(obj, save_persistent_id)
        elif isinstance(obj, np.ndarray):
            self._save_call(_REBUILD_TENSOR, self._tensor(obj), obj)
        elif type(obj) is bytes:  # protocol 2 has no opcode for bytes
            self._save_call(_ENCODE, (obj.decode("latin-1"), "latin1"), obj)
        elif type(obj) is _Storage:
            self.save_pers(tuple(obj))
        elif type(obj) is _Global:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            self.memoize(obj)
        else:
            problem = f"a {type(obj).__module__}.{type(obj).__qualname__} cannot be written"
            raise InputError(f"{problem}; convert it to numpy arrays and plain values")

    def _save_call(self, function: _Global, arguments: tuple, obj: object) -> None:
        """Pickle `obj` as the result of calling `function` with `arguments`."""
        self.save(function)
        self.save(arguments)
        self.write(pickle.REDUCE)
        self.memoize(obj)

    def _tensor(self, array: np.ndarray) -> tuple:
        """Add an array to `arrays`; return the arguments of `_REBUILD_TENSOR` for it."""
        if array.dtype not in _STORAGE_GLOBALS:
            problem = f"an array of shape {array.shape} has data type {array.dtype}"
            remedy = f"convert it to one of {', '.join(map(str, _STORAGE_GLOBALS))}"
            raise InputError(f"{problem}, which cannot be written; {remedy}")
        steps = [1]
        for size in reversed(array.shape[1:]):
            steps.insert(0, steps[0] * max(size, 1))
        storage_type, key = _STORAGE_GLOBALS[array.dtype], str(len(self.arrays))
        self.arrays.append(array)
        storage = _Storage("storage", storage_type, key, "cpu", array.size)
        return (storage, 0, array.shape, tuple(steps[: array.ndim]), False, OrderedDict())


def _write_record(archive: zipfile.ZipFile, name: str, data: memoryview) -> None:
    """Write an uncompressed record, padded so that its data is aligned to `_ALIGNMENT` bytes."""
    info = zipfile.ZipInfo(f"archive/{name}")  # ZipInfo's default time (1980) keeps bytes equal
    info.create_system, info.file_size = 3, data.nbytes
    zip64 = data.nbytes > zipfile.ZIP64_LIMIT // 2  # below zipfile's own threshold, LIMIT / 1.05
    header = 30 + len(info.filename) + (20 if zip64 else 0) + 4
    padding = -(archive.start_dir + header) % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # torch's padding field
    with archive.open(info, "w", force_zip64=zip64) as record:
        record.write(data)
