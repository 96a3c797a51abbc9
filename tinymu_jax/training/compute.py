"""Chooses how encoder and decoder are computed on a device: dtypes and kernels of attention."""

from typing import Any

from tinymu_jax.errors import InputError
from tinymu_jax.models.config import AttentionKind, ComputeDtype, MatpacConfig, SmolLM2Config
from tinymu_jax.training.config import ComputeConfig, StepConfig

OVERLAP_ON_TPU = {
    "xla_enable_async_all_reduce": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    "xla_tpu_enable_async_collective_fusion_with_mosaic_custom_call": "true",
    # A layer's gradients are summed one by one, so that those of its MLP, three quarters of all,
    # are summed while its attention is computed.
    "xla_jf_crs_combiner_threshold_in_bytes": "1000000",
}
"""Options of XLA that overlap sums of gradients with the backward pass: on v5e:4x4, 59 % of a
step's transfers are overlapped, and without them none."""
CUDNN_HEAD_WIDTH = 128
"""Largest width of a head in cuDNN's fused attention on all GPUs that have it."""
CUDNN_CAPABILITY = 8.0
"""Lowest compute capability (Ampere) of GPUs on which cuDNN's fused attention runs."""


def encoder_options(step: ComputeConfig, device: Any, model: MatpacConfig) -> dict[str, Any]:
    """Return the fields of the encoder's config that a run's config and device decide.

    Raises `InputError` if the device does not compute in this way.
    """
    return _options(step, device, "step.encoder-dtype", model.width // model.num_heads)


def decoder_options(step: StepConfig, device: Any, model: SmolLM2Config) -> dict[str, Any]:
    """Return the same fields of the decoder's config; see `encoder_options`."""
    return _options(step, device, "step.decoder-dtype", model.head_width)


def compiler_options(device: Any) -> dict[str, str]:
    """Return the options of XLA for training steps on a kind of device."""
    return dict(OVERLAP_ON_TPU) if device.platform == "tpu" else {}


def _options(step: ComputeConfig, device: Any, option: str, head_width: int) -> dict[str, Any]:
    """Return the fields of a part of the model; `option` is the name of its dtype's option."""
    dtype = step.dtypes[option]
    return {
        "compute_dtype": dtype,
        "remat": step.remat,
        "attention": _attention(step.attention, device, option, dtype, head_width),
        "gradient_dtype": step.gradient_dtype,
    }


def _attention(
    requested: str, device: Any, option: str, dtype: ComputeDtype, head_width: int
) -> AttentionKind:
    """Return the kind of attention; `option` is the name of the option that set `dtype`."""
    if device.platform == "tpu" and dtype == "float16":
        raise InputError(f"{option} float16: TPUs compute in bfloat16; set bfloat16")
    reasons = {
        "flash": _no_flash(device, option, dtype),
        "cudnn": _no_cudnn(device, option, dtype, head_width),
    }
    if requested == "auto":
        return next((kind for kind, reason in reasons.items() if reason is None), "reference")
    if reason := reasons.get(requested):
        raise InputError(f"step.attention {requested}: {reason}, or set step.attention to auto")
    return requested


def _no_flash(device: Any, option: str, dtype: ComputeDtype) -> str | None:
    """Return why the kernel for TPUs cannot be used, or None."""
    if device.platform != "tpu":
        return f"is a kernel for TPUs, and this device is {device.device_kind}; train on a TPU"
    if dtype != "bfloat16":
        return f"computes in bfloat16, and {option} is {dtype}; set it to bfloat16"
    return None


def _no_cudnn(device: Any, option: str, dtype: ComputeDtype, head_width: int) -> str | None:
    """Return why cuDNN's attention cannot be used, or None."""
    if device.platform not in ("gpu", "cuda"):
        return f"runs on NVIDIA GPUs, and this device is {device.device_kind}; train on a GPU"
    # On AMD GPUs the capability is a name such as gfx90a.
    capability = str(getattr(device, "compute_capability", ""))
    number = capability.replace(".", "", 1)
    if not number.isdecimal() or float(capability) < CUDNN_CAPABILITY:
        return (
            f"needs compute capability {CUDNN_CAPABILITY}, and {device.device_kind} has "
            f"{capability or 'none'}; train on an Ampere or later GPU"
        )
    if dtype == "float32":
        return f"computes in bfloat16 or float16, and {option} is float32; set it to bfloat16"
    if head_width % 8 or head_width > CUDNN_HEAD_WIDTH:
        return (
            f"takes heads whose width is a multiple of 8, at most {CUDNN_HEAD_WIDTH}, and this "
            f"model's is {head_width}; train another model"
        )
    return None
