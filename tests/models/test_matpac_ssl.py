"""Pre-training matches the authors' golden numbers, and plain PyTorch at every step."""

import json
import shutil
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_axes

from tinymu_jax.checkpoints.checkpoint import Checkpoint
from tinymu_jax.checkpoints.pytorch.matpac_ssl import from_published, to_published
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matmul import matmul
from tinymu_jax.models.matpac_ssl import losses
from tinymu_jax.models.matpac_ssl import teacher as schedules
from tinymu_jax.models.matpac_ssl.losses import patch_order, random_patch_orders
from tinymu_jax.models.matpac_ssl.metrics import collapse_warning, step_metrics
from tinymu_jax.models.matpac_ssl.student_teacher import init_params, init_teacher, ssl_loss
from tinymu_jax.models.matpac_ssl.teacher import TeacherState, ema_update
from tinymu_jax.utils.tree import flatten

STEPS = 294_816
KINDS = ["mcl", "single"]
NEAR = {"rtol": 0, "atol": 1e-4}


class Case(NamedTuple):
    """A published training checkpoint and the golden results of a step."""

    config: SelfSupervisedConfig
    params: dict
    teaching: TeacherState
    content: dict
    log_mel: jax.Array
    order: jax.Array
    golden: dict


@pytest.fixture(scope="module", params=KINDS)
def case(request, golden_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("ssl") / f"matpac_ssl_{request.param}_tiny.pt"
    shutil.copy(golden_dir / path.name, path)
    inputs = json.loads((golden_dir / "matpac_ssl_tiny.json").read_text())
    sizes = {
        "encoder": {"num_heads": inputs["encoder"]["num_heads"]},
        "predictor": {"num_heads": inputs["predictor"]["decoder_num_heads"]},
    }
    path.with_suffix(".json").write_text(json.dumps(sizes))
    content = read_torch_file(path)["model"]
    config, params = from_published(path)[:2]
    with np.load(golden_dir / "matpac_ssl_tiny.npz") as file:
        start = f"{request.param}/2000/"
        golden = {name.removeprefix(start): file[name] for name in file if name.startswith(start)}
    params = jax.tree.map(jnp.asarray, params)
    teaching = TeacherState(params.pop("teacher"), params.pop("centre"))
    log_mel = jnp.asarray(golden["source"]).swapaxes(1, 2)
    order = patch_order(jnp.asarray(golden["noise"]))
    return Case(config, params, teaching, content, log_mel, order, golden)


def one_step(case, step, log_mel=None, order=None):
    """Returns the loss, the output, the gradient and the updated teacher."""
    log_mel = case.log_mel if log_mel is None else log_mel
    order = case.order if order is None else order
    return _one_step(case.params, case.teaching, log_mel, order, jnp.int32(step), case.config)


@partial(jax.jit, static_argnums=5)
def _one_step(params, teaching, log_mel, order, step, config):
    def total(params):
        seen = ssl_loss(params, teaching, log_mel, order, step, config)
        share = config.class_loss_weight
        return share * seen.class_loss.mean() + (1 - share) * seen.prediction_loss.mean(), seen

    (lost, seen), gradient = jax.value_and_grad(total, has_aux=True)(params)
    reported = seen.sums.teacher_probs[0] / seen.class_loss.size
    return lost, seen, gradient, ema_update(teaching, params, reported, step, STEPS, config)


# --- the authors' numbers ----------------------------------------------------------------------


def test_losses_of_each_patch(case):
    lost, seen, _, _ = one_step(case, 2000)
    np.testing.assert_allclose(seen.prediction_loss.reshape(-1), case.golden["loss_pred"], **NEAR)
    np.testing.assert_allclose(seen.class_loss.reshape(-1), case.golden["loss_cls"], **NEAR)
    assert float(lost) == pytest.approx(float(case.golden["total"]), abs=1e-4)


def test_gradients_teachers_and_centre(case):
    _, _, gradient, after = one_step(case, 2000)
    result = to_published(Checkpoint(case.config, gradient | after._asdict()))["model"]
    checked = 0
    for name, expected in case.golden.items():
        kind, _, key = name.partition("/")
        place = {"grad": result, "teacher_after": result["_ema"]}
        place["cls_teacher_after"] = result["_cls_head_ema"]
        if kind in place:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(place[kind][key], expected, rtol=0, atol=1e-4 * scale)
            checked += 1
    assert checked == 11
    np.testing.assert_allclose(result["cls_head_loss.center"], case.golden["center_after"], **NEAR)


def test_a_training_checkpoint_comes_back_bit_for_bit(case):
    whole = case.params | case.teaching._asdict()
    back = to_published(Checkpoint(case.config, whole))["model"]
    assert set(back) == set(case.content)
    for key, value in case.content.items():
        part = value if isinstance(value, dict) else {key: value}
        result = back[key] if isinstance(value, dict) else back
        for name, weight in part.items():
            assert result[name].dtype == weight.dtype
            np.testing.assert_array_equal(result[name], weight)


# --- plain PyTorch, at every step --------------------------------------------------------------


@pytest.fixture(scope="module")
def module(case):
    """The same weights as torch modules."""
    torch = pytest.importorskip("torch")
    from oracles import matpac_ssl as ssl_oracle

    part = case.config
    made = ssl_oracle.SelfSupervised(
        {"embed_dim": part.encoder.width, "depth": part.encoder.depth, "num_heads": 2}
        | {"mlp_ratio": part.encoder.mlp_ratio},
        {"decoder_embed_dim": part.predictor.width, "decoder_depth": part.predictor.depth}
        | {"decoder_num_heads": 4, "mlp_ratio": part.predictor.mlp_ratio},
        {
            "head_dim_out": part.class_head.num_classes,
            "hidden_dim": part.class_head.hidden_width,
            "bottleneck_dim": part.class_head.bottleneck,
        },
        part.predictor.hypotheses,
        part.encoder.num_frames,
    )

    def as_tensors(content):
        return {
            key: as_tensors(value) if isinstance(value, dict) else torch.from_numpy(value.copy())
            for key, value in content.items()
        }

    return made, as_tensors(case.content)


# The annealing ends between 230,255 and 230,256; the teacher's warm-up at 9,827.
@pytest.mark.parametrize(
    "step", [0, 1, 9_826, 9_827, 150_000, 230_255, 230_256, STEPS - 1, STEPS, STEPS + 5000]
)
def test_steps_match_pytorch(case, module, step):
    import torch

    made, content = module
    made.load_published(content)
    made.zero_grad(set_to_none=True)
    image = torch.from_numpy(np.array(case.log_mel.swapaxes(1, 2)))
    order = torch.from_numpy(np.array(case.order)).long()
    prediction, classes, reported = made(image, order, step)
    (0.5 * prediction.mean() + 0.5 * classes.mean()).backward()
    made.teach(reported, step, STEPS)

    _, seen, gradient, after = one_step(case, step)
    np.testing.assert_allclose(seen.prediction_loss, prediction.detach(), **NEAR)
    np.testing.assert_allclose(seen.class_loss, classes.detach(), **NEAR)
    result = to_published(Checkpoint(case.config, gradient | after._asdict()))["model"]
    for name, weight in made.named_parameters():
        if weight.requires_grad and weight.grad is not None:
            scale = max(float(weight.grad.abs().max()), 1e-3)
            np.testing.assert_allclose(
                result[name], weight.grad, rtol=0, atol=2e-4 * scale, err_msg=name
            )
    for key, teacher in (("_ema", made.teacher), ("_cls_head_ema", made.class_teacher)):
        for name, weight in teacher.state_dict().items():
            np.testing.assert_allclose(result[key][name], weight, rtol=0, atol=1e-6, err_msg=name)
    centre = made.cls_head_loss.center
    np.testing.assert_allclose(result["cls_head_loss.center"], centre, rtol=0, atol=1e-6)


def test_only_trained_params_have_gradients(case):
    _, _, gradient, _ = one_step(case, 2000)
    still = {
        path
        for path, leaf in flatten(gradient)
        if not np.abs(leaf).max() > 0 and "log_mel" not in path
    }
    several = case.config.predictor.hypotheses > 1
    assert still == ({"predictor/single/kernel", "predictor/single/bias"} if several else set())


# --- pieces ------------------------------------------------------------------------------------


def test_patch_order_sorts_by_noise():
    noise = jnp.asarray([[0.3, 0.1, 0.9, 0.2]])
    assert patch_order(noise).tolist() == [[1, 3, 0, 2]]
    drawn = random_patch_orders(jax.random.key(0), 3, 190)
    assert np.array_equal(np.sort(drawn, axis=1), np.tile(np.arange(190), (3, 1)))
    assert not np.array_equal(drawn[0], drawn[1])


def test_published_crops_have_57_visible_patches_of_190():
    config = SelfSupervisedConfig()
    assert (config.patches, config.visible) == (190, 57)


@pytest.mark.parametrize("kind", ["silence", "constant", "loud"])
def test_silence_and_constant_signals_have_finite_losses_and_gradients(case, kind):
    value = {"silence": -2.1, "constant": 0.7, "loud": 50.0}[kind]
    lost, _, gradient, after = one_step(case, 0, jnp.full_like(case.log_mel, value))
    assert np.isfinite(lost)
    for path, leaf in flatten(gradient | after._asdict()):
        assert np.isfinite(leaf).all(), path


def test_normalizing_zeros_gives_no_nan():
    result, gradient = jax.value_and_grad(lambda x: losses.normalize(x).sum())(jnp.zeros((2, 3)))
    assert result == 0
    assert np.isfinite(gradient).all()


def test_dino_centres_logits(case):
    # A second derivation: the mean of the teacher's logits, by hand.
    _, seen, _, _ = one_step(case, 2000)
    count = seen.class_loss.size
    logits = seen.sums.teacher_logits / count
    temperature = float(schedules.teacher_temperature(case.config, 2000))
    shifted = (logits - case.teaching.centre) / temperature
    assert not np.allclose(jax.nn.softmax(shifted), seen.sums.teacher_probs[0] / count)
    assert seen.sums.teacher_probs[0].sum() == pytest.approx(count, rel=1e-4)


def test_initial_teacher_is_as_published():
    config = SelfSupervisedConfig.from_dict(
        {
            "encoder": {"width": 32, "depth": 1, "num_heads": 2, "num_frames": 64},
            "predictor": {"width": 16, "depth": 1, "num_heads": 2},
            "class_head": {"hidden_width": 64, "bottleneck": 16, "num_classes": 24},
        }
    )
    params = init_params(config, 0)
    teaching = init_teacher(config, params, 0)
    kernel = "transformer/blocks/attn/qkv/kernel"
    student, teacher = (
        np.asarray(dict(flatten(tree))[kernel])
        for tree in (params["encoder"], teaching.teacher["encoder"])
    )
    # Another draw of the same spread.
    assert np.abs(np.corrcoef(student.reshape(-1), teacher.reshape(-1))[0, 1]) < 0.1
    assert np.std(student) == pytest.approx(np.std(teacher), rel=0.05)
    assert float(np.std(teaching.teacher["class_head"]["fc1"]["kernel"])) == pytest.approx(
        0.02, rel=0.1
    )
    bound = np.sqrt(6 / (32 + 64))
    assert bound * 0.9 < np.abs(params["class_head"]["fc1"]["kernel"]).max() <= bound
    for name in ("length", "direction"):
        part, other = (
            params["class_head"]["last"][name],
            teaching.teacher["class_head"]["last"][name],
        )
        np.testing.assert_array_equal(part, other)
    assert (params["class_head"]["last"]["length"] == 1).all()
    assert (teaching.centre == 0).all()


@pytest.mark.parametrize("hypotheses", [1, 5])
def test_every_weight_has_axes(hypotheses):
    from tinymu_jax.models.matpac_ssl.student_teacher import param_axes

    config = SelfSupervisedConfig.from_dict({"predictor": {"hypotheses": hypotheses}})
    shapes = jax.eval_shape(lambda: init_params(config, 0))
    table = param_axes(config)
    check_axes(shapes, table)
    assert ("predictor/heads/kernel" in table) == (hypotheses > 1)


# --- metrics -------------------------------------------------------------------------


def test_metrics_match_pytorch(case, module):
    import torch
    import torch.nn.functional as F

    made, content = module
    made.load_published(content)
    _, seen, _, _ = one_step(case, 2000)
    count = seen.prediction_loss.size
    result = step_metrics(seen.sums, jnp.float32(count), jnp.int32(2000), STEPS, case.config)
    with torch.no_grad():
        image = torch.from_numpy(np.array(case.log_mel.swapaxes(1, 2)))
        order = torch.from_numpy(np.array(case.order)).long()
        patches = made.patch_embed(image) + made.pos_embed[:, 1:]
        shuffled = patches.gather(1, order[..., None].expand_as(patches))
        visible = shuffled[:, : made.visible]
        reported = made._predict(made._encode(made.student_encoder, visible), order)
        expected = made._encode(made.teacher, shuffled[:, made.visible :])[:, 1:]
        best = F.cosine_similarity(reported, expected[:, :, None], dim=-1).argmax(-1)
        winner = reported.gather(2, best[..., None, None].expand(-1, -1, 1, reported.shape[-1]))[
            :, :, 0
        ]
        student = (made.cls_student_head(winner) / 0.1).softmax(-1).flatten(0, 1)
        sharp = 0.04 + 0.03 * 2000 / 9827
        logits = made.class_teacher(expected) - made.cls_head_loss.center
        teacher = (logits / sharp).softmax(-1).flatten(0, 1)

    def spread(x):
        return (x.var(0) + 1e-6).sqrt().mean().item()

    mean = teacher.mean(0)
    checked = {
        "prediction_std": spread(F.normalize(reported, dim=-1).flatten(0, 1)),
        "target_std": spread(F.normalize(expected, dim=-1).flatten(0, 1)),
        "student_class_std": spread(student),
        "teacher_class_std": spread(teacher),
        "classes_used": len(teacher.argmax(-1).unique()),
        "class_perplexity": (-(mean * (mean + 1e-7).log()).sum()).exp().item(),
        "class_agreement": (teacher.argmax(-1) == student.argmax(-1)).double().mean().item(),
        "teacher_temperature": sharp,
        "encoder_ema_decay": 0.99995 + 0.00004 * 2000 / STEPS,
        "head_ema_decay": 0.998 + 0.002 * 2000 / STEPS,
    }
    if reported.shape[2] > 1:
        shares = torch.bincount(best.flatten(), minlength=reported.shape[2]) / count
        checked |= {f"wins_{head}": share.item() for head, share in enumerate(shares)}
        checked["mcl_temperature"] = 0.1 * 0.99997**2000
    for name, value in checked.items():
        assert float(result[name]) == pytest.approx(value, rel=2e-4), name
    assert set(result) == {"prediction_loss", "class_loss", *checked}


def test_collapse_warnings():
    fine = {"wins_0": 0.6, "wins_1": 0.4, "class_perplexity": 300.0}
    assert collapse_warning(fine) is None
    assert "one hypothesis is the best of 99 %" in collapse_warning(
        fine | {"wins_0": 0.99, "wins_1": 0.01}
    )
    assert "they have collapsed" in collapse_warning(fine | {"class_perplexity": 1.2})
    assert collapse_warning({"class_perplexity": 300.0}) is None


@pytest.mark.parametrize(("into", "out"), [(768, 512), (512, 768)])
def test_bfloat16_gradients_are_close_to_float32(into, out):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((8, 58, into)), rng.standard_normal((into, out))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)

    def total(x, kernel):
        return (matmul(x, kernel, "bfloat16") ** 2).sum() / 2

    result = jax.jit(jax.grad(total, (0, 1)))(x, kernel)
    y = x @ kernel
    for one, expected in zip(result, (y @ kernel.T, np.einsum("cti,cto->io", x, y)), strict=True):
        np.testing.assert_allclose(one, expected, atol=0.02 * np.abs(expected).max())
