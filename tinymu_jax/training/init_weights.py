"""Make a run's initial parameters from checkpoints, or at random."""

from dataclasses import replace

import jax

from tinymu_jax.checkpoints.checkpoint import (
    Checkpoint,
    ModelConfig,
    encoder_of,
    expected_shapes,
    init_params,
)
from tinymu_jax.checkpoints.open import describe_checkpoint, open_checkpoint, read_tokenizer
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SelfSupervisedConfig, SmolLM2Config, TinyMUConfig
from tinymu_jax.models.matpac_ssl.teacher import ema_params
from tinymu_jax.models.positions import resize_positions
from tinymu_jax.tokenizer import MAX_UNUSED, Tokenizer
from tinymu_jax.training.config import PretrainConfig, RunConfig, TagConfig, TrainConfig
from tinymu_jax.training.tasks.tagger import read_class_names, tagger_config
from tinymu_jax.utils.tree import Tree, has_arrays

SSL_PARTS = ("encoder", "predictor", "class_head")
"""Fields of `SelfSupervisedConfig` whose sizes come from `init.checkpoint` if it is set."""


def open_init(config: RunConfig, weights: bool = True) -> Checkpoint:
    """Return a run's initial model: config, parameters and, for TinyMU, tokenizer.

    Without `weights`, as little as possible is read, and parameters may be shapes and dtypes
    (`jax.ShapeDtypeStruct`) in place of arrays.

    Raises:
        InputError: a checkpoint holds another kind of model, or a TinyMU has no tokenizer, or one
            that does not fit its decoder.
    """
    if isinstance(config, PretrainConfig):
        return _init_pretraining(config, weights)
    if isinstance(config, TagConfig):
        return _init_tagger(config, weights)
    init = config.init
    if init.checkpoint is None:
        checkpoint = _init_from_parts(config, weights)
    else:
        checkpoint = _open_as(
            init.checkpoint, TinyMUConfig, "init.checkpoint", "a whole TinyMU", weights
        )
        if config.model != TinyMUConfig():
            raise InputError(
                f"init.checkpoint {init.checkpoint} decides the sizes; leave model.* out"
            )
    text = checkpoint.tokenizer if init.tokenizer is None else read_tokenizer(init.tokenizer)
    if text is None:
        raise InputError(
            "no tokenizer: name the decoder's tokenizer.json, or the decoder on the hub, with "
            "--init.tokenizer"
        )
    model = checkpoint.config
    source = init.tokenizer or init.decoder or init.checkpoint
    # A new decoder may have embeddings to spare, and so may one with the tokenizer it came with.
    is_new = init.checkpoint is None and init.decoder is None
    max_unused = None if is_new or text == checkpoint.tokenizer else MAX_UNUSED
    size = model.decoder.vocab_size
    Tokenizer(text, model.pad_token, f"tokenizer of {source}", size, max_unused)
    return checkpoint._replace(tokenizer=text)


def _open(name: str, weights: bool) -> Checkpoint:
    return open_checkpoint(name) if weights else describe_checkpoint(name)


def _init_params(model: ModelConfig, seed: int, weights: bool) -> Tree:
    """Return a model's random initial parameters or, without `weights`, their shapes."""
    if not weights:
        return expected_shapes(model)
    return jax.tree.map(jax.device_get, init_params(model, seed))


def _open_as(name: str, kind: type, field: str, expected: str, weights: bool) -> Checkpoint:
    """Open the checkpoint `name`; raise `InputError` unless it is a model of config class `kind`.

    If `kind` is `SmolLM2Config`, a TinyMU is accepted and its decoder returned. The error message
    contains `field`, the config field that gives `name`, and `expected`, the models allowed there.
    """
    checkpoint = _open(name, weights)
    model = checkpoint.config
    if isinstance(model, TinyMUConfig) and kind is SmolLM2Config:
        decoder = checkpoint.params["decoder"]
        checkpoint = checkpoint._replace(config=model.decoder, params=decoder)
    if not isinstance(checkpoint.config, kind):
        raise InputError(f"{field} {name}: is another model; name {expected} there")
    return checkpoint


def _open_encoder(name: str, num_frames: int | None, weights: bool) -> Checkpoint:
    """Open a checkpoint's encoder, resized to chunks of `num_frames` frames if given."""
    try:
        encoder = encoder_of(_open(name, weights))
        return encoder if num_frames is None else with_frames(encoder, num_frames)
    except InputError as error:
        raise InputError(f"init.encoder {name}: {error}") from error


def with_frames(encoder: Checkpoint, num_frames: int) -> Checkpoint:
    """Resize an encoder's positional embeddings to chunks of `num_frames` frames.

    Raises:
        InputError: `num_frames` is not a multiple of the patch size.
    """
    config = replace(encoder.config, num_frames=num_frames)
    config = type(config).from_dict(config.to_dict(), "model.encoder")
    if has_arrays(encoder.params):
        table = resize_positions(encoder.params["pos_embed"], config.rows, config.columns)
    else:
        table = expected_shapes(config)["pos_embed"]
    return encoder._replace(config=config, params={**encoder.params, "pos_embed": table})


def _init_pretraining(config: PretrainConfig, weights: bool) -> Checkpoint:
    """Return the initial student, predictor, heads and teacher of pre-training."""
    init, model = config.init, config.model
    if init.checkpoint is not None:
        expected = "a checkpoint of pre-training (init.encoder takes an encoder alone)"
        checkpoint = _open_as(
            init.checkpoint, SelfSupervisedConfig, "init.checkpoint", expected, weights
        )
        default, stored = SelfSupervisedConfig(), checkpoint.config
        if any(
            getattr(model, name) not in (getattr(default, name), getattr(stored, name))
            for name in SSL_PARTS
        ):
            raise InputError(
                f"init.checkpoint {init.checkpoint} decides the sizes; leave "
                f"{', '.join(f'model.{name}' for name in SSL_PARTS)} out"
            )
        sizes = {name: getattr(stored, name) for name in SSL_PARTS}
        return Checkpoint(replace(model, **sizes), checkpoint.params)
    encoder = None
    if init.encoder is not None:
        encoder = _open_encoder(init.encoder, model.encoder.num_frames, weights)
        model = replace(model, encoder=encoder.config)
    params = _init_params(model, init.seed, weights)
    if encoder is not None:
        params["encoder"] = encoder.params
        params["teacher"] = {**params["teacher"], "encoder": ema_params(params)["encoder"]}
    return Checkpoint(model, params)


def _init_tagger(config: TagConfig, weights: bool) -> Checkpoint:
    """Return the initial encoder of tagging, with a random head for the run's classes."""
    init, encoder = config.init, None
    if init.encoder is not None:
        encoder = _open_encoder(init.encoder, config.model.num_frames, weights)
    sizes = config.model if encoder is None else encoder.config
    names = read_class_names(config)
    model = tagger_config(sizes, len(names))
    params = _init_params(model, init.seed, weights)
    if encoder is not None:
        params = {**params, **encoder.params}
    return Checkpoint(model, params, source={"labels": names})


def _init_from_parts(config: TrainConfig, weights: bool) -> Checkpoint:
    """Build a TinyMU from the encoder and decoder in `config.init`; other parts are random."""
    model, init, parts, tokenizer = config.model, config.init, {}, None
    if init.encoder is not None:
        num_frames = model.encoder.num_frames
        changed = num_frames != MatpacConfig.num_frames
        encoder = _open_encoder(init.encoder, num_frames if changed else None, weights)
        model = replace(model, encoder=encoder.config)
        parts["encoder"] = encoder.params
    if init.decoder is not None:
        decoder = _open_as(init.decoder, SmolLM2Config, "init.decoder", "a SmolLM2", weights)
        model, tokenizer = replace(model, decoder=decoder.config), decoder.tokenizer
        parts["decoder"] = decoder.params
    projector = replace(
        model.projector, input_width=model.encoder.output_width, output_width=model.decoder.width
    )
    # `from_dict` raises an error if sizes do not fit together.
    model = TinyMUConfig.from_dict(replace(model, projector=projector).to_dict(), "model")
    params = _init_params(model, init.seed, weights) | parts
    return Checkpoint(model, params, tokenizer)
