"""How many operations a training step needs: what is computed again, or on padding, does not count.

A product with a matrix of M numbers takes 2 M operations for each vector on the way forward, and as
many for each of its two gradients, if they are needed.
"""

import math
import re
from functools import cache
from typing import NamedTuple

from tinymu_jax.audio.log_mel import SAMPLE_RATE, num_frames
from tinymu_jax.data.config import FeatureKind
from tinymu_jax.models.config import (
    MatpacConfig,
    PredictorConfig,
    SelfSupervisedConfig,
    TinyMUConfig,
)
from tinymu_jax.training.config import OptimConfig
from tinymu_jax.utils.tree import flatten


class Flops(NamedTuple):
    """What each piece of work costs, forward and backward, at 2 for a multiplication and a sum."""

    slot: float
    """A slot of the decoder: its layers' products and its attention."""
    label: float
    """A slot that gets scores over the vocabulary."""
    clip: float
    """A clip: encoder and projector."""


def training_flops(
    config: TinyMUConfig,
    slots: float,
    labels: float,
    clips: float,
    store: FeatureKind = "log_mel",
    columns: float | None = None,
    seen: float | None = None,
    frozen: str = OptimConfig.frozen_params,
) -> float:
    """Returns the operations of a step by what it really computes, padding left out.

    Args:
        config: of the model.
        slots: of the decoder that hold something, audio included.
        labels: answer tokens.
        clips: that are heard.
        store: what the data set holds; with embeddings there is no encoder in the step.
        columns: audio vectors of a clip; default as many as `config.max_seconds` give.
        seen: keys that a slot looks at, on average; default its clip's audio alone.
        frozen: paths of weights that do not learn (`optim.frozen-params`).
    """
    cost = flops_of(config, store, columns, seen, frozen)
    return cost.slot * slots + cost.label * labels + cost.clip * clips


@cache
def flops_of(
    config: TinyMUConfig,
    store: FeatureKind = "log_mel",
    columns: float | None = None,
    seen: float | None = None,
    frozen: str = OptimConfig.frozen_params,
) -> Flops:
    """Returns what each piece of work costs; arguments as `training_flops`."""
    if columns is None:
        columns = _columns(config)
    vectors = config.projector.num_outputs(columns / config.pooling)
    seen = vectors if seen is None else seen
    encoding, heard = _encoder_passes(config, store, columns, frozen)
    bridge = _Part(config, "projector", frozen, heard)
    layers = config.projector.kind == "transformer"
    inside = columns / config.pooling + (config.projector.num_vectors if layers else 0)
    clip = encoding + bridge.matmul_flops(r"(?!layers/).*") * columns / config.pooling
    clip += bridge.matmul_flops(r"layers/.*") * inside
    if layers:
        width, depth = config.projector.output_width, config.projector.depth
        clip += bridge.backward_passes * 4 * depth * width * inside**2
    if store == "text":
        clip = 0.0
    decoder, sizes = _Part(config, "decoder", frozen, bridge.learns), config.decoder
    attention = 4 * sizes.depth * sizes.num_heads * sizes.head_width * seen
    slot = decoder.matmul_flops(r"body/.*") + decoder.backward_passes * attention
    return Flops(slot, decoder.matmul_flops(r"embed_tokens/.*"), clip)


def encoder_flops(config: TinyMUConfig, frozen: str = OptimConfig.frozen_params) -> float:
    """Returns the encoder's operations for a clip of `config.max_seconds` that it learns from."""
    return _encoder_passes(config, "log_mel", _columns(config), frozen)[0]


def encoder_attention(config: TinyMUConfig, columns: float | None = None) -> float:
    """Returns the operations of the encoder's attention for a clip, forward.

    Args:
        config: of the model.
        columns: of patches; default as many as `config.max_seconds` give.
    """
    _, pairs = _patches(config.encoder, _columns(config) if columns is None else columns)
    return 4 * config.encoder.depth * config.encoder.width * pairs


def _columns(config: TinyMUConfig) -> int:
    """Returns the columns of patches of a clip of `config.max_seconds`."""
    frames = num_frames(int(config.max_seconds * SAMPLE_RATE))
    return -(-frames // config.encoder.patch_size)


def pretraining_flops(config: SelfSupervisedConfig) -> float:
    """Returns the operations of pre-training for a crop: student, teacher, predictor and heads."""
    encoder, own, head = config.encoder, config.predictor, config.class_head
    width, masked = encoder.width, config.patches - config.visible

    def blocks(sizes: MatpacConfig | PredictorConfig, tokens: int) -> float:
        matrices = sizes.width**2 * (4 + 2 * sizes.mlp_ratio)
        return sizes.depth * tokens * (2 * matrices + 4 * sizes.width * tokens)

    classes = 2 * head.hidden_width * (width + head.hidden_width)
    classes = masked * (classes + 2 * head.bottleneck * (head.hidden_width + head.num_classes))
    heads = 2 * masked * own.hypotheses * own.width * width
    told = blocks(own, 1 + config.patches) + 2 * (1 + config.visible) * width * own.width + heads
    learnt = blocks(encoder, 1 + config.visible) + told + classes
    taught = blocks(encoder, 1 + masked) + classes
    # The first matrix's input is no weight's work.
    patches = 2 * config.patches * encoder.patch_size**2 * width
    return 3 * learnt + taught + 2 * patches


def _encoder_passes(
    config: TinyMUConfig, store: FeatureKind, columns: float, frozen: str
) -> tuple[float, bool]:
    """Returns the encoder's operations for a clip, and whether its vectors get a gradient."""
    if store in ("embeddings", "text"):
        return 0.0, False
    part = _Part(config, "encoder", frozen, False)
    tokens, _ = _patches(config.encoder, columns)
    attention = part.backward_passes * encoder_attention(config, columns)
    return part.matmul_flops(r"(?!head/|log_mel/).*") * tokens + attention, part.learns


def _patches(encoder: MatpacConfig, columns: float) -> tuple[float, float]:
    """Returns a clip's patches with a class token for each chunk, and the pairs that attend."""
    whole, rest = divmod(columns, encoder.columns)
    chunks = [encoder.columns] * int(whole) + ([rest] if rest else [])
    lengths = [1 + encoder.rows * chunk for chunk in chunks]
    return sum(lengths), sum(length**2 for length in lengths)


class _Part:
    """The matrices of a part of the model, and which of them learn."""

    def __init__(self, config: TinyMUConfig, part: str, frozen: str, before: bool) -> None:
        """`before`: whether something that leads to its input learns."""
        self.sizes = {
            path.removeprefix(f"{part}/"): (size, re.fullmatch(frozen, path) is None)
            for path, size in _matrices(config).items()
            if path.startswith(f"{part}/")
        }
        self.learns = before or any(learns for _, learns in self.sizes.values())
        self.before = before
        self.backward_passes = 3 if self.learns else 1

    def matmul_flops(self, pattern: str) -> float:
        """Returns the operations for one vector that meets the matrices whose paths match."""
        total = 0.0
        for path, (size, learns) in self.sizes.items():
            if re.fullmatch(pattern, path):
                # The first matrix's input needs a gradient only if something before it learns.
                first = re.match(r"linear1?/|patch_embed/", path) is not None
                to_input = self.before if first else self.learns
                total += 2 * size * (1 + learns + to_input)
        return total


@cache
def _matrices(config: TinyMUConfig) -> dict[str, int]:
    """Returns the numbers of every matrix, all layers together, by its path."""
    from tinymu_jax.checkpoints.checkpoint import expected_shapes

    return {
        path: math.prod(leaf.shape)
        for path, leaf in flatten(expected_shapes(config))
        if re.search(r"(kernel|embedding|lora/[ab])$", path)
    }
