"""Checkpoints read and written without torch are those that torch writes and reads."""

import copyreg
import inspect
import io
import mmap
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from tinymu_jax.checkpoints.pytorch import pickle_reader
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file
from tinymu_jax.errors import InputError

NUMPY_DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def saved(path, obj, **options):
    torch.save(obj, path, **options)
    return read_torch_file(path)


def raw(value):
    """The bytes of a tensor or an array in C order, whatever its type."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return np.ascontiguousarray(value).tobytes()


def random_tensor(dtype, shape=(3, 4)):
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


def assert_same(array, tensor):
    assert array.shape == tuple(tensor.shape)
    assert array.dtype == NUMPY_DTYPES[tensor.dtype]
    assert raw(array) == raw(tensor)


def records(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewrite(path, changes, compression=zipfile.ZIP_STORED):
    """Writes the archive again; `changes` maps the end of a name to new bytes, None to drop it."""
    old = records(path)
    root = next(iter(old)).split("/")[0]
    new = old | {f"{root}/{name}": data for name, data in changes.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in new.items():
            if data is not None:
                archive.writestr(name, data)


def evil_file(path, pickled):
    torch.save({"a": torch.ones(2, 3)}, path)
    rewrite(path, {"data.pkl": pickled})


def tensor_pickle(storage=("FloatStorage", "0", 6), offset=0, size=(2, 3), stride=(3, 1), extra=""):
    """The pickle of one tensor with these numbers; `extra` is its metadata."""

    def plain(value):  # its opcodes without PROTO and STOP
        return pickle.dumps(value, 2)[2:-1]

    name, key, numel = storage
    storage_id = plain("storage") + f"ctorch\n{name}\n".encode() + plain(key) + plain("cpu")
    numbers = plain(offset) + plain(size) + plain(stride)
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
        + (b"((" + storage_id + plain(numel) + b"tQ" + numbers)
        + (b"\x89}" + plain(extra) + b"tR.")
    )


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert ";" in message  # what is wrong; what to do
    return message


# Reading what torch.save wrote.


@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 4), (), (0,), (2, 0, 3)], ids=str)
def test_reads_every_dtype_and_shape(path, dtype, shape):
    tensor = random_tensor(dtype, shape)
    assert_same(saved(path, {"x": tensor})["x"], tensor)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:, 2:],
        lambda x: x.T,
        lambda x: x[:, 3],
        lambda x: x[2, 3],
        lambda x: x[::2, ::3],
        lambda x: x[:1].expand(4, 6),
        lambda x: x[4:],
    ],
    ids=["offset", "transposed", "column", "element", "steps", "expanded", "empty"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_honours_offset_and_stride(path, view, dtype):
    tensor = view(random_tensor(dtype, (4, 6)))
    array = saved(path, tensor)
    assert_same(array, tensor)
    if tensor.numel():
        assert array.strides == tuple(step * tensor.itemsize for step in tensor.stride())


def test_reads_parameter_as_array(path):
    parameter = torch.nn.Parameter(random_tensor(torch.float32))
    assert_same(saved(path, parameter), parameter.detach())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_reads_storage_as_vector(path):
    tensor = torch.arange(5.0)
    assert_same(saved(path, tensor.storage()), tensor)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_containers_and_python_values(path, protocol):
    config = {
        "name": "tinymu",
        "bytes": b"\x00\xff",
        "no bytes": b"",
        "numbers": [1, -5, 300, 2**40, -(2**70), 0.5, float("inf"), True, None],
        "nested": {"tuple": (1, (2, (3, (4, 5)))), 7: "int key"},
        "sets": {1, "two"},
        "frozen": frozenset({3}),
        "unicode": "μ\n",
    }
    assert saved(path, config, pickle_protocol=protocol) == config


def test_reads_torch_values_as_plain_ones(path):
    values = [torch.Size([2, 3]), torch.bfloat16, torch.device("cpu"), torch.device("cuda", 1)]
    assert saved(path, values) == [(2, 3), "torch.bfloat16", "cpu", "cuda:1"]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("value", [np.float32(2.5), np.float64(0.1), np.int64(-3), np.bool_(True)])
def test_reads_numpy_scalars(path, value, protocol):
    read = saved(path, value, pickle_protocol=protocol)
    assert type(read) is type(value)
    assert read == value


def test_reads_numpy_scalar_of_numpy_1(path):
    torch.save(np.float32(2.5), path)
    pickled = records(path)["model/data.pkl"]
    rewrite(path, {"data.pkl": pickled.replace(b"numpy._core.", b"numpy.core.")})
    assert read_torch_file(path) == np.float32(2.5)


def test_reads_state_dict_with_metadata(path):
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3))
    expected = module.state_dict()
    state = saved(path, expected)
    assert type(state) is OrderedDict
    assert list(state) == list(expected)
    assert state._metadata == expected._metadata
    for key, tensor in expected.items():
        assert_same(state[key], tensor)


def test_reads_adam_state(path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-4)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    expected = optimizer.state_dict()
    read = saved(path, {"optimizer": expected, "epoch": 3})["optimizer"]
    assert read["param_groups"] == expected["param_groups"]
    assert read["state"].keys() == expected["state"].keys()
    for index, tensors in expected["state"].items():
        for name, tensor in tensors.items():
            assert_same(read["state"][index][name], tensor)


def test_tied_weights_are_one_object(path):
    module = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 4), "head": torch.nn.Linear(4, 5)})
    module["head"].weight = module["embed"].weight
    state = saved(path, module.state_dict())
    assert state["head.weight"] is state["embed.weight"]
    assert state["head.weight"] is not state["head.bias"]


def test_views_of_one_storage_are_not_tied(path):
    whole = torch.arange(6.0)
    read = saved(path, [whole[:3], whole[3:], whole])
    assert [array.tolist() for array in read] == [[0, 1, 2], [3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert np.shares_memory(read[1], read[2])


def test_arrays_are_read_only_views_of_the_mapped_file(path):
    array = saved(path, torch.ones(2, 3).T)
    assert not array.flags.writeable
    base = array
    while not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else base.base
    assert len(base) == path.stat().st_size


def test_reads_compressed_records(path):
    tensor = random_tensor(torch.bfloat16)
    torch.save(tensor, path)
    rewrite(path, {}, zipfile.ZIP_DEFLATED)
    array = read_torch_file(path)
    assert_same(array, tensor)
    assert not array.flags.writeable


@pytest.mark.parametrize("record", ["data.pkl", "byteorder", "data/0"])
def test_refuses_records_that_fill_all_memory(path, record, monkeypatch):
    monkeypatch.setattr(pickle_reader, "MAX_INFLATED", 10_000)
    torch.save(torch.zeros(100_000), path)
    rewrite(path, {record: bytes(400_000)}, zipfile.ZIP_DEFLATED)
    assert f"{record} inflates the file more than twenty times" in refusal(path)


def test_reads_unaligned_records(path):
    tensor = random_tensor(torch.float32)
    torch.save(tensor, path)
    rewrite(path, {})
    assert_same(read_torch_file(path), tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_reads_other_byte_order(path, dtype):
    tensor = random_tensor(dtype)
    torch.save(tensor, path)
    swapped = np.frombuffer(raw(tensor), f"u{tensor.itemsize}").byteswap().tobytes()
    other = {"little": b"big", "big": b"little"}[sys.byteorder]
    rewrite(path, {"byteorder": other, "data/0": swapped})
    assert_same(read_torch_file(path), tensor)


def test_without_byteorder_is_little_endian(path):
    torch.save(torch.arange(4), path)
    rewrite(path, {"byteorder": None, "data/0": np.arange(4, dtype="<i8").tobytes()})
    assert read_torch_file(path).tolist() == [0, 1, 2, 3]


# Writing what torch.load reads.


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mmap"])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 4), (), (0,), (2, 0, 3)], ids=str)
def test_torch_loads_every_dtype_and_shape(path, dtype, shape, mapped):
    tensor = random_tensor(dtype, shape)
    array = np.frombuffer(raw(tensor), NUMPY_DTYPES[dtype]).reshape(shape)
    write_torch_file(path, {"x": array})
    loaded = torch.load(path, weights_only=True, mmap=mapped)["x"]
    assert loaded.dtype == dtype
    assert loaded.shape == tensor.shape
    assert loaded.stride() == tensor.stride()
    assert raw(loaded) == raw(tensor)


def test_torch_loads_non_contiguous_arrays(path):
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    write_torch_file(path, [whole.T, whole[1:, ::2], np.broadcast_to(whole[:1], (4, 6))])
    loaded = torch.load(path, weights_only=True)
    assert loaded[0].numpy().tolist() == whole.T.tolist()
    assert loaded[1].numpy().tolist() == whole[1:, ::2].tolist()
    assert loaded[2].numpy().tolist() == [whole[0].tolist()] * 4
    assert all(tensor.is_contiguous() for tensor in loaded)


def test_torch_loads_plain_values(path):
    value = {
        "config": OrderedDict(name="μ", layers=[1, 2], scale=(0.1, None)),
        "bytes": [b"", b"\x00\xff"],
        "numbers": [True, -1, 300, 2**40, float("-inf")],
        5: "int key",
        (1, 2): {},
    }
    write_torch_file(path, value)
    loaded = torch.load(path, weights_only=True)
    assert loaded == value
    assert type(loaded["config"]) is OrderedDict
    assert read_torch_file(path) == value


def test_numpy_scalars_become_python_numbers(path):
    write_torch_file(path, [np.float32(2.5), np.int64(3), np.bool_(True), ml_dtypes.bfloat16(1.5)])
    loaded = torch.load(path, weights_only=True)
    assert loaded == [2.5, 3, True, 1.5]
    assert [type(value) for value in loaded] == [float, int, bool, float]


def test_ties_share_memory(path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_torch_file(path, {"a": array, "b": {"c": [array]}, "d": array.copy()})
    loaded = torch.load(path, weights_only=True)
    assert loaded["a"].data_ptr() == loaded["b"]["c"][0].data_ptr()
    assert loaded["a"].data_ptr() != loaded["d"].data_ptr()
    assert sum("/data/" in name for name in records(path)) == 2


def test_ties_survive_a_round_trip(path):
    array = np.ones(3, np.float32)
    write_torch_file(path, {"a": array, "b": array})
    read = read_torch_file(path)
    assert read["a"] is read["b"]


def test_module_loads_what_was_read_and_written(path, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3))
    torch.save(module.state_dict(), path)
    copy = tmp_path / "copy.pt"
    write_torch_file(copy, read_torch_file(path))
    other = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3))
    state = torch.load(copy, weights_only=True)
    other.load_state_dict(state, strict=True)
    assert state._metadata == module.state_dict()._metadata
    for key, tensor in module.state_dict().items():
        assert raw(other.state_dict()[key]) == raw(tensor)


def test_records_are_aligned_and_stored(path):
    write_torch_file(path, [np.ones(n, np.int8) for n in (1, 2, 65, 7)])
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            header = content[info.header_offset : info.header_offset + 30]
            lengths = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:], "little")
            assert (info.header_offset + 30 + sum(lengths)) % 64 == 0


def test_large_records_are_aligned_too(path, monkeypatch):
    # Records of 1 GB and more have another header; a lower limit stands in for the gigabyte.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    array = np.arange(1000, dtype=np.float32)
    write_torch_file(path, [np.ones(1, np.int8), array])
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert raw(loaded[1]) == raw(array)
    assert loaded[1].data_ptr() % 64 == 0
    assert_same(read_torch_file(path)[1], loaded[1])


def test_same_content_gives_same_bytes(path, tmp_path):
    def tree():
        def key():
            return "".join(["wei", "ght"])  # a new string object each time

        return {key(): np.arange(3.0), "a": {key(): np.ones(2, np.int8)}}

    shared = "weight"
    other = tmp_path / "other name.pt"
    write_torch_file(path, tree())
    write_torch_file(other, {shared: np.arange(3.0), "a": {shared: np.ones(2, np.int8)}})
    assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": object()}, "builtins.object"),
        ([np.zeros(2, np.complex64)], "complex64"),
        ([np.zeros(2, ">f4")], ">f4"),
        ([np.array([None])], "object"),
        ({"a": {1}}, "builtins.set"),
        ({"a": torch.ones(1)}, "torch.Tensor"),
        ({"a": os.system}, "builtin_function_or_method"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_to_write_anything_else_and_leaves_no_file(path, value, named):
    with pytest.raises(InputError) as caught:
        write_torch_file(path, value)
    assert str(caught.value).startswith(f"{path}: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(path, monkeypatch):
    write_torch_file(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinymu_jax.checkpoints.pytorch.pickle_writer.np.ascontiguousarray", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_torch_file(path, {"a": np.ones(3)})
    assert read_torch_file(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_refuses_to_write_into_a_missing_folder(tmp_path):
    path = tmp_path / "missing" / "model.pt"
    with pytest.raises(InputError, match="No such file or directory") as caught:
        write_torch_file(path, {})
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_can_replace_itself(path):
    write_torch_file(path, {"a": np.arange(1000)})
    read = read_torch_file(path)
    write_torch_file(path, {"b": read["a"]})
    assert read["a"].tolist() == read_torch_file(path)["b"].tolist() == list(range(1000))


# Malicious files.


class Call:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_refuses_os_system_and_does_not_run_it(path, tmp_path, protocol):
    witness = tmp_path / "witness"
    evil = pickle.dumps({"a": Call(os.system, f"touch {witness}")}, protocol)
    evil_file(path, evil)
    message = refusal(path)
    assert not witness.exists()
    pickle.loads(evil)  # the attack itself works
    assert witness.exists()
    if protocol >= 2:
        assert f"asks for {os.system.__module__}.system: refused" in message


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (torch.storage._load_from_bytes, "torch.storage._load_from_bytes"),
        (torch.load, "torch.serialization.load"),
        (np.load, "numpy.load"),
        (list, "builtins.list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_refuses_every_other_global(path, function, name, protocol):
    evil_file(path, pickle.dumps(Call(function, "1"), protocol))
    assert f"asks for {name}: refused" in refusal(path)


def test_refuses_a_global_reached_by_dots(path):
    # Protocol 4 lets a name walk attributes: collections.OrderedDict.__init__.__globals__ ...
    evil_file(path, b"\x80\x04\x8c\x0bcollections\x8c\x16OrderedDict.__reduce__\x93.")
    assert "asks for collections.OrderedDict.__reduce__: refused" in refusal(path)


def test_names_a_refused_global_in_one_line(path):
    evil_file(path, b"\x80\x04\x8c\x02\n\x1b\x8c\x03a\nb\x93.")
    assert r"asks for \n\x1b.a\nb: refused" in refusal(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"(S'touch x'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch x'\no.",  # OBJ
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"Pid\n.",  # PERSID
    ],
    ids=["INST", "OBJ", "NEWOBJ", "PERSID"],
)
def test_refuses_opcodes_that_make_objects(path, pickled):
    evil_file(path, pickled)
    assert str(path) in refusal(path)


def test_refuses_what_the_program_registered_for_pickles(path, monkeypatch):
    calls = []
    monkeypatch.setitem(copyreg._extension_cache, 1, lambda: calls.append(1))
    pickled = b"\x80\x02\x82\x01)R."  # EXT1, which does not ask for a global once it is cached
    evil_file(path, pickled)
    refusal(path)
    assert not calls
    pickle._loads(pickled)  # the attack itself works
    assert calls


@pytest.mark.parametrize("dtype", ["O8", "V8", "U1", "M8", "f4,f4"])
def test_refuses_numpy_scalars_that_are_no_numbers(path, dtype):
    scalar = np.float64(1).__reduce__()[0]
    evil_file(path, pickle.dumps(Call(scalar, Call(np.dtype, dtype, False, True), b"12345678"), 2))
    assert f"asks for the numpy data type {dtype}: refused" in refusal(path)


def test_refuses_other_encodings(path):
    evil_file(path, b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    assert "asks for the encoding rot13: refused" in refusal(path)


@pytest.mark.parametrize(
    "target",
    [
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cnumpy._core.multiarray\nscalar\n",
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n)R",
        b"]",
    ],
    ids=["class", "method", "function", "storage", "OrderedDict", "list"],
)
@pytest.mark.parametrize(
    "state",
    [b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x0c\x00\x00\x00__defaults__)s\x86"],
    ids=["dict", "slots"],
)
def test_refuses_to_change_an_object(path, target, state):
    evil_file(path, b"\x80\x02" + target + state + b"b.")
    assert "asks for a change of a" in refusal(path)
    for known in filter(inspect.isfunction, pickle_reader._GLOBALS.values()):
        assert vars(known) == {}
        assert known.__defaults__ is None


def test_refuses_to_write_into_a_tensor(path):
    body = tensor_pickle()[:-1] + b"K\x00K\x05s."
    evil_file(path, body)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    "pid", [None, ("storage",), ("module", "a", "b", "c", 1), ("storage", "x", "0", "cpu", 6)]
)
def test_refuses_other_persistent_ids(path, pid):
    evil_file(path, pickle.dumps(pid, 2)[:-1] + b"Q.")
    assert "damaged" in refusal(path)


# Damaged files.


@pytest.mark.parametrize(
    ("numbers", "element"),
    [
        ({"offset": 1}, 6),
        ({"size": (2, 4)}, 6),
        ({"stride": (4, 1)}, 6),
        ({"offset": 2**70}, 2**70 + 5),
        ({"size": (), "stride": (), "offset": 6}, 6),
    ],
    ids=str,
)
def test_refuses_a_tensor_beyond_its_storage(path, numbers, element):
    evil_file(path, tensor_pickle(**numbers))
    assert f"beyond its storage (element {element} of 6)" in refusal(path)


def test_the_crafted_tensor_is_read_when_sound(path):
    evil_file(path, tensor_pickle())
    assert read_torch_file(path).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    "numbers",
    [
        {"offset": -1},
        {"stride": (-3, 1)},
        {"size": (-1, 3)},
        {"size": (2,)},
        {"size": (2, "3")},
        {"offset": 1.0},
        {"offset": True},
        {"size": (2**62, 2**62), "stride": (0, 0)},
    ],
    ids=str,
)
def test_refuses_senseless_tensor_numbers(path, numbers):
    evil_file(path, tensor_pickle(**numbers))
    assert "damaged" in refusal(path)


TUPLES = b"X\x01\0\0\0xq\0" + b"0h\0h\0\x86q\0" * 60  # two of two of two ..., for ever to hash


@pytest.mark.parametrize(
    "pickled",
    [
        b"}" + TUPLES + b"Ns.",
        b"}(" + TUPLES + b"Nu.",
        b"\x8f(" + TUPLES + b"\x90.",
        b"(" + TUPLES + b"\x91.",
        b"cbuiltins\nset\n](" + TUPLES + b"e\x85R.",
        b"cbuiltins\nfrozenset\n](" + TUPLES + b"e\x85R.",
    ],
    ids=["SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET", "set", "frozenset"],
)
def test_refuses_keys_that_take_for_ever_to_hash(path, pickled):
    evil_file(path, b"\x80\x04" + pickled)
    assert "a tuple of tuples as a key" in refusal(path)


def test_refuses_an_expanded_view_as_storage(path):
    # Of 1000 elements all at one place: taken for a storage it would open the memory behind it.
    inner = tensor_pickle(size=(1000,), stride=(0,))[2:-1]
    head = b"\x80\x02ctorch._utils\n_rebuild_tensor\n("
    evil_file(path, head + inner + b"K\x00(M\xe8\x03t(K\x01ttR.")
    assert "unknown storage" in refusal(path)


def test_refuses_lazily_negated_tensors(path):
    evil_file(path, tensor_pickle(extra={"neg": True}))
    assert "resolve_neg" in refusal(path)


def test_refuses_a_storage_shorter_than_it_says(path):
    torch.save(torch.ones(6), path)
    rewrite(path, {"data/0": b"\x00" * 20})
    assert "record model/data/0 is cut short (20 of 24 bytes)" in refusal(path)


def test_refuses_a_record_that_goes_beyond_the_file(path):
    size = 1000
    evil_file(path, tensor_pickle(("FloatStorage", "0", size), size=(size,), stride=(1,)))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"model/data/0") - 46  # of the central directory
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 20 : entry + 28] = (4 * size).to_bytes(4, "little") * 2
    path.write_bytes(content)
    assert "record model/data/0 is cut short" in refusal(path)


def test_refuses_a_missing_storage(path):
    torch.save(torch.ones(6), path)
    rewrite(path, {"data/0": None})
    assert "model/data/0" in refusal(path)


def test_refuses_an_unknown_byte_order(path):
    torch.save(torch.ones(6), path)
    rewrite(path, {"byteorder": b"middle"})
    assert "unknown byte order 'middle'" in refusal(path)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.9, 0.99, "last byte"])
def test_refuses_a_truncated_file(path, part):
    torch.save({"a": torch.ones(100), "b": torch.ones(2)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: -1 if part == "last byte" else int(part * len(content))])
    assert "damaged or cut short" in refusal(path)


def test_refuses_a_corrupt_pickle_record(path):
    torch.save({"a": torch.ones(3)}, path)
    rewrite(path, {"data.pkl": records(path)["model/data.pkl"][:-1]})
    assert "damaged or cut short" in refusal(path)


def test_a_changed_byte_never_escapes_as_another_error(path):
    module = torch.nn.Linear(2, 3)
    torch.save({"state": module.state_dict(), "scalar": np.float32(1), "size": (1, 2)}, path)
    pickled = records(path)["model/data.pkl"]
    refused = 0
    for position in range(len(pickled)):
        changed = bytearray(pickled)
        changed[position] ^= 1 << position % 8
        rewrite(path, {"data.pkl": bytes(changed)})
        try:
            read_torch_file(path)
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > len(pickled) // 4


def test_refuses_a_missing_file(path):
    assert "No such file or directory" in refusal(path)


def test_the_message_is_one_line_whatever_the_path(tmp_path):
    with pytest.raises(InputError) as caught:
        read_torch_file(tmp_path / "two\nlines.pt")
    assert "two lines.pt: cannot be read" in str(caught.value)


def test_refuses_a_folder(tmp_path):
    assert "Is a directory" in refusal(tmp_path)


def test_refuses_an_empty_file(path):
    path.touch()
    assert "the file is empty" in refusal(path)


@pytest.mark.parametrize("content", [b"hello\n", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"PK"])
def test_refuses_other_files(path, content):
    path.write_bytes(content)
    assert "not a PyTorch checkpoint" in refusal(path)


def test_refuses_other_zip_files(path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    path.write_bytes(buffer.getvalue())
    assert "a zip but not a PyTorch checkpoint" in refusal(path)


def test_refuses_the_format_before_1_6(path):
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert "save it again with torch>=1.6" in refusal(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_refuses_torchscript(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    assert "TorchScript" in refusal(path)


# Independence of torch.


def test_reads_and_writes_without_importing_torch(path, tmp_path):
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16)}, path)
    code = (
        "import sys; from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file; "
        "from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file; "
        "write_torch_file(sys.argv[2], read_torch_file(sys.argv[1])); "
        "print('torch' in sys.modules)"
    )
    copy = tmp_path / "copy.pt"
    command = [sys.executable, "-c", code, str(path), str(copy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert torch.load(copy, weights_only=True)["a"].tolist() == [1, 1]
