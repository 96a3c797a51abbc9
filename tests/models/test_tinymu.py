"""The token sequence, the loss and the full model; every config field has an effect."""

import json
from dataclasses import fields, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import check_axes
from oracles import torch_modules as oracle

from tinymu_jax.audio.log_mel import num_frames
from tinymu_jax.checkpoints.checkpoint import expected_shapes, init_params
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.generate import prefill
from tinymu_jax.models import projector, smollm2, tinymu
from tinymu_jax.models.attention_mask import AttentionMask
from tinymu_jax.models.config import (
    HeadConfig,
    LoraConfig,
    MatpacConfig,
    ProjectorConfig,
    SmolLM2Config,
    TinyMUConfig,
)
from tinymu_jax.models.matpac import Matpac
from tinymu_jax.models.projector import make_projector
from tinymu_jax.models.sequence import PromptBatch, build_sequence
from tinymu_jax.models.tinymu import TinyMU, label_loss
from tinymu_jax.utils.tree import flatten, unflatten

CONFIG = TinyMUConfig()


def sequence(num_audio, prompt, num_prompt, answer, num_answer, audio_length, config=CONFIG):
    arrays = (np.asarray(x, np.int32) for x in (num_audio, prompt, num_prompt, answer, num_answer))
    made = jax.jit(build_sequence, static_argnums=(5, 6))(*arrays, audio_length, config)
    return type(made)(*map(np.asarray, made))


def run(model, params, *args, **options):
    apply = jax.jit(lambda params, *args: model.apply({"params": params}, *args, **options))
    return apply(params, *args).tolist()


# --- the token sequence --------------------------------------------------------------------------


def test_the_example_of_build_sequence():
    # With 2 audio vectors of 3, 2 prompt tokens of 3, 1 answer token of 2.
    made = sequence([2], [[70, 71, 99]], [2], [[80, 99]], [1], 3)
    assert made.tokens.tolist() == [[0, 70, 71, 99, 17, 80, 99]]
    assert made.positions.tolist() == [[0, 1, 0, 2, 3, 4, 0, 2 + 129, 2 + 130, 0]]
    assert np.flatnonzero(made.key_mask[0]).tolist() == [0, 1, 3, 4, 5, 8]
    assert made.first_logit_position.tolist() == [7]
    assert int(made.answer_start) == 8


def published(num_audio, prompt, answer):
    """Derives the sequence from the published, padded one by dropping unused positions.

    Returns:
        Content, position id and attention mask row of each position, and the index whose output
        predicts the first answer token.
    """
    pads = 129 - len(prompt)
    holds = [
        *(("audio", i) for i in range(num_audio)),
        ("token", 0),
        *(("token", i) for i in prompt),
        *(("token", 17) for _ in range(pads)),
        *(("token", i) for i in answer),
        *(("token", 17) for _ in range(129 - len(answer))),
    ]
    real = [1] * (num_audio + 1 + len(prompt)) + [0] * pads + [1] * len(answer)
    real += [0] * (129 - len(answer))
    size = len(holds)
    sees = [[bool(real[s]) and s <= t for s in range(size)] for t in range(size)]
    last_of_prompt = num_audio + 129
    remaining = [t for t in range(size) if real[t] or t == last_of_prompt]
    return (
        [holds[t] for t in remaining],
        remaining,
        np.array([[sees[t][s] for s in remaining] for t in remaining]),
        remaining.index(last_of_prompt),
    )


CASES = [(2, 3, 1), (63, 20, 12), (20, 128, 5), (32, 129, 7), (1, 1, 0), (0, 4, 3), (5, 3, 129)]


@pytest.mark.parametrize(
    ("case", "padding"), [*((case, 3) for case in CASES), (CASES[0], 0), (CASES[3], 0)]
)
def test_build_sequence_gives_the_published_sequence_without_its_pads(case, padding):
    num_audio, num_prompt, num_answer = case
    rng = np.random.default_rng(0)
    prompt, answer = (rng.integers(1, 40, n).tolist() for n in (num_prompt, num_answer))
    prompt_length = min(num_prompt + padding, 129)
    made = sequence(
        [num_audio],
        [prompt + [55] * (prompt_length - num_prompt)],
        [num_prompt],
        [answer + [55] * padding],
        [num_answer],
        num_audio + padding,
    )
    holds, positions, mask, first = published(num_audio, prompt, answer)

    audio_length = num_audio + padding
    pad_index = audio_length + 1 + prompt_length
    used = [
        *range(num_audio),
        audio_length,
        *(audio_length + 1 + i for i in range(num_prompt)),
        *([pad_index] if num_prompt < 129 else []),
        *(pad_index + 1 + i for i in range(num_answer)),
    ]
    tokens = [("token", int(t)) for t in made.tokens[0]]
    slots = [("audio", i) for i in range(audio_length)] + tokens
    assert [slots[s] for s in used] == holds
    assert made.positions[0, np.array(used)].tolist() == positions
    np.testing.assert_array_equal(made.mask[0][np.ix_(used, used)], mask)
    idle = np.setdiff1d(np.arange(len(slots)), used)
    assert not made.mask[0][:, idle].any()
    assert int(made.first_logit_position[0]) == used[first]
    assert int(made.answer_start) == pad_index + 1
    np.testing.assert_array_equal(made.key_mask[0], made.mask[0].any(axis=0))


def test_rows_of_a_batch_are_independent():
    prompts, answers = [[5, 6, 0, 0], [7, 8, 9, 10]], [[1, 0], [2, 3]]
    together = sequence([2, 3], prompts, [2, 4], answers, [1, 2], 4)
    for row in range(2):
        alone = sequence(
            [2 + row], prompts[row : row + 1], [2 + 2 * row], answers[row : row + 1], [1 + row], 4
        )
        for made, expected in zip(together[:5], alone[:5], strict=True):
            np.testing.assert_array_equal(made[row], expected[0])


# --- parameters ----------------------------------------------------------------------------------


def count(tree):
    return sum(leaf.size for _, leaf in flatten(tree))


def test_parts_have_the_published_number_of_parameters():
    shapes = expected_shapes(TinyMUConfig())
    leaves = dict(flatten(shapes["encoder"]))
    # Tables of the front end are stored with the weights, but they are not parameters.
    constants = [leaves.pop(f"log_mel/{name}") for name in ("window", "filterbank")]
    assert [leaf.shape for leaf in constants] == [(400,), (201, 80)]
    assert sum(leaf.size for leaf in leaves.values()) == 85_492_992
    assert count(shapes["projector"]) == 9_046_592
    assert count(shapes["decoder"]) == 134_515_008


SMALL = TinyMUConfig(
    encoder=MatpacConfig(width=16, depth=2, num_heads=2, num_frames=32),
    projector=ProjectorConfig("linear", 80, 24, 16, num_vectors=4, depth=2, num_heads=2),
    decoder=SmolLM2Config(
        vocab_size=64, width=16, depth=2, num_heads=2, num_kv_heads=1, head_width=8, mlp_width=24
    ),
)


@pytest.mark.parametrize("kind", ["linear", "residual", "transformer"])
@pytest.mark.parametrize("head", [None, HeadConfig("audioset", 5), HeadConfig("probe", 5)])
def test_every_weight_has_one_row_of_axes(kind, head):
    config = replace(
        SMALL,
        encoder=replace(SMALL.encoder, head=head),
        projector=replace(SMALL.projector, kind=kind),
    )
    params, table = expected_shapes(config), tinymu.param_axes(config)
    check_axes(params, table)
    inputs = {"linear": "linear1", "residual": "linear1", "transformer": "linear"}[kind]
    assert params["projector"][inputs]["kernel"].shape[0] == config.encoder.output_width


# --- against the oracle --------------------------------------------------------------------------

SIZES = {
    "encoder": {"embed_dim": 16, "depth": 2, "num_heads": 2, "n_t": 32},
    "lm": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "head_dim": 8,
    },
}
PROJECTORS = {
    "linear": {"proj_name": "linearprojector", "d_in": 80, "d_h": 24, "d_out": 16},
    "residual": {"proj_name": "reslinearprojector", "d_in": 80, "d_out": 16},
    "transformer": {
        "proj_name": "transformerprojector",
        "d_in": 80,
        "d_out": 16,
        "prefix_length": 5,
        "num_layers": 2,
    },
}


@pytest.fixture(scope="module")
def build(port):
    """Returns a function that builds small random models and their assistants, cached."""
    made = {}

    def build(kind, ds_rate=1):
        if (kind, ds_rate) not in made:
            sizes = SIZES | {"projector": PROJECTORS[kind]}
            sizes["encoder"] = SIZES["encoder"] | {"ds_rate": ds_rate}
            module = port.randomise(oracle.build_tinymu(sizes))
            made[kind, ds_rate] = module, Assistant(*port.tinymu(module))
        return made[kind, ds_rate]

    return build


@pytest.fixture(scope="module")
def samples():
    """0.76 s: 74 frames, chunks of two, two and one column."""
    return (0.1 * np.random.default_rng(0).standard_normal(12_160)).astype(np.float32)


PROMPT, ANSWER = [5, 17, 6, 33, 7], [40, 17, 41, 42, 17, 17, 3]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "ds_rate"), [("linear", 2), ("residual", 1), ("transformer", 1)])
def test_audio_prefix(build, samples, kind, ds_rate):
    module, assistant = build(kind, ds_rate)
    expected = module.audio(torch.from_numpy(samples))[0].numpy()
    made = _prefix(assistant, samples)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4)


def _prefix(assistant, samples):
    from tinymu_jax.inference.chunked_encoding import encode_clips, project

    vectors = encode_clips(assistant.params["encoder"], [samples], assistant.config.encoder)[0][0]
    projector = {"projector": assistant.params["projector"]}
    prefix, count = project(projector, vectors, assistant.config)
    return prefix[:count]


@torch.no_grad()
def test_pooling_drops_incomplete_groups(build, samples):
    module, assistant = build("linear", 2)
    encoder = module.audio_encoder.enc
    vectors = encoder(torch.from_numpy(samples)[None])[0]
    assert len(vectors) == 5
    pairs = (vectors[0:4:2] + vectors[1:4:2]) / 2
    expected = module.projector(pairs).numpy()
    np.testing.assert_allclose(_prefix(assistant, samples), expected, rtol=0, atol=1e-4)


def test_a_clip_shorter_than_a_pooling_group_is_refused(build, samples):
    # One column of 160 ms, pooled by two, leaves no vector.
    _, assistant = build("linear", 2)
    with pytest.raises(InputError, match="give a longer recording"):
        assistant.generate_tokens(samples[:800], PROMPT, 2)


def test_a_clip_shorter_than_a_pooling_group_does_not_end_the_batch(build, samples):
    _, assistant = build("linear", 2)
    good, bad, again = assistant.audio_cache.encode([samples, samples[:800], samples])
    assert isinstance(bad, InputError)
    np.testing.assert_array_equal(good.vectors, again.vectors)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "ds_rate"), [("linear", 2), ("residual", 1), ("transformer", 1)])
def test_target_logits(build, samples, kind, ds_rate):
    module, assistant = build(kind, ds_rate)
    expected = module.target_logits(torch.from_numpy(samples), PROMPT, [*ANSWER, 0])
    made = assistant.target_logits(samples, PROMPT, ANSWER)
    np.testing.assert_allclose(made, expected.numpy(), rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("kind", ["residual", "transformer"])
def test_loss_with_and_without_exclamation_marks(build, samples, kind, ignore):
    module, assistant = build(kind)
    config = replace(assistant.config, ignore_pad_labels=ignore)
    expected = module.loss(torch.from_numpy(samples), PROMPT, ANSWER, ignore_bang=ignore)
    made = Assistant(config, assistant.params).loss_tokens(samples, PROMPT, ANSWER)
    np.testing.assert_allclose(made, expected.item(), rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [128, 129, 150])
def test_loss_of_answers_at_the_maximum_length(build, samples, length):
    # Up to 128 tokens an end token follows; beyond that the answer is cut without one.
    module, assistant = build("linear")
    answer = np.random.default_rng(0).integers(18, 64, length).tolist()
    expected = module.loss(torch.from_numpy(samples), PROMPT, answer)
    made = assistant.loss_tokens(samples, PROMPT, answer)
    np.testing.assert_allclose(made, expected.item(), rtol=1e-5)


@torch.no_grad()
def test_loss_of_a_batch_is_the_mean_over_its_tokens(build, samples):
    module, assistant = build("linear")
    prompts, answers = [[5, 6, 7], [8] * 9], [[40, 17, 41], [42, 43, 44, 45, 46]]
    expected = module.loss(torch.from_numpy(np.stack([samples] * 2)), prompts, answers)
    prefix = np.stack([_prefix(assistant, samples)] * 2)
    prompt, labels = np.zeros((2, 9), np.int32), np.full((2, 8), 50, np.int32)
    for row in range(2):
        prompt[row, : len(prompts[row])] = prompts[row]
        labels[row, : len(answers[row]) + 1] = [*answers[row], 0]
    num_prompt, num_labels = np.array([3, 9]), np.array([4, 6])
    num_audio = np.array([prefix.shape[1]] * 2)
    arrays = map(jnp.asarray, (prefix, num_audio, prompt, num_prompt, labels, num_labels))
    params = {part: assistant.params[part] for part in ("projector", "decoder")}
    logits = jnp.asarray(run(TinyMU(assistant.config), params, *arrays, method="answer_logits"))
    made = label_loss(logits, jnp.asarray(labels), jnp.asarray(num_labels), assistant.config)
    np.testing.assert_allclose(made, expected.item(), rtol=1e-5)


def test_loss_without_any_label_is_zero():
    logits, labels = jnp.ones((1, 3, 64)), jnp.full((1, 3), 17)
    assert float(label_loss(logits, labels, jnp.array([3]), CONFIG)) == 0


# --- configs -------------------------------------------------------------------------------------

CONFIGS = {
    "head": HeadConfig("probe", 20),
    "encoder": MatpacConfig(width=32, num_heads=2, head=HeadConfig("audioset", 7)),
    "encoder without head": MatpacConfig(compute_dtype="bfloat16"),
    "projector": ProjectorConfig("transformer", num_vectors=8),
    "decoder": SmolLM2Config(rope_theta=130_000.0),
    "whole": TinyMUConfig(
        MatpacConfig(depth=3, head=HeadConfig()), pooling=2, ignore_pad_labels=False
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_survive_json(name):
    config = CONFIGS[name]
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize(
    ("config", "values", "where"),
    [
        (TinyMUConfig, {"pool": 2}, "config: unknown key 'pool'"),
        (TinyMUConfig, {"encoder": {"wide": 2}}, "config.encoder: unknown key 'wide'"),
        (
            TinyMUConfig,
            {"encoder": {"head": {"classes": 2}}},
            "config.encoder.head: unknown key 'classes'",
        ),
        (SmolLM2Config, {"hidden_size": 2}, "config: unknown key 'hidden_size'"),
        (TinyMUConfig, {"decoder": 3}, "config.decoder: expected an object"),
    ],
)
def test_unknown_keys_are_refused_by_name(config, values, where):
    with pytest.raises(InputError) as caught:
        config.from_dict(values)
    assert str(caught.value).startswith(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling": 0}, "config: pooling is 0; give a number above 0"),
        ({"pooling": True}, "config: pooling is True; give it as int"),
        ({"pooling": "2"}, "config: pooling is '2'; give it as int"),
        ({"end_token": -1}, "config: end_token is -1"),
        ({"max_seconds": float("nan")}, "config: max_seconds is nan"),
        ({"max_seconds": float("inf")}, "config: max_seconds is inf; give a finite number"),
        ({"max_seconds": 10**400}, "config: max_seconds is 1000.*; give a finite number"),
        ({"pad_token": 2**31}, "config: pad_token is 2147483648; give a number up to 2147483647"),
        ({"pooling": 63}, "config: pooling must be at most the 62 vectors of a chunk"),
        (
            {"decoder": {"depth": 2**31 - 1}},
            "config.decoder: depth is .*; give a number up to 10000",
        ),
        ({"encoder": {"width": 12 * 2**20}}, "config.encoder: num_frames or width is too large"),
        ({"ignore_pad_labels": 1}, "config: ignore_pad_labels is 1; give it as bool"),
        (
            {"encoder": {"compute_dtype": "int8"}},
            "config.encoder: compute_dtype is 'int8'; use one of",
        ),
        ({"encoder": {"num_heads": 7}}, "config.encoder: width must be a multiple of num_heads"),
        (
            {"decoder": {"num_kv_heads": 2}},
            "config.decoder: num_heads must be a multiple of num_kv",
        ),
        ({"decoder": {"head_width": 63}}, "config.decoder: head_width must be even"),
        ({"projector": {"input_width": 768}}, "config: projector.input_width must be .* 3840"),
        ({"projector": {"output_width": 512}}, "config: projector.output_width must be .* 576"),
    ],
)
def test_invalid_values_are_refused_by_name(values, message):
    with pytest.raises(InputError, match=f"^{message}") as caught:
        TinyMUConfig.from_dict(values)
    assert "\n" not in str(caught.value)


def test_an_int_is_accepted_as_float():
    assert TinyMUConfig.from_dict({"max_seconds": 30}).max_seconds == 30.0


# Another value of each field, and what it changes.


@cache
def shapes(config):
    return {path: leaf.shape for path, leaf in flatten(expected_shapes(config))}


def refusal(config):
    try:
        return TinyMUConfig.from_dict(config.to_dict()) == config
    except InputError as error:
        return str(error)


def random_params(tree):
    """Returns deterministic random parameters without compiling anything."""
    rng = np.random.default_rng(0)
    leaves = {
        path: 0.3 * rng.standard_normal(leaf.shape, np.float32) for path, leaf in flatten(tree)
    }
    return jax.tree.map(jnp.asarray, unflatten(leaves))


@cache
def encode(config):
    log_mel = jax.random.normal(jax.random.key(1), (1, 2, 16, 80))
    return run(Matpac(config), random_params(expected_shapes(config)), log_mel)


def encoder_positions(config):
    log_mel = jnp.zeros((1, 1, 16, config.num_mels))
    made = jax.eval_shape(lambda: Matpac(config).init(jax.random.key(0), log_mel))
    return made["params"]["pos_embed"].shape


def run_projector(config, train=False):
    x, valid = jax.random.normal(jax.random.key(0), (1, 3, 80)), jnp.ones((1, 3), bool)
    model, rngs = make_projector(config), {"dropout": jax.random.key(1)}
    made = jax.eval_shape(lambda: model.init(jax.random.key(2), x, valid))
    return run(model, random_params(made["params"]), x, valid, train=train, rngs=rngs)


@cache
def run_decoder(config):
    params, tokens = random_params(expected_shapes(config)), jnp.arange(6)[None]
    return run(smollm2.SmolLM2(config), params, tokens, method=_decode_causally)


def _decode_causally(model, tokens):
    steps = tokens.shape[1]
    mask = jnp.tri(steps, dtype=bool)[None]
    return model(model.embed(tokens), 10 * jnp.arange(steps)[None], mask)[0]


def layout_of(config):
    made = sequence([2], [[5, 6]], [2], [[7]], [1], 2, config)
    return [x.tolist() for x in made]


def encoded(config):
    assistant = Assistant(config, init_params(config, 0))
    return assistant.embed(np.ones(4800, np.float32)).shape


def first_token(config):
    """Returns the first token, and whether the answer ends with it."""
    width = config.decoder.width
    audio_vectors = np.ones((1, 2, width), np.float32)
    question = PromptBatch(audio_vectors, np.array([2]), np.array([[5, 6]]), np.array([2]))
    state = prefill(
        {"decoder": random_params(expected_shapes(config.decoder))},
        question,
        np.array([True]),
        jax.random.key(0),
        (np.float32(0.8), np.float32(1.0)),
        config=config,
        max_new_slots=1,
        strategy="greedy",
    )
    return int(state.tokens[0, 0]), bool(state.done[0])


def gradient(function):
    """Returns the function's gradient, of the sum of all its outputs."""

    def summed(params, *rest):
        return sum(jnp.sum(x.astype(float)) for x in jax.tree.leaves(function(params, *rest)))

    return jax.grad(summed)


def encoding(config, transform=lambda function: function):
    """Returns the encoder's jaxpr."""
    x = jax.ShapeDtypeStruct((1, config.columns, config.patch_size, config.num_mels), jnp.float32)
    run = transform(Matpac(config).apply)
    return str(jax.make_jaxpr(run)({"params": expected_shapes(config)}, x))


def program(config, transform=lambda function: function):
    """Returns the decoder's jaxpr on a row of a group."""
    params, row = expected_shapes(config), jnp.zeros((1, 2), jnp.int32)
    x, mask = jnp.zeros((1, 2, config.width)), AttentionMask(row, causal=True)
    run = transform(smollm2.SmolLM2(config).apply)
    return str(jax.make_jaxpr(run)({"params": params}, x, row, mask))


def prefix_shape(config):
    params = expected_shapes(config)
    vectors = jax.ShapeDtypeStruct((1, 4, config.encoder.output_width), jnp.float32)
    apply = partial(TinyMU(config).apply, method="project")
    return jax.eval_shape(apply, {"params": params}, vectors, jnp.array([4]))[0].shape


def loss_of(config):
    logits = jax.random.normal(jax.random.key(0), (1, 2, 64))
    return float(label_loss(logits, jnp.array([[17, 5]]), jnp.array([2]), config))


def tags(config):
    vectors = jax.random.normal(jax.random.key(0), (1, 3, config.output_width))
    params = {"params": init_params(config, 0)}
    return Matpac(config).apply(params, vectors, method="classify").tolist()


ENCODER = SMALL.encoder
TAGGER = replace(ENCODER, head=HeadConfig("audioset", 5))
TRANSFORMER = replace(SMALL.projector, kind="transformer")


def with_head(change):
    return lambda config: change(replace(TAGGER, head=config))


def with_projector(change):
    return lambda config: change(replace(SMALL, projector=config))


CHANGES = {
    HeadConfig: {
        "kind": (TAGGER.head, "probe", with_head(shapes)),
        "num_classes": (TAGGER.head, 6, with_head(shapes)),
        "activation": (TAGGER.head, "sigmoid", with_head(tags)),
    },
    MatpacConfig: {
        "width": (ENCODER, 32, shapes),
        "depth": (ENCODER, 3, shapes),
        "num_heads": (ENCODER, 4, encode),
        "mlp_ratio": (ENCODER, 2, shapes),
        "num_mels": (ENCODER, 96, encoder_positions),
        "num_frames": (ENCODER, 48, shapes),
        "patch_size": (ENCODER, 8, shapes),
        "compute_dtype": (ENCODER, "bfloat16", encode),
        "remat": (ENCODER, "full", encoding),
        "attention": (ENCODER, "flash", encoding),
        "gradient_dtype": (ENCODER, "bfloat16", partial(encoding, transform=gradient)),
        "head": (ENCODER, HeadConfig("probe", 5), shapes),
    },
    ProjectorConfig: {
        "kind": (SMALL.projector, "residual", with_projector(shapes)),
        "input_width": (SMALL.projector, 96, with_projector(refusal)),
        "hidden_width": (SMALL.projector, 32, with_projector(shapes)),
        "output_width": (SMALL.projector, 32, with_projector(shapes)),
        "dropout": (
            replace(SMALL.projector, kind="residual"),
            0.25,
            partial(run_projector, train=True),
        ),
        "num_vectors": (TRANSFORMER, 6, with_projector(shapes)),
        "depth": (TRANSFORMER, 3, with_projector(shapes)),
        "num_heads": (TRANSFORMER, 4, run_projector),
        "mlp_ratio": (TRANSFORMER, 3, with_projector(shapes)),
    },
    SmolLM2Config: {
        "vocab_size": (SMALL.decoder, 65, shapes),
        "width": (SMALL.decoder, 24, shapes),
        "depth": (SMALL.decoder, 3, shapes),
        "num_heads": (SMALL.decoder, 4, shapes),
        "num_kv_heads": (SMALL.decoder, 2, shapes),
        "head_width": (SMALL.decoder, 16, shapes),
        "mlp_width": (SMALL.decoder, 32, shapes),
        "rope_theta": (SMALL.decoder, 100.0, run_decoder),
        "norm_eps": (SMALL.decoder, 0.1, run_decoder),
        "compute_dtype": (SMALL.decoder, "bfloat16", run_decoder),
        "remat": (SMALL.decoder, "full", program),
        "attention": (SMALL.decoder, "flash", program),
        "gradient_dtype": (SMALL.decoder, "bfloat16", partial(program, transform=gradient)),
        "lora": (SMALL.decoder, LoraConfig(rank=2), shapes),
    },
    TinyMUConfig: {
        "encoder": (SMALL, replace(ENCODER, depth=3), shapes),
        "projector": (SMALL, TRANSFORMER, shapes),
        "decoder": (SMALL, replace(SMALL.decoder, depth=3), shapes),
        "pooling": (SMALL, 2, prefix_shape),
        "max_text_tokens": (SMALL, 100, layout_of),
        "pad_token": (SMALL, 18, layout_of),
        "separator_token": (SMALL, 1, layout_of),
        "end_token": (SMALL, None, first_token),
        "max_seconds": (SMALL, 0.1, encoded),
        "ignore_pad_labels": (SMALL, False, loss_of),
    },
}


@pytest.mark.parametrize("config", CHANGES)
def test_every_field_is_in_the_table_of_changes(config):
    assert list(CHANGES[config]) == [field.name for field in fields(config)]


@pytest.mark.parametrize(
    ("config", "name"), [(config, name) for config, rows in CHANGES.items() for name in rows]
)
def test_every_field_changes_something(config, name):
    before, value, observe = CHANGES[config][name]
    result = observe(before)
    if name == "end_token":
        value = result[0]  # the first token now ends the answer
    assert observe(replace(before, **{name: value})) != result


def test_axes_of_a_projector_follow_its_kind():
    tables = [
        projector.param_axes(ProjectorConfig(k)) for k in ("linear", "residual", "transformer")
    ]
    assert len({frozenset(table) for table in tables}) == 3


def test_ten_seconds_give_63_vectors():
    config, shape = TinyMUConfig(), (1, 160_000)
    assert -(-num_frames(shape[1]) // config.encoder.patch_size) == 63
    assert config.encoder.output_width == config.projector.input_width == 3840
    assert config.projector.num_outputs(63) == 63
    assert replace(config.projector, kind="transformer").num_outputs(63) == 32
