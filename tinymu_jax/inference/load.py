"""Loads a model for inference from a checkpoint of any format."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np

from tinymu_jax.audio.load import check_max_seconds
from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of
from tinymu_jax.checkpoints.open import open_checkpoint, tokenizer_loader
from tinymu_jax.checkpoints.safetensors import release_pages
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.class_names import read_labels
from tinymu_jax.inference.embedder import Embedder
from tinymu_jax.inference.param_layout import WeightDtype, by_rows, unstack
from tinymu_jax.models import matpac, tinymu
from tinymu_jax.models.config import PUBLISHED, MatpacConfig, SelfSupervisedConfig, TinyMUConfig
from tinymu_jax.utils.backend import start_backend
from tinymu_jax.utils.compilation_cache import enable_compilation_cache
from tinymu_jax.utils.files import expand_user
from tinymu_jax.utils.tree import flatten

EncoderDtype = Literal["float32", "bfloat16"]


def load(
    checkpoint: str | Path = PUBLISHED,
    *,
    encoder_dtype: EncoderDtype = "float32",
    decoder_dtype: WeightDtype = "float32",
    tokenizer: str | Path | None = None,
    max_seconds: float | None = None,
    revision: str | None = None,
    probe: str | Path | None = None,
    labels: str | Path | None = None,
    keep_damaged: bool = False,
) -> Assistant | Embedder:
    """Load a model for inference from a checkpoint.

    Args:
        checkpoint: `nano` (part of the package), a hub name (downloaded and converted once), a
            published `.pt` file (with its yaml, json and tokenizer.json in the same folder), a
            `.safetensors` file with the keys of the `.pt` file, or a checkpoint folder.
        encoder_dtype: `bfloat16` casts the weights and inputs of encoder and projector; faster, not
            exact.
        decoder_dtype: `int8` quantizes the weights per output channel: a quarter of the memory,
            faster where bandwidth is the limit, not exact. `bfloat16` is for accelerators.
        tokenizer: path of a `tokenizer.json`, or hub name of a decoder with a tokenizer; None: the
            tokenizer.json beside the checkpoint, else from the decoder that the checkpoint names.
        max_seconds: length in seconds to which recordings are cut; None: the checkpoint's value (10
            s) for TinyMU, no limit for MATPAC.
        revision: revision of the hub repository.
        probe: path of a probe's file (a linear classifier), for a MATPAC encoder.
        labels: path of a file of class names, for a head or probe without class names.
        keep_damaged: use what can be read of damaged recordings; otherwise they are errors.

    Returns:
        An `Assistant` for a TinyMU checkpoint, an `Embedder` for a MATPAC checkpoint.

    Raises:
        InputError: the checkpoint is missing, malformed or of another kind, an option does not
            apply to it, or jax finds no device.
    """
    _check_options(encoder_dtype, decoder_dtype, max_seconds)
    checkpoint, tokenizer = expand_user(checkpoint), expand_user(tokenizer)
    probe, labels = expand_user(probe), expand_user(labels)
    start_backend()
    enable_compilation_cache()
    opened = open_checkpoint(checkpoint, revision, probe)
    if isinstance(opened.config, SelfSupervisedConfig):
        opened = encoder_of(opened)
    if isinstance(opened.config, MatpacConfig):
        if tokenizer is not None or decoder_dtype != "float32":
            raise InputError(f"{checkpoint}: is an encoder; leave tokenizer and decoder_dtype out")
        return _make_embedder(opened, encoder_dtype, labels, max_seconds, keep_damaged)
    if not isinstance(opened.config, TinyMUConfig):
        raise InputError(f"{checkpoint}: is a language model alone; name a TinyMU checkpoint")
    if labels is not None:
        raise InputError(f"{checkpoint}: labels given, but it has no head to name; leave them out")
    if max_seconds is not None:
        opened = opened._replace(config=replace(opened.config, max_seconds=max_seconds))
    return make_assistant(
        opened, encoder_dtype, decoder_dtype, tokenizer, str(checkpoint), keep_damaged
    )


def _check_options(encoder_dtype: str, decoder_dtype: str, max_seconds: float | None) -> None:
    for option, value, known in (
        ("encoder_dtype", encoder_dtype, get_args(EncoderDtype)),
        ("decoder_dtype", decoder_dtype, get_args(WeightDtype)),
    ):
        if value not in known:
            raise InputError(f"{option}={value!r}: use one of {', '.join(known)}")
    check_max_seconds(max_seconds)


def make_assistant(
    checkpoint: Checkpoint,
    encoder_dtype: EncoderDtype = "float32",
    decoder_dtype: WeightDtype = "float32",
    tokenizer: str | Path | None = None,
    name: str = "this checkpoint",
    keep_damaged: bool = False,
) -> Assistant:
    """Return an `Assistant` for an open TinyMU checkpoint.

    `name` is the checkpoint's name in error messages; see `load` for the other arguments.
    """
    config: TinyMUConfig = checkpoint.config
    _check_options(encoder_dtype, decoder_dtype, config.max_seconds)
    params = unstack(checkpoint.params, tinymu.param_axes(config))
    dtypes = {"decoder": decoder_dtype, "projector": encoder_dtype, "encoder": encoder_dtype}
    # One part after the other, so that the weights are never twice in memory.
    placed = {}
    for part, dtype in dtypes.items():
        placed[part] = _on_device(by_rows(params[part], dtype))
        for _, leaf in flatten(params[part]):
            release_pages(leaf)
    config = replace(
        config,
        encoder=replace(config.encoder, compute_dtype=encoder_dtype, attention="reference"),
        decoder=replace(
            config.decoder,
            compute_dtype="bfloat16" if decoder_dtype == "bfloat16" else "float32",
            attention="reference",
        ),
    )
    find = tokenizer_loader(checkpoint, tokenizer, name)
    return Assistant(config, placed, find, name, keep_damaged)


def _on_device(params: Any) -> Any:
    """Copy every array of a parameter tree, in C order, to the default device."""
    # In threads, since transposing 229 M numbers takes seconds on one core.
    with ThreadPoolExecutor() as pool:
        leaves, structure = jax.tree.flatten(params)
        placed = pool.map(_copy, leaves)
        return jax.tree.unflatten(structure, placed)


def _copy(leaf: np.ndarray) -> jax.Array:
    # An array that jax does not copy would hold the mapped file, and change with it.
    return jax.device_put(np.asarray(leaf, order="C"), may_alias=False)


def _make_embedder(
    checkpoint: Checkpoint,
    encoder_dtype: EncoderDtype,
    labels: str | Path | None,
    max_seconds: float | None,
    keep_damaged: bool,
) -> Embedder:
    config = replace(checkpoint.config, compute_dtype=encoder_dtype, attention="reference")
    params = by_rows(unstack(checkpoint.params, matpac.param_axes(config)), encoder_dtype)
    names = checkpoint.source.get("labels")
    if labels is not None:
        if config.head is None:
            raise InputError("labels given, but the checkpoint has no head or probe to name")
        names = read_labels(labels, config.head.num_classes)
    return Embedder(config, _on_device(params), names, max_seconds, keep_damaged)
