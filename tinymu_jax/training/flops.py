"""FLOPs of a training step, without recomputation and padding.

A matmul with M weights takes 2 M FLOPs per input vector in the forward pass. The gradients of the
weights and of the input take another 2 M each, if they are needed.
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
    """FLOPs of forward and backward pass per unit of work."""

    slot: float
    """FLOPs of the decoder's layers per position."""
    label: float
    """FLOPs of the logits per answer token."""
    clip: float
    """FLOPs of encoder and projector per clip."""


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
    """Return the FLOPs of a fine-tuning step, forward and backward, without padding.

    Args:
        config: model config.
        slots: number of decoder positions in the step, including audio positions.
        labels: number of answer tokens in the step.
        clips: number of clips in the step.
        store: kind of stored features; the encoder does not run on embeddings or text.
        columns: encoder outputs per clip; default: as many as `config.max_seconds` give.
        seen: mean number of keys that a position attends to; default: a clip's audio vectors.
        frozen: regular expression for the paths of frozen parameters.
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
    """Return the FLOPs per decoder position, label and clip; arguments as in `training_flops`."""
    if columns is None:
        columns = _columns(config)
    vectors = config.projector.num_outputs(columns / config.pooling)
    seen = vectors if seen is None else seen
    clip, encoder_trained = _encoder_passes(config, store, columns, frozen)
    projector = _Part(config, "projector", frozen, encoder_trained)
    layers = config.projector.kind == "transformer"
    tokens = columns / config.pooling + (config.projector.num_vectors if layers else 0)
    clip += projector.matmul_flops(r"(?!layers/).*") * columns / config.pooling
    clip += projector.matmul_flops(r"layers/.*") * tokens
    if layers:
        width, depth = config.projector.output_width, config.projector.depth
        clip += projector.passes * 4 * depth * width * tokens**2
    if store == "text":
        clip = 0.0
    decoder, sizes = _Part(config, "decoder", frozen, projector.trained), config.decoder
    attention = 4 * sizes.depth * sizes.num_heads * sizes.head_width * seen
    slot = decoder.matmul_flops(r"body/.*") + decoder.passes * attention
    return Flops(slot, decoder.matmul_flops(r"embed_tokens/.*"), clip)


def encoder_flops(config: TinyMUConfig, frozen: str = OptimConfig.frozen_params) -> float:
    """Return the encoder's FLOPs, forward and backward, for a clip of `config.max_seconds`."""
    return _encoder_passes(config, "log_mel", _columns(config), frozen)[0]


def encoder_attention(config: TinyMUConfig, columns: float | None = None) -> float:
    """Return the forward FLOPs of the encoder's attention for a clip, without the projections.

    `columns` is the clip's number of patches along time; default: for `config.max_seconds`.
    """
    _, pairs = _patches(config.encoder, _columns(config) if columns is None else columns)
    return 4 * config.encoder.depth * config.encoder.width * pairs


def _columns(config: TinyMUConfig) -> int:
    """Return the number of patches along time of a clip of `config.max_seconds`."""
    frames = num_frames(int(config.max_seconds * SAMPLE_RATE))
    return -(-frames // config.encoder.patch_size)


def pretraining_flops(config: SelfSupervisedConfig) -> float:
    """Return a pre-training step's FLOPs per crop: student, teacher, predictor and heads."""
    encoder, predictor, head = config.encoder, config.predictor, config.class_head
    width, masked = encoder.width, config.patches - config.visible

    def blocks(sizes: MatpacConfig | PredictorConfig, tokens: int) -> float:
        matrices = sizes.width**2 * (4 + 2 * sizes.mlp_ratio)
        return sizes.depth * tokens * (2 * matrices + 4 * sizes.width * tokens)

    classes = 2 * head.hidden_width * (width + head.hidden_width)
    classes = masked * (classes + 2 * head.bottleneck * (head.hidden_width + head.num_classes))
    heads = 2 * masked * predictor.hypotheses * predictor.width * width
    embed = 2 * (1 + config.visible) * width * predictor.width
    prediction = blocks(predictor, 1 + config.patches) + embed + heads
    student = blocks(encoder, 1 + config.visible) + prediction + classes
    teacher = blocks(encoder, 1 + masked) + classes
    # The patch embedding's input needs no gradient.
    patches = 2 * config.patches * encoder.patch_size**2 * width
    return 3 * student + teacher + 2 * patches


def _encoder_passes(
    config: TinyMUConfig, store: FeatureKind, columns: float, frozen: str
) -> tuple[float, bool]:
    """Return the encoder's FLOPs per clip, and whether any of its parameters is trained."""
    if store in ("embeddings", "text"):
        return 0.0, False
    part = _Part(config, "encoder", frozen, False)
    tokens, _ = _patches(config.encoder, columns)
    attention = part.passes * encoder_attention(config, columns)
    return part.matmul_flops(r"(?!head/|log_mel/).*") * tokens + attention, part.trained


def _patches(encoder: MatpacConfig, columns: float) -> tuple[float, float]:
    """Return the number of encoder tokens of a clip, and of query-key pairs in one layer.

    The clip has `columns` patches along time. Each chunk of the clip has a class token and attends
    only to itself.
    """
    full, rest = divmod(columns, encoder.columns)
    chunks = [encoder.columns] * int(full) + ([rest] if rest else [])
    lengths = [1 + encoder.rows * chunk for chunk in chunks]
    return sum(lengths), sum(length**2 for length in lengths)


class _Part:
    """FLOPs of one part of the model: encoder, projector or decoder.

    `trained` tells whether this or an earlier part is trained. Attention scores and sums cost
    `passes` times their forward FLOPs: 3 with a backward pass, else 1.
    """

    def __init__(self, config: TinyMUConfig, part: str, frozen: str, before: bool) -> None:
        """Read the sizes of the weight matrices of `part`.

        `frozen` is the regular expression for frozen parameters. `before` tells whether an earlier
        part is trained, so that this part must return a gradient of its input.
        """
        self.sizes = {
            path.removeprefix(f"{part}/"): (size, re.fullmatch(frozen, path) is None)
            for path, size in _matrices(config).items()
            if path.startswith(f"{part}/")
        }
        self.trained = before or any(trained for _, trained in self.sizes.values())
        self.before = before
        self.passes = 3 if self.trained else 1

    def matmul_flops(self, pattern: str) -> float:
        """Return FLOPs per input vector, forward and backward, of matrices that match `pattern`."""
        total = 0.0
        for path, (size, trained) in self.sizes.items():
            if re.fullmatch(pattern, path):
                # The part's first matrix needs a gradient of its input only if `before` is set.
                first = re.match(r"linear1?/|patch_embed/", path) is not None
                to_input = self.before if first else self.trained
                total += 2 * size * (1 + trained + to_input)
        return total


@cache
def _matrices(config: TinyMUConfig) -> dict[str, int]:
    """Return the number of parameters of each weight matrix, summed over layers, by path."""
    from tinymu_jax.checkpoints.checkpoint import expected_shapes

    return {
        path: math.prod(leaf.shape)
        for path, leaf in flatten(expected_shapes(config))
        if re.search(r"(kernel|embedding|lora/[ab])$", path)
    }
