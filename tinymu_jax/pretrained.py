"""From a name or a path to a model that answers: every format that checkpoints come in."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tinymu_jax import hub
from tinymu_jax.assistant import Assistant
from tinymu_jax.audio import check_seconds
from tinymu_jax.checkpoint import (
    CONFIG_FILE,
    MODEL_FOLDER,
    RUN_FILE,
    TOKENIZER_FILE,
    Checkpoint,
    encoder_of,
    read_checkpoint,
)
from tinymu_jax.config import (
    NANO,
    PUBLISHED,
    MatpacConfig,
    Products,
    TinyMUConfig,
    smollm2_preset,
)
from tinymu_jax.errors import InputError
from tinymu_jax.files import exists, make_folder, read_json_object, read_text
from tinymu_jax.inference_layout import Weights, by_rows, unstack
from tinymu_jax.labels import read_labels
from tinymu_jax.listener import Listener
from tinymu_jax.models import matpac, tinymu
from tinymu_jax.pretraining.config import SelfSupervisedConfig
from tinymu_jax.tokenizer import Tokenizer

NANO_FOLDER = Path(__file__).parent / "nano"
"""The checkpoint that comes with the package; a folder of that name elsewhere is `./nano`."""


def load(
    checkpoint: str | Path = PUBLISHED,
    *,
    encoder: Products = "float32",
    decoder: Weights = "float32",
    tokenizer: str | Path | None = None,
    max_seconds: float | None = None,
    revision: str | None = None,
    probe: str | Path | None = None,
    labels: str | Path | None = None,
) -> Assistant | Listener:
    """Loads a model, ready to answer.

    Args:
        checkpoint: `nano` (comes with the package), a hub name (downloaded and converted once), a
            published `.pt` (its yaml, json and tokenizer.json beside it; the same keys as
            `.safetensors`), or a checkpoint folder.
        encoder: `bfloat16` rounds the weights of encoder and projector, multiplies in bfloat16 and
            sums in float32: faster, not exact.
        decoder: `int8` rounds its weights per output channel: a quarter of the memory, several
            times faster where memory is the limit, not exact. `bfloat16` is for accelerators.
        tokenizer: path of a `tokenizer.json`, or the hub name of the decoder; default is the one
            beside the checkpoint, else that of the decoder that the checkpoint names.
        max_seconds: how much of a recording is heard; default is the checkpoint's own (10 s), or
            all of it for a MATPAC encoder.
        revision: of the hub repository.
        probe: a probe's file, for a MATPAC encoder.
        labels: the list of classes of a head or probe, where the checkpoint does not name them.

    Returns:
        An `Assistant` for TinyMU, a `Listener` for MATPAC.

    Raises:
        InputError: nothing there, or nothing that can be used; the message says what to do.
    """
    _check_options(encoder, decoder, max_seconds)
    keep_compiled_programs()
    opened = open_checkpoint(checkpoint, revision, probe)
    if isinstance(opened.config, SelfSupervisedConfig):
        opened = encoder_of(opened)
    if isinstance(opened.config, MatpacConfig):
        if tokenizer is not None or decoder != "float32":
            raise InputError(f"{checkpoint}: is an encoder; leave tokenizer and decoder out")
        return _make_listener(opened, encoder, labels, max_seconds)
    _check_tinymu(opened, checkpoint, labels)
    if max_seconds is not None:
        opened = opened._replace(config=replace(opened.config, max_seconds=max_seconds))
    return make_assistant(opened, encoder, decoder, tokenizer, str(checkpoint))


def _check_tinymu(opened: Checkpoint, name: str | Path, labels: str | Path | None) -> None:
    """Refuses what does not answer, and names of classes for what has none."""
    if not isinstance(opened.config, TinyMUConfig):
        raise InputError(
            f"{name}: is a language model alone, which cannot listen; name a TinyMU checkpoint"
        )
    if labels is not None:
        raise InputError(f"{name}: labels given, but it has no head to name; leave them out")


def _check_options(encoder: str, decoder: str, max_seconds: float | None) -> None:
    """Holds options against what they may be, before anything is read."""
    for option, value, known in (
        ("encoder", encoder, get_args(Products)),
        ("decoder", decoder, get_args(Weights)),
    ):
        if value not in known:
            raise InputError(f"{option}={value!r}: use one of {', '.join(known)}")
    check_seconds(max_seconds)


def make_assistant(
    checkpoint: Checkpoint,
    encoder: Products = "float32",
    decoder: Weights = "float32",
    tokenizer: str | Path | None = None,
    name: str = "this checkpoint",
) -> Assistant:
    """Lays a TinyMU's parameters out for inference; arguments as `load`."""
    config: TinyMUConfig = checkpoint.config
    _check_options(encoder, decoder, config.max_seconds)
    params = unstack(checkpoint.params, tinymu.param_axes(config))
    kept = {"encoder": encoder, "projector": encoder, "decoder": decoder}
    params = {part: by_rows(params[part], weights) for part, weights in kept.items()}
    config = replace(
        config,
        encoder=replace(config.encoder, products=encoder),
        decoder=replace(
            config.decoder, products="bfloat16" if decoder == "bfloat16" else "float32"
        ),
    )
    find = _tokenizer_finder(checkpoint, tokenizer, name)
    return Assistant(config, _on_device(params), find, name)


def _on_device(params: Any) -> Any:
    """Puts every array, in order of its axes, where it is computed with."""
    import jax

    # Turning 229 M numbers takes seconds on one core.
    with ThreadPoolExecutor() as pool:
        leaves, structure = jax.tree.flatten(params)
        placed = pool.map(lambda leaf: jax.device_put(np.asarray(leaf, order="C")), leaves)
        return jax.tree.unflatten(structure, placed)


def _make_listener(
    checkpoint: Checkpoint, encoder: Products, labels: str | Path | None, max_seconds: float | None
) -> Listener:
    """Lays an encoder's parameters out for inference."""
    config = replace(checkpoint.config, products=encoder)
    params = by_rows(unstack(checkpoint.params, matpac.param_axes(config)), encoder)
    names = checkpoint.source.get("labels")
    if labels is not None:
        if config.head is None:
            raise InputError("labels given, but the checkpoint has no head or probe to name")
        names = read_labels(labels, config.head.num_classes)
    return Listener(config, _on_device(params), names, max_seconds)


def _tokenizer_finder(
    checkpoint: Checkpoint, given: str | Path | None, name: str
) -> Callable[[], Tokenizer]:
    """Returns what finds the tokenizer when text first comes in."""
    pad = checkpoint.config.pad_token

    def find() -> Tokenizer:
        if given is not None:
            return Tokenizer(read_tokenizer(given), pad, str(given))
        if checkpoint.tokenizer is not None:
            return Tokenizer(checkpoint.tokenizer, pad, name)
        published = checkpoint.source.get("config") or {}
        decoder = published.get("model", {}).get("decoder", {}).get("textdec_name", "")
        advice = "put the decoder's tokenizer.json beside it, or name one (--tokenizer, tokenizer=)"
        if not hub.is_hub_name(decoder):
            raise InputError(f"{name}: has no tokenizer; {advice}")
        try:
            return Tokenizer(hub.fetch_tokenizer(decoder), pad, decoder)
        except InputError as error:
            raise InputError(f"{name}: has no tokenizer, and {error}; or {advice}") from error

    return find


def read_tokenizer(given: str | Path) -> str:
    """Returns the text of a tokenizer: a file's, a checkpoint's or run's, nano's, or the hub's."""
    path = NANO_FOLDER if str(given) == NANO else Path(given)
    if exists(path):
        folder = path / MODEL_FOLDER if exists(path / RUN_FILE) else path
        return read_text(folder / TOKENIZER_FILE if path.is_dir() else path)
    if hub.is_hub_name(str(given)):
        return hub.fetch_tokenizer(str(given))
    raise InputError(f"{path}: no such file; name a tokenizer.json, or a decoder on the hub")


def open_checkpoint(
    name: str | Path, revision: str | None = None, probe: str | Path | None = None
) -> Checkpoint:
    """Reads a checkpoint of any known format; arguments as `load`.

    Raises:
        InputError: nothing there, or of no known format.
    """
    from conversion import matpac as matpac_files
    from conversion import smollm2 as smollm2_files
    from conversion import tinymu as tinymu_files

    if str(name) == NANO:
        return read_checkpoint(NANO_FOLDER)
    path = Path(name)
    local = exists(path)
    if local and revision is not None:
        raise InputError(f"{name}: is a path, which has no revision; leave it out")
    if path.is_dir():
        if exists(path / RUN_FILE):
            opened = _open_run(path)
        elif (path / hub.WEIGHTS).exists() and not (path / CONFIG_FILE).exists():
            opened = tinymu_files.from_published(path / hub.WEIGHTS)
        elif _is_transformers_folder(path):
            opened = smollm2_files.from_published(path)
        else:
            opened = read_checkpoint(path)
    elif local:
        opened = _open_file(path)
    elif smollm2_preset(str(name)) and hub.is_hub_name(str(name)):
        opened = smollm2_files.from_published(hub.fetch_decoder(str(name), revision))
    elif hub.is_hub_name(str(name)):
        opened = read_checkpoint(hub.fetch(str(name), revision))
    else:
        raise InputError(
            f"{name}: no such file or folder; name a checkpoint, or a hub repository such as "
            f"{PUBLISHED}"
        )
    if probe is None:
        return opened
    if isinstance(opened.config, SelfSupervisedConfig):
        opened = encoder_of(opened)
    if not isinstance(opened.config, MatpacConfig):
        raise InputError(f"{name}: a probe goes with a MATPAC encoder; leave it out")
    return matpac_files.with_probe(opened, probe)


def _open_file(path: Path) -> Checkpoint:
    """Reads a published file by what it holds."""
    from conversion import matpac, pretraining, tinymu
    from conversion.published_files import read_published

    content = read_published(path)
    if tinymu.is_tinymu(content):
        return tinymu.from_published(path, content)
    if pretraining.is_training(content):
        return pretraining.from_published(path, content)
    return matpac.from_published(path, content)


def _open_run(folder: Path) -> Checkpoint:
    """Reads the model of a run that has come to its end."""
    if not exists(folder / MODEL_FOLDER / CONFIG_FILE):
        raise InputError(
            f"{folder}: is a run that has not come to its end; wait for it, or write the model of "
            f"a checkpoint: tinymu export {folder} FOLDER"
        )
    return read_checkpoint(folder / MODEL_FOLDER)


def _is_transformers_folder(folder: Path) -> bool:
    """Tells a SmolLM2 folder by its config."""
    try:
        return "model_type" in read_json_object(folder / CONFIG_FILE, "")
    except InputError:
        return False


def keep_compiled_programs() -> None:
    """Keeps compiled programs on disk, so that the next process starts fast.

    Leaves alone what the user has set (`JAX_COMPILATION_CACHE_DIR`); does without where the home
    cannot be written to.

    Raises:
        InputError: `TINYMU_CACHE` names a place that cannot be written to.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = make_folder(hub.cache_folder() / "compiled")
        except InputError:
            if "TINYMU_CACHE" in os.environ:
                raise
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
