"""PyTorch's side of a benchmark runs on the kind of device that ours runs on."""

import contextlib
import os
from typing import Any

import jax


def use_same_device() -> Any:
    """Returns the device on which PyTorch makes its tensors and modules from now on."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_default_device("cuda" if jax.default_backend() == "gpu" else "cpu")
    return torch.get_default_device()


def products_in(compute_dtype: str) -> Any:
    """Returns a context in which PyTorch multiplies in float32 or bfloat16."""
    import torch

    if compute_dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.get_default_device().type, torch.bfloat16)


def device_name() -> str:
    """Returns what the numbers were measured on."""
    device = jax.devices()[0]
    return device.device_kind if device.platform != "cpu" else f"{os.cpu_count()} cores"
