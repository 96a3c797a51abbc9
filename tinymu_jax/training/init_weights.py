"""The weights that a run begins with: a whole model, or parts and chance."""

from dataclasses import replace

import jax

from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of, init_params
from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SelfSupervisedConfig, SmolLM2Config, TinyMUConfig
from tinymu_jax.models.matpac_ssl.teacher import ema_params
from tinymu_jax.models.positions import resize_positions
from tinymu_jax.training.config import PretrainConfig, RunConfig, TagConfig, TrainConfig
from tinymu_jax.training.tasks.tagger import classes_of, tagger_config


def open_init(config: RunConfig) -> Checkpoint:
    """Returns the weights that a run begins with, and the tokenizer of what answers.

    Raises:
        InputError: a checkpoint of another model, or no tokenizer.
    """
    if isinstance(config, PretrainConfig):
        return _open_pretraining(config)
    if isinstance(config, TagConfig):
        return _open_tagger(config)
    init = config.init
    if init.checkpoint is not None:
        opened = _open_as(init.checkpoint, TinyMUConfig, "init.checkpoint", "a whole TinyMU")
        if config.model != TinyMUConfig():
            raise InputError(
                f"init.checkpoint {start.checkpoint} brings its own sizes; leave model.* out"
            )
    else:
        opened = _from_parts(config)
    text = opened.tokenizer if init.tokenizer is None else read_tokenizer(init.tokenizer)
    if text is None:
        raise InputError(
            "no tokenizer: name the decoder's tokenizer.json, or the decoder on the hub, with "
            "--init.tokenizer"
        )
    return opened._replace(tokenizer=text)


def _open_as(name: str, kind: type, field: str, wanted: str) -> Checkpoint:
    """Opens a checkpoint of one kind of model."""
    opened = open_checkpoint(name)
    if isinstance(opened.config, TinyMUConfig) and kind is SmolLM2Config:
        opened = opened._replace(config=opened.config.decoder, params=opened.params["decoder"])
    if not isinstance(opened.config, kind):
        raise InputError(f"{field} {name}: is another model; name {wanted} there")
    return opened


def _open_encoder(name: str, num_frames: int | None) -> Checkpoint:
    """Opens the encoder of any checkpoint that has one, for chunks of its own or another length."""
    try:
        opened = encoder_of(open_checkpoint(name))
        return opened if num_frames is None else with_frames(opened, num_frames)
    except InputError as error:
        raise InputError(f"init.encoder {name}: {error}") from error


def with_frames(encoder: Checkpoint, num_frames: int) -> Checkpoint:
    """Returns an encoder that hears chunks of so many frames: positions cut, or added.

    Raises:
        InputError: no whole number of patches.
    """
    config = replace(encoder.config, num_frames=num_frames)
    config = type(config).from_dict(config.to_dict(), "model.encoder")
    table = resize_positions(encoder.params["pos_embed"], config.rows, config.columns)
    return encoder._replace(config=config, params={**encoder.params, "pos_embed": table})


def _open_pretraining(config: PretrainConfig) -> Checkpoint:
    """Returns all that pre-training begins with."""
    init, model = config.init, config.model
    sizes = ("encoder", "predictor", "class_head")
    if init.checkpoint is not None:
        wanted = "a checkpoint of pre-training (init.encoder takes an encoder alone)"
        opened = _open_as(init.checkpoint, SelfSupervisedConfig, "init.checkpoint", wanted)
        plain, found = SelfSupervisedConfig(), opened.config
        if any(
            getattr(model, name) not in (getattr(plain, name), getattr(found, name))
            for name in sizes
        ):
            raise InputError(
                f"init.checkpoint {start.checkpoint} brings its own sizes; leave "
                f"{', '.join(f'model.{name}' for name in sizes)} out"
            )
        own = {name: getattr(found, name) for name in sizes}
        return Checkpoint(replace(model, **own), opened.params)
    encoder = None
    if init.encoder is not None:
        encoder = _open_encoder(init.encoder, model.encoder.num_frames)
        model = replace(model, encoder=encoder.config)
    params = jax.tree.map(jax.device_get, init_params(model, init.seed))
    if encoder is not None:
        params["encoder"] = encoder.params
        params["teacher"] = {**params["teacher"], "encoder": ema_params(params)["encoder"]}
    return Checkpoint(model, params)


def _open_tagger(config: TagConfig) -> Checkpoint:
    """Returns an encoder with a new head."""
    init, encoder = config.init, None
    if init.encoder is not None:
        encoder = _open_encoder(init.encoder, config.model.num_frames)
    sizes = config.model if encoder is None else encoder.config
    names = classes_of(config)
    model = tagger_config(sizes, len(names))
    params = jax.tree.map(jax.device_get, init_params(model, init.seed))
    whole = params if encoder is None else {**params, **encoder.params}
    return Checkpoint(model, whole, source={"labels": names})


def _from_parts(config: TrainConfig) -> Checkpoint:
    """Joins an encoder and a decoder with what starts at random."""
    model, init, parts, tokenizer = config.model, config.init, {}, None
    if init.encoder is not None:
        wanted = model.encoder.num_frames
        given = None if wanted == MatpacConfig.num_frames else wanted
        opened = _open_encoder(init.encoder, given)
        model = replace(model, encoder=opened.config)
        parts["encoder"] = opened.params
    if init.decoder is not None:
        opened = _open_as(init.decoder, SmolLM2Config, "init.decoder", "a SmolLM2")
        model, tokenizer = replace(model, decoder=opened.config), opened.tokenizer
        parts["decoder"] = opened.params
    bridge = replace(
        model.projector,
        input_width=model.encoder.output_width,
        output_width=model.decoder.width,
    )
    # Read once more as a file would be: sizes that do not go together are named.
    model = TinyMUConfig.from_dict(replace(model, projector=bridge).to_dict(), "model")
    params = jax.tree.map(jax.device_get, init_params(model, init.seed)) | parts
    return Checkpoint(model, params, tokenizer)
