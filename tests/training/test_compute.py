"""How a step is computed on a device: kernels of attention by platform and dtype, loss scaling."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import refusal

from tinymu_jax.models.config import MatpacConfig, SmolLM2Config
from tinymu_jax.models.matmul import matmul
from tinymu_jax.training import train_step
from tinymu_jax.training.compute import decoder_options, encoder_options
from tinymu_jax.training.config import ComputeConfig, StepConfig
from tinymu_jax.training.losses import LossSum
from tinymu_jax.training.train_step import init_state, make_train_step


class Device:
    def __init__(self, platform, device_kind, compute_capability=None):
        self.platform, self.device_kind = platform, device_kind
        if compute_capability:
            self.compute_capability = compute_capability


CPU = Device("cpu", "cpu")
TPU = Device("tpu", "TPU v5 lite")
T4 = Device("gpu", "Tesla T4", "7.5")
H100 = Device("gpu", "NVIDIA H100 80GB HBM3", "9.0")
MI250 = Device("gpu", "AMD Instinct MI250X", "gfx90a")

# --- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "dtype", "kind"),
    [
        (CPU, "float32", "reference"),
        (CPU, "bfloat16", "reference"),
        (TPU, "float32", "reference"),
        (TPU, "bfloat16", "flash"),
        (T4, "float16", "reference"),
        (H100, "float32", "reference"),
        (H100, "float16", "cudnn"),
        (H100, "bfloat16", "cudnn"),
        (MI250, "bfloat16", "reference"),
    ],
)
def test_auto_takes_what_the_device_has(device, dtype, kind):
    step = StepConfig(decoder_dtype=dtype, remat="full", gradient_dtype="bfloat16")
    expected = {"compute_dtype": dtype, "remat": "full", "attention": kind}
    expected["gradient_dtype"] = "bfloat16"
    assert decoder_options(step, device, SmolLM2Config()) == expected
    assert encoder_options(step, device, MatpacConfig())["attention"] == "reference"


@pytest.mark.parametrize(
    ("kind", "device", "dtype", "message"),
    [
        ("flash", CPU, "bfloat16", "is a kernel for TPUs, and this device is cpu; train on a TPU"),
        ("flash", TPU, "float32", "step.encoder-dtype is float32; set it to bfloat16"),
        ("cudnn", TPU, "bfloat16", "runs on NVIDIA GPUs, and this device is TPU v5 lite"),
        ("cudnn", T4, "float16", "needs compute capability 8.0, and Tesla T4 has 7.5"),
        ("cudnn", MI250, "bfloat16", "AMD Instinct MI250X has gfx90a"),
        ("cudnn", H100, "float32", "step.encoder-dtype is float32; set it to bfloat16"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(kind, device, dtype, message):
    step = ComputeConfig(encoder_dtype=dtype, attention=kind)
    said = refusal(encoder_options, step, device, MatpacConfig())
    assert said.startswith(f"step.attention {kind}: ")
    assert message in said
    assert said.endswith(", or set step.attention to auto")


def test_heads_that_cudnn_does_not_take_are_computed_by_xla():
    model = SmolLM2Config(head_width=20)
    step = StepConfig(decoder_dtype="bfloat16")
    assert decoder_options(step, H100, model)["attention"] == "reference"
    said = refusal(decoder_options, replace(step, attention="cudnn"), H100, model)
    assert "multiple of 8, at most 128, and this model's is 20" in said


def test_float16_is_refused_on_tpus():
    said = refusal(decoder_options, StepConfig(decoder_dtype="float16"), TPU, SmolLM2Config())
    assert said == "step.decoder-dtype float16: TPUs compute in bfloat16; set bfloat16"


def test_gradients_of_weights_are_rounded_if_asked():
    x, kernel = jax.random.normal(jax.random.key(0), (2, 16, 8)), jnp.ones((8, 4))

    def gradient(dtype):
        return jax.grad(lambda k: (matmul(x, k, "float32", dtype) ** 2).sum())(kernel)

    exact, rounded = gradient("float32"), gradient("bfloat16")
    assert rounded.dtype == jnp.float32
    np.testing.assert_array_equal(rounded, rounded.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(rounded, exact, rtol=2**-8)
    assert (rounded != exact).any()


# --- loss scaling --------------------------------------------------------------------------------


def half_precision_loss(params, frozen, batch, context):
    """Weight times input, whose gradient passes through float16."""
    product = params["weight"].astype(jnp.float16) * batch.astype(jnp.float16)
    return LossSum(product.astype(jnp.float32).sum(), jnp.float32(1))


def start(monkeypatch, interval=3):
    monkeypatch.setattr(train_step, "GROWTH_INTERVAL", interval)
    optimizer = optax.adam(0.1)
    step = jax.jit(make_train_step(half_precision_loss, optimizer))
    return step, init_state({"weight": jnp.ones(1)}, optimizer, loss_scaling=True)


def test_the_loss_scale_grows_after_good_steps_and_is_halved_by_an_overflow(monkeypatch):
    step, state = start(monkeypatch)
    scales, skipped, weights = [], [], []
    # Times 2,048 the input 40, and times 1,024 the input 100, are more than float16 holds.
    for value in (1.0, 1.0, 1.0, 40.0, 1.0, 100.0):
        state, metrics = step(state, {}, jnp.full((1, 1), value))
        scales.append(float(metrics.aux["loss_scale"]))
        skipped.append(int(metrics.aux["skipped_steps"]))
        weights.append(float(state.params["weight"][0]))
        assert np.isfinite(float(metrics.gradient_norm))
    first = train_step.FIRST_LOSS_SCALE
    assert scales == [first, first, 2 * first, first, first, first / 2]
    assert skipped == [0, 0, 0, 1, 1, 2]
    assert weights[3] == weights[2]
    assert weights[5] == weights[4] < weights[3]
    assert int(state.step) == 6
    # A skipped step leaves Adam's moments and count alone.
    assert int(state.opt_state[0].count) == 4


def test_a_run_whose_gradients_never_are_finite_fails(monkeypatch):
    monkeypatch.setattr(train_step, "LOWEST_LOSS_SCALE", train_step.FIRST_LOSS_SCALE / 4)
    step, state = start(monkeypatch)
    norms = []
    for _ in range(4):
        state, metrics = step(state, {}, jnp.full((1, 1), 1e4))
        norms.append(float(metrics.gradient_norm))
    assert norms[:2] == [0, 0]
    # The trainer ends a run whose metrics are not finite.
    assert not np.isfinite(norms[2:]).any()
    assert float(state.params["weight"][0]) == 1


def test_the_scale_does_not_change_a_gradient(monkeypatch):
    step, state = start(monkeypatch)
    _, metrics = step(state, {}, jnp.full((1, 1), 0.125))
    assert float(metrics.gradient_norm) == 0.125
    assert float(metrics.loss) == 0.125


def test_gradients_too_small_for_float16_survive(monkeypatch):
    def small(params, frozen, batch, context):
        # Without a scale, 2e-8 is 0 in float16.
        product = params["weight"].astype(jnp.float16) * batch.astype(jnp.float16)
        return LossSum(product.astype(jnp.float32).sum() * 2e-8, jnp.float32(1))

    optimizer = optax.sgd(1.0)
    results = []
    for scaling in (False, True):
        state = init_state({"weight": jnp.ones(1)}, optimizer, loss_scaling=scaling)
        step = jax.jit(make_train_step(small, optimizer))
        results.append(float(step(state, {}, jnp.ones((1, 1)))[1].gradient_norm))
    assert results[0] == 0
    assert results[1] == pytest.approx(2e-8, rel=5e-3)
