"""Reads PyTorch's zip checkpoints (``torch.save`` since 1.6) without PyTorch.

A checkpoint is a zip archive of uncompressed records. ``<root>/data.pkl`` is a pickle of the saved
tree, in which a tensor refers to its storage by a key; ``<root>/data/<key>`` has the bytes of the
storage. Further records are ``<root>/byteorder`` and ``<root>/version``. Source:
torch/serialization.py and torch/_utils.py of PyTorch 2.6 to 2.13.

A pickle is a program that could run any code. This reader executes only opcodes that build plain
values, and calls only the functions in a fixed table; it refuses all other files.
"""

import io
import mmap
import pickle
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import ml_dtypes
import numpy as np

from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_content
from tinymu_jax.utils.pipes import is_pipe

STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_OLD_MODULES = {"__builtin__": "builtins", "numpy.core.multiarray": "numpy._core.multiarray"}
_ZIP_START = b"PK\x03\x04"
_LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the magic number before 1.6

MAX_INFLATED = 2**28
"""Bytes to which the compressed records of a file may inflate, beside twenty times its size."""

# Allowed opcodes: they build plain values, look up a global through find_class, or call a global
# (REDUCE). Not allowed: INST, OBJ and NEWOBJ, which make instances of classes, and EXT, which
# bypasses find_class by copyreg's cache.
_OPCODES = (
    b"\x80\x95.(01"  # PROTO, FRAME, STOP, MARK, POP, POP_MARK
    b"N\x88\x89GJKM\x8a\x8b"  # NONE, NEWTRUE, NEWFALSE, BINFLOAT, BININT*, LONG1, LONG4
    b"X\x8c\x8dBC\x8e"  # *BINUNICODE*, *BINBYTES*
    b")t\x85\x86\x87]ae}su\x8f\x90\x91"  # tuples, lists, dicts, sets, FROZENSET
    b"qr\x94hj"  # BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
    b"c\x93RbQ"  # GLOBAL, STACK_GLOBAL, REDUCE, BUILD, BINPERSID
)


def read_torch_file(path: str | Path) -> object:
    """Read a file that ``torch.save`` wrote (the zip format of PyTorch 1.6 or later).

    Returns the saved tree of dicts, lists, tuples, sets, plain values, numpy scalars and arrays.
    Tensors become numpy arrays of the same shape, strides and data type (bfloat16:
    `ml_dtypes.bfloat16`). The arrays are read-only views of the memory-mapped file, which must not
    be overwritten in place meanwhile. Tied weights become one array object. ``torch.Size`` becomes
    a tuple; ``torch.device`` and ``torch.dtype`` become strings, e.g. ``"torch.float32"``.

    Raises:
        InputError: the file is missing, damaged or of another format, or holds objects other than
            tensors and plain values.
    """
    path = Path(path)
    check_content(path)
    if is_pipe(path):
        raise file_error(path, "is a pipe; write it to a file, and name that")
    try:
        with path.open("rb") as file:
            _check_start(file.read(len(_LEGACY_START)))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            with zipfile.ZipFile(file) as archive:
                return _Unpickler(mapped, archive).load()
    except InputError as error:
        raise file_error(path, str(error)) from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise file_error(path, f"{problem}; give the path of a readable .pt file") from error
    except Exception as error:  # a damaged zip or pickle can fail in any way
        problem = f"damaged or cut short ({type(error).__name__}: {error})"
        raise file_error(path, f"{problem}; copy or download it again") from error


def file_error(path: Path, text: str) -> InputError:
    """Return an `InputError` with the message "path: text", without line breaks."""
    return InputError(" ".join(f"{path}: {text}".split()))


def _check_start(start: bytes) -> None:
    """Raise an `InputError` if a file's first bytes are not those of a zip archive."""
    if start == _LEGACY_START:
        remedy = "save it again with torch>=1.6: torch.save(torch.load(old), new)"
        raise InputError(f"in PyTorch's format before 1.6; {remedy}")
    if not start.startswith(_ZIP_START):
        raise InputError("not a PyTorch checkpoint; give a .pt file that torch.save wrote")


def _find_root(names: list[str]) -> str:
    """Find the folder of a PyTorch checkpoint in a zip archive, from the `names` of its records."""
    root = next((n.removesuffix("/data.pkl") for n in names if n.endswith("/data.pkl")), None)
    if root is None:
        raise InputError("a zip but not a PyTorch checkpoint; give a file that torch.save wrote")
    if f"{root}/constants.pkl" in names or any(n.startswith(f"{root}/code/") for n in names):
        remedy = "save its weights: torch.save(torch.jit.load(old).state_dict(), new)"
        raise InputError(f"a TorchScript archive, not a checkpoint; {remedy}")
    return root


def _refused(what: str) -> InputError:
    """Return the error for a file whose pickle requests `what`, which this reader refuses."""
    remedy = "save it again as tensors and plain values, e.g. a state_dict"
    return InputError(f"asks for {ascii(what)[1:-1][:100]}: refused, it could run code; {remedy}")


class _Unpickler(pickle._Unpickler):
    """An unpickler that executes only `_OPCODES`, based on pickle's implementation in Python."""

    dispatch: ClassVar = {opcode: pickle._Unpickler.dispatch[opcode] for opcode in _OPCODES}

    def __init__(self, mapped: mmap.mmap, archive: zipfile.ZipFile):
        names = archive.namelist()
        root = _find_root(names)
        self._max_inflated = MAX_INFLATED + 20 * len(mapped)
        self._inflated = 0
        super().__init__(io.BytesIO(self._inflate(archive, archive.getinfo(f"{root}/data.pkl"))))
        order = f"{root}/byteorder"  # old files have no such record and are little-endian
        record = self._inflate(archive, archive.getinfo(order)) if order in names else b"little"
        self._byteorder = record[:10].decode()
        if record not in (b"little", b"big"):
            raise ValueError(f"unknown byte order {self._byteorder!a}")
        self._mapped, self._archive, self._root = mapped, archive, root
        self._storages: dict[tuple[str, np.dtype], np.ndarray] = {}
        self._views: dict[tuple, np.ndarray] = {}
        self._globals = _GLOBALS | {
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
        }

    def find_class(self, module: str, name: str) -> object:
        function = f"{_OLD_MODULES.get(module, module)}.{name}"
        if function not in self._globals:
            raise _refused(function)
        return self._globals[function]

    def load_build(self) -> None:
        # BUILD may only set the `_metadata` of a state dict, or the state of a numpy data type.
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is OrderedDict and type(state) is dict and state.keys() == {"_metadata"}:
            target._metadata = state["_metadata"]
        elif not (isinstance(target, np.dtype) and tuple(state)[1:2] in (("<",), ("|",))):
            raise _refused(f"a change of a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    # A tuple that holds a tuple twice, which holds a tuple twice ..., takes for ever to hash.
    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }

    def persistent_load(self, pid: object) -> np.ndarray:
        kind, dtype, key, _, numel = pid
        known = kind == "storage" and isinstance(dtype, np.dtype) and type(key) is str
        if not (known and type(numel) is int and numel >= 0):
            raise ValueError("unknown persistent id")
        if (key, dtype) not in self._storages:
            self._storages[key, dtype] = self._storage(f"{self._root}/data/{key}", dtype, numel)
        return self._storages[key, dtype]

    def _storage(self, name: str, dtype: np.dtype, numel: int) -> np.ndarray:
        """Return the first `numel` numbers of a zip record, as a view if it is uncompressed."""
        info = self._archive.getinfo(name)
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:  # 1: encrypted
            buffer, start = self._mapped, _data_start(self._mapped, info)
        else:
            buffer, start = self._inflate(self._archive, info), 0
        present, needed = min(info.file_size, len(buffer) - start), numel * dtype.itemsize
        if present < needed:
            problem = f"record {name} is cut short ({present} of {needed} bytes)"
            raise InputError(f"{problem}; copy or download it again")
        array = np.frombuffer(buffer, dtype, numel, start) if numel else np.empty(0, dtype)
        return array if self._byteorder == sys.byteorder else array.byteswap()

    def _inflate(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        """Return a record's bytes; refuse a file whose records inflate to fill all memory."""
        self._inflated += info.file_size
        if self._inflated > self._max_inflated:
            problem = f"record {info.filename} inflates the file more than twenty times"
            raise InputError(f"{problem}; save it again with torch.save, which does not compress")
        return archive.read(info)

    def _tensor(self, storage: np.ndarray, offset: int, size: tuple, stride: tuple, *rest: object):
        # `rest` is requires_grad, hooks, and metadata on lazy conjugation or negation.
        if any(rest[2:]):
            remedy = "save it again after resolve_conj() and resolve_neg()"
            raise InputError(f"a tensor is conjugated or negated lazily; {remedy}")
        numbers = (offset, *size, *stride)
        # If the storage is a view with gaps or repeats, its size does not bound the memory reached.
        sound = storage.ndim == 1 and storage.flags.c_contiguous
        if not (sound and all(type(n) is int and n >= 0 for n in numbers)):
            raise ValueError("a tensor with an unknown storage, offset, size or stride")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.size:
            problem = f"a tensor reaches beyond its storage (element {last} of {storage.size})"
            raise InputError(f"{problem}; save or download it again")
        key = (id(storage), offset, size, stride)  # `_storages` and `_views` keep the ids alive
        if key not in self._views:
            strides = [step * storage.itemsize for step in stride]
            as_strided = np.lib.stride_tricks.as_strided
            self._views[key] = as_strided(storage[offset:], size, strides, writeable=False)
        return self._views[key]


def _data_start(mapped: mmap.mmap, info: zipfile.ZipInfo) -> int:
    # The local header's extra field (padding) may differ in length from the central directory's.
    header = mapped[info.header_offset : info.header_offset + 30]
    if not header.startswith(_ZIP_START):
        raise zipfile.BadZipFile(f"no local header of {info.filename}")
    return info.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))


def _plain(value: object, *types: type) -> object:
    # Refuses other types, since a container built from their values could be endless or huge.
    if type(value) not in types:
        raise TypeError(f"unexpected {type(value).__name__}")
    return value


def _check_keys(keys: list) -> list:
    """Return the keys of a dict, or members of a set; refuse a tuple that holds a tuple."""
    for key in keys:
        if type(key) is tuple and any(type(part) is tuple for part in key):
            raise _refused("a tuple of tuples as a key")
    return keys


def _numpy_dtype(name: str, *_: bool) -> np.dtype:
    if not re.fullmatch(r"[biufc]\d+", name):
        raise _refused(f"the numpy data type {name}")
    return np.dtype(f"<{name}")


def _codecs_encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _refused(f"the encoding {encoding}")
    return _plain(text, str).encode("latin-1")


_GLOBALS = {
    **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
    **{f"torch.{dtype}": f"torch.{dtype}" for dtype in STORAGES.values()},
    "torch._utils._rebuild_parameter": lambda data, grad, hooks: _plain(data, np.ndarray),
    "torch.Size": lambda size: tuple(_plain(size, tuple, list)),
    "torch.device": lambda *parts: ":".join(str(_plain(part, str, int)) for part in parts),
    "collections.OrderedDict": lambda: OrderedDict(),
    "builtins.set": lambda items: set(_check_keys(_plain(items, list))),
    "builtins.frozenset": lambda items: frozenset(_check_keys(_plain(items, list))),
    "builtins.bytes": lambda: b"",
    "numpy.dtype": _numpy_dtype,
    "numpy._core.multiarray.scalar": lambda dtype, data: np.frombuffer(data, dtype, count=1)[0],
    "_codecs.encode": _codecs_encode,
}
