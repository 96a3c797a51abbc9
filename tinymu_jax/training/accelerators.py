"""Peak FLOP/s, memory and link bandwidth of accelerators, by jax's `device_kind`."""

from typing import NamedTuple

GB, GIB = 1e9, 2**30


class Chip(NamedTuple):
    """Peak rates and memory size of one jax device.

    TPU numbers are from cloud.google.com/tpu/docs. GPU numbers are the dense rates (without
    sparsity) of NVIDIA's data sheets.
    """

    name: str
    flops: float
    """Peak FLOP/s in bfloat16, or in float16 on chips without bfloat16."""
    memory: float
    """Size of the main memory (HBM or GDDR) in bytes."""
    memory_rate: float
    """Bandwidth of the main memory in bytes/s."""
    link_rate: float
    """Bytes/s that the device can send over all its links (TPU interconnect, NVLink or PCIe)."""


_V4 = Chip("TPU v4", 275e12, 32 * GIB, 1228 * GB, 300 * GB)
_V5E = Chip("TPU v5e", 197e12, 16 * GIB, 819 * GB, 200 * GB)
_V5P = Chip("TPU v5p", 459e12, 95 * GIB, 2765 * GB, 600 * GB)
_V6E = Chip("TPU v6e", 918e12, 32 * GIB, 1600 * GB, 400 * GB)
_H100 = Chip("H100 SXM", 989e12, 80 * GB, 3350 * GB, 450 * GB)
_H100_PCIE = Chip("H100 PCIe", 756e12, 80 * GB, 2000 * GB, 64 * GB)
_H100_NVL = Chip("H100 NVL", 835e12, 94 * GB, 3900 * GB, 300 * GB)
_H200 = Chip("H200", 989e12, 141 * GB, 4800 * GB, 450 * GB)
_B200 = Chip("B200", 2250e12, 180 * GB, 8000 * GB, 900 * GB)
_A100_40 = Chip("A100 40GB", 312e12, 40 * GB, 1555 * GB, 300 * GB)
_A100_80 = Chip("A100 80GB", 312e12, 80 * GB, 2039 * GB, 300 * GB)
_A100_40_PCIE = _A100_40._replace(name="A100 40GB PCIe", link_rate=32 * GB)
_A100_80_PCIE = Chip("A100 80GB PCIe", 312e12, 80 * GB, 1935 * GB, 32 * GB)
_A10G = Chip("A10G", 70e12, 24 * GB, 600 * GB, 32 * GB)
_L4 = Chip("L4", 121e12, 24 * GB, 300 * GB, 32 * GB)
_L40S = Chip("L40S", 362e12, 48 * GB, 864 * GB, 32 * GB)
_V100 = Chip("V100 SXM", 125e12, 16 * GB, 900 * GB, 150 * GB)
_T4 = Chip("T4", 65e12, 16 * GB, 320 * GB, 16 * GB)
CHIPS: dict[str, Chip] = {
    "TPU v4": _V4,
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H100 PCIe": _H100_PCIE,
    "NVIDIA H100 NVL": _H100_NVL,
    "NVIDIA H200": _H200,
    "NVIDIA B200": _B200,
    "NVIDIA A100-SXM4-40GB": _A100_40,
    "NVIDIA A100-SXM4-80GB": _A100_80,
    "NVIDIA A100-PCIE-40GB": _A100_40_PCIE,
    "NVIDIA A100 80GB PCIe": _A100_80_PCIE,
    "NVIDIA A10G": _A10G,
    "NVIDIA L4": _L4,
    "NVIDIA L40S": _L40S,
    "Tesla V100-SXM2-16GB": _V100,
    "Tesla V100-SXM2-32GB": _V100._replace(memory=32 * GB),
    "Tesla T4": _T4,
}
"""Known devices, by jax's `device_kind`."""


def chip_of(device_kind: str) -> Chip | None:
    """Return the rates and memory size of a jax `device_kind`, or None if it is unknown."""
    return CHIPS.get(device_kind)
