"""The weights that a run begins with: a whole model, or parts and chance."""

from dataclasses import replace

import jax

from tinymu_jax.checkpoint import Checkpoint, init_params
from tinymu_jax.config import MatpacConfig, SmolLM2Config, TinyMUConfig
from tinymu_jax.errors import InputError
from tinymu_jax.pretrained import open_checkpoint, read_tokenizer
from tinymu_jax.training.config import TrainConfig


def open_start(config: TrainConfig) -> Checkpoint:
    """Returns the weights that a run begins with, and its tokenizer.

    Raises:
        InputError: a checkpoint of another model, or no tokenizer.
    """
    start = config.start
    if start.checkpoint is not None:
        opened = _open_as(start.checkpoint, TinyMUConfig, "start.checkpoint", "a whole TinyMU")
        if config.model != TinyMUConfig():
            raise InputError(
                f"start.checkpoint {start.checkpoint} brings its own sizes; leave model.* out"
            )
    else:
        opened = _from_parts(config)
    text = opened.tokenizer if start.tokenizer is None else read_tokenizer(start.tokenizer)
    if text is None:
        raise InputError(
            "no tokenizer: name the decoder's tokenizer.json, or the decoder on the hub, with "
            "--start.tokenizer"
        )
    return opened._replace(tokenizer=text)


def _open_as(name: str, kind: type, field: str, wanted: str) -> Checkpoint:
    """Opens a checkpoint of one kind of model; of a whole TinyMU, the part of that kind."""
    opened, part = open_checkpoint(name), field.removeprefix("start.")
    if isinstance(opened.config, TinyMUConfig) and kind is not TinyMUConfig:
        own = getattr(opened.config, part)
        opened = opened._replace(config=own, params=opened.params[part])
    if not isinstance(opened.config, kind):
        raise InputError(f"{field} {name}: is another model; name {wanted} there")
    return opened


def _from_parts(config: TrainConfig) -> Checkpoint:
    """Joins an encoder and a decoder with what starts at random."""
    model, start, parts, tokenizer = config.model, config.start, {}, None
    if start.encoder is not None:
        opened = _open_as(start.encoder, MatpacConfig, "start.encoder", "a MATPAC encoder")
        model = replace(model, encoder=replace(opened.config, head=None))
        parts["encoder"] = {k: v for k, v in opened.params.items() if k != "head"}
    if start.decoder is not None:
        opened = _open_as(start.decoder, SmolLM2Config, "start.decoder", "a SmolLM2")
        model, tokenizer = replace(model, decoder=opened.config), opened.tokenizer
        parts["decoder"] = opened.params
    bridge = replace(
        model.projector,
        input_width=model.encoder.output_width,
        output_width=model.decoder.width,
    )
    # Read once more as a file would be: sizes that do not go together are named.
    model = TinyMUConfig.from_dict(replace(model, projector=bridge).to_dict(), "model")
    params = jax.tree.map(jax.device_get, init_params(model, start.seed)) | parts
    return Checkpoint(model, params, tokenizer)
