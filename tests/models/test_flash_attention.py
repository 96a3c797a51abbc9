"""The fused kernel, interpreted, against the reference: outputs, gradients, all kinds of masks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinymu_jax.mesh import MeshConfig, make_mesh
from tinymu_jax.models import attention
from tinymu_jax.models.attention import attend, self_attention
from tinymu_jax.models.attention_mask import AttentionMask
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.models.flash_attention import flash_attention, flash_mask
from tinymu_jax.models.packing import PackedGroup, PackedQuestion, PackingConfig, build_block
from tinymu_jax.models.sequence import packed_mask

CONFIG = TinyMUConfig()


def packed_rows(questions, length=256, rows=3):
    """Rows of two clips with some questions each; the last row stays empty.

    Every second question has answer options side by side.
    """
    rng = np.random.default_rng(questions)

    def ids(count):
        return rng.integers(20, 400, count).tolist()

    groups = []
    for clip in range(2):
        several = [
            PackedQuestion(ids(5 + n), ids(3), [ids(2), ids(4)] if n % 2 else [])
            for n in range(questions)
        ]
        groups.append(PackedGroup(clip * (rows - 2), clip, 20, several))
    packing = PackingConfig(row_length=length, rows=rows, max_clips=2, max_labels=200)
    return packed_mask(build_block(groups, packing, CONFIG, compare=True).rows)


def random_mask(rng, rows, length, causal):
    """A mask that no packing makes: any ids, hidden keys, and queries without a visible key."""
    group = np.sort(rng.integers(0, rng.integers(2, 9), (rows, length)), 1)
    levels = tuple(rng.integers(0, 4, (2, rows, length)))
    return AttentionMask(group, levels, rng.random((rows, length)) < 0.8, causal)


def arrays(heads, kv_heads, rows, length, width, dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = (rows, length, heads, width), *2 * ((rows, kv_heads, length, width),)
    made = [jax.random.normal(k, s).astype(dtype) for k, s in zip(keys, shapes, strict=False)]
    return made, jax.random.normal(keys[3], (rows, length, heads * width))


@partial(jax.jit, static_argnames="dtype")
def both(qkv, weight, mask, dtype="float32"):
    """Outputs and gradients of kernel and reference; what queries without keys give is left out."""
    dense = mask.dense()
    weight = weight * dense.any(-1, keepdims=True)

    def run(function, qkv):
        def summed(qkv):
            out = function(*qkv)
            return (out * weight).sum(), out * (weight != 0)

        (_, out), gradients = jax.value_and_grad(summed, has_aux=True)(qkv)
        return [out, *gradients]

    kernel = run(lambda q, k, v: flash_attention(q, k, v, flash_mask(mask)), qkv)
    return kernel, run(lambda q, k, v: attend(q, k, v, dense, dtype), qkv)


def error(actual, expected):
    """Largest difference, relative to the largest number expected."""
    actual, expected = (np.asarray(x, np.float32) for x in (actual, expected))
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (15, 5)])
@pytest.mark.parametrize("questions", [1, 3, 7])
def test_packed_rows_equal_the_reference(questions, heads, kv_heads):
    qkv, weight = arrays(heads, kv_heads, 3, 256, 8)
    kernel, reference = both(qkv, weight, packed_rows(questions))
    for actual, expected in zip(kernel, reference, strict=True):
        assert error(actual, expected) < 1e-5


def test_random_packings_equal_the_reference():
    rng = np.random.default_rng(0)
    for seed in range(20):
        qkv, weight = arrays(2, 1, 2, 384, 8, seed=seed)
        kernel, reference = both(qkv, weight, random_mask(rng, 2, 384, causal=True))
        for actual, expected in zip(kernel, reference, strict=True):
            assert error(actual, expected) < 1e-5


@pytest.mark.parametrize("length", [58, 311])
def test_encoders_of_any_length_equal_the_reference(length):
    # Chunks of a sequence are mixed, and their ids begin at -1, as in `Matpac`.
    rng = np.random.default_rng(0)
    qkv, weight = arrays(4, 4, 2, length, 8)
    mask = AttentionMask(rng.integers(-1, 3, (2, length)))
    kernel, reference = both(qkv, weight, mask)
    for actual, expected in zip(kernel, reference, strict=True):
        assert error(actual, expected) < 1e-5


def test_bfloat16_is_as_exact_as_the_reference_in_bfloat16():
    qkv, weight = arrays(3, 1, 3, 256, 64, jnp.bfloat16)
    mask = packed_rows(7)
    kernel, reference = both(qkv, weight, mask, "bfloat16")
    exact = both([x.astype(jnp.float32) for x in qkv], weight, mask)[1]
    for actual, rounded, expected in zip(kernel, reference, exact, strict=True):
        assert error(actual, expected) < 1.5 * max(error(rounded, expected), 2**-9)


def test_a_query_without_keys_gives_zeros_and_no_gradient():
    mask = AttentionMask(np.zeros((1, 128), int), (), np.arange(128)[None] >= 64, causal=True)
    (query, key, value), _ = arrays(2, 1, 1, 128, 8)
    out, pull = jax.vjp(lambda *qkv: flash_attention(*qkv, flash_mask(mask)), query, key, value)
    assert not np.asarray(out)[:, :64].any()
    gradients = pull(jnp.ones_like(out))
    assert not np.asarray(gradients[0])[:, :64].any()
    assert all(np.isfinite(x).all() for x in map(np.asarray, gradients))


def test_key_blocks_before_a_group_are_skipped():
    group = np.repeat([[0, 1, 2]], 256, 1).reshape(1, -1)
    mask = flash_mask(AttentionMask(np.sort(group, 1), causal=True))
    assert mask.block == 256
    assert mask.bounds[0].tolist() == [[0, 1], [1, 2], [2, 3]]


@pytest.mark.parametrize("sizes", [(2, 2, 2), (4, 1, 2), (8, 1, 1)])
def test_devices_of_a_mesh_share_rows_and_heads(sizes):
    # Eight devices cannot share four rows evenly: then each of them computes all.
    qkv, weight = arrays(6, 2, 4, 128, 8)
    mask = random_mask(np.random.default_rng(1), 4, 128, causal=True)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[:8])

    def summed(qkv):
        out = self_attention(*qkv, flash_mask(mask), "flash", "float32", causal=True)
        return (out * weight).sum()

    run = jax.jit(jax.value_and_grad(summed))
    expected = run(qkv)
    with jax.set_mesh(mesh):
        actual = run(qkv)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert error(one, other) < 1e-5


@pytest.mark.parametrize("length", [64, 65])
@pytest.mark.parametrize("masked", [True, False])
def test_what_cudnn_is_given_is_the_same_attention(length, masked, monkeypatch):
    # Without a GPU: XLA takes the place of cuDNN, which would refuse an odd length.
    lengths = []

    def compute(query, *rest, implementation, **options):
        lengths.append(query.shape[1])
        return jax.nn.dot_product_attention(query, *rest, implementation=implementation, **options)

    monkeypatch.setattr(attention, "CUDNN", "xla")
    monkeypatch.setattr(attention, "dot_product_attention", compute)
    qkv, weight = arrays(6, 2, 2, length, 8)
    rows = random_mask(np.random.default_rng(2), 2, length, causal=True)
    mask = jnp.asarray(rows.dense()) if masked else None
    weight = weight if mask is None else weight * mask.any(-1, keepdims=True)

    def summed(kind):
        def run(qkv):
            return (self_attention(*qkv, mask, kind, "float32", causal=masked) * weight).sum()

        return jax.value_and_grad(run)(qkv)

    actual, expected = summed("cudnn"), summed("reference")
    assert set(lengths) == {length + length % 2}
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert error(one, other) < 1e-5
