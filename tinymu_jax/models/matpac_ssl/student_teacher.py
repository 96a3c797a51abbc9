"""Student, teacher and losses of MATPAC and MATPAC++ (arXiv 2502.12031, 2508.12709).

The student encodes the visible patches of a crop, and predicts the teacher's embeddings of the
masked patches. The teacher is a moving average of the student. Both classify masked patches.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinymu_jax.audio.log_mel import column_samples
from tinymu_jax.models import matpac
from tinymu_jax.models.config import SelfSupervisedConfig
from tinymu_jax.models.matpac import Matpac
from tinymu_jax.models.matpac_ssl import losses
from tinymu_jax.models.matpac_ssl import teacher as schedules
from tinymu_jax.models.matpac_ssl.losses import gather_patches
from tinymu_jax.models.matpac_ssl.networks import ClassHead, Predictor
from tinymu_jax.models.matpac_ssl.teacher import TeacherState, ema_params
from tinymu_jax.utils.tree import Tree

_CLASS_HEAD_AXES: dict[str, tuple[str | None, ...]] = {
    "fc1/kernel": ("embed", "mlp"),
    "fc1/bias": ("mlp",),
    "fc2/kernel": ("embed", "mlp"),
    "fc2/bias": ("mlp",),
    "fc3/kernel": ("mlp", None),
    "fc3/bias": (None,),
    "last/length": (None, "classes"),
    "last/direction": (None, "classes"),
}


def param_axes(config: SelfSupervisedConfig) -> dict[str, tuple[str | None, ...]]:
    """Return the logical axes (names for sharding) of each student weight, keyed by its path."""
    encoder = matpac.param_axes(config.encoder)
    blocks = {path: axes for path, axes in encoder.items() if path.startswith("transformer/")}
    predictor = {
        "embed/kernel": (None, "embed"),
        "embed/bias": ("embed",),
        "mask_token": (None, None, "embed"),
        "pos_embed": (None, None, "embed"),
        "single/kernel": ("embed", None),
        "single/bias": (None,),
        **blocks,
    }
    if config.predictor.hypotheses > 1:
        predictor |= {"heads/kernel": (None, "embed", None), "heads/bias": (None, None)}
    parts = {"encoder": encoder, "predictor": predictor, "class_head": _CLASS_HEAD_AXES}
    return {f"{part}/{path}": axes for part, rows in parts.items() for path, axes in rows.items()}


class MetricSums(NamedTuple):
    """Sums over the masked patches of a step, from which metrics are computed."""

    prediction_loss: Float[Array, ""]
    class_loss: Float[Array, ""]
    predictions: Float[Array, "2 hypotheses D"]
    """Sum of the student's normalized predictions (index 0), and of their squares (1)."""
    targets: Float[Array, "2 D"]
    """Sum of the teacher's normalized embeddings (index 0), and of their squares (1)."""
    student_probs: Float[Array, "2 classes"]
    """Sum of the student's class probabilities (index 0), and of their squares (1)."""
    teacher_probs: Float[Array, "2 classes"]
    """Sum of the teacher's class probabilities (index 0), and of their squares (1)."""
    teacher_logits: Float[Array, "classes"]
    """Sum of the teacher's class logits, before their running mean is subtracted."""
    class_counts: Float[Array, "2 classes"]
    """Number of patches assigned to each class by the student (0) and by the teacher (1)."""
    agreements: Float[Array, ""]
    """Number of patches that the student and the teacher assign to the same class."""
    wins: Float[Array, "hypotheses"]
    """Number of patches for which each hypothesis (prediction) has the lowest loss."""


class SSLOutput(NamedTuple):
    """Losses of each masked patch, and sums from which metrics are computed."""

    prediction_loss: Float[Array, "C masked"]
    class_loss: Float[Array, "C masked"]
    sums: MetricSums


def ssl_loss(
    params: Tree,
    state: TeacherState,
    log_mel: Float[Array, "C frames F"],
    order: Int[Array, "C P"],
    step: Int[Array, ""] | int,
    config: SelfSupervisedConfig,
) -> SSLOutput:
    """Return the prediction and classification losses of the masked patches of a batch of crops.

    `params` are the student's parameters, `log_mel` normalized log-mels. `order` holds each crop's
    patch indices, those of visible patches first. The temperatures depend on `step`, the number of
    steps done before.
    """
    targets, hypotheses = _targets_and_hypotheses(params, state, log_mel, order, config)
    predictions, normal_targets = losses.normalize(hypotheses), losses.normalize(targets)
    hypothesis_losses = losses.prediction_losses(predictions, normal_targets)
    temperature, hard = schedules.mcl_temperature(config, step)
    prediction_loss, best = losses.mcl_loss(hypothesis_losses, temperature, hard)
    # The best hypothesis is classified without normalization.
    winner = jnp.take_along_axis(hypotheses, best[..., None, None], axis=2)[:, :, 0]
    head = ClassHead(config)
    student_logits = head.apply({"params": params["class_head"]}, winner)
    teacher_logits = head.apply({"params": state.teacher["class_head"]}, targets)
    temperature = schedules.teacher_temperature(config, step)
    teacher_probs = jax.nn.softmax((teacher_logits - state.centre) / temperature, axis=-1)
    class_loss = losses.class_losses(student_logits, teacher_probs, config.student_temperature)
    student_probs = jax.nn.softmax(student_logits / config.student_temperature, axis=-1)
    classes = [jnp.argmax(x, axis=-1) for x in (student_probs, teacher_probs)]
    num_classes = teacher_logits.shape[-1]
    sums = MetricSums(
        prediction_loss.sum(),
        class_loss.sum(),
        _moments(predictions),
        _moments(normal_targets),
        _moments(student_probs),
        _moments(teacher_probs),
        teacher_logits.sum((0, 1)),
        jnp.stack([_counts(x, num_classes) for x in classes]),
        (classes[0] == classes[1]).sum().astype(float),
        _counts(best, hypothesis_losses.shape[-1]),
    )
    return SSLOutput(prediction_loss, class_loss, jax.lax.stop_gradient(sums))


def _targets_and_hypotheses(
    params: Tree,
    state: TeacherState,
    log_mel: Float[Array, "C frames F"],
    order: Int[Array, "C P"],
    config: SelfSupervisedConfig,
) -> tuple[Float[Array, "C masked D"], Float[Array, "C masked hypotheses D"]]:
    """Return the teacher's embeddings of masked patches, and the student's predictions of them."""
    encoder, student = Matpac(config.encoder), params["encoder"]
    columns = log_mel.reshape(len(log_mel), -1, config.encoder.patch_size, log_mel.shape[-1])
    patches = encoder.apply({"params": student}, columns, method="embed")
    visible, masked = jnp.split(order, [config.visible], axis=1)
    visible_patches = gather_patches(patches, visible)
    encoded = encoder.apply({"params": student}, visible_patches, method="encode")[0]
    hypotheses = Predictor(config).apply({"params": params["predictor"]}, encoded, order)
    # The teacher shares the student's patch embedding and class token, without a gradient.
    teacher = {**student, **state.teacher["encoder"]}
    masked_patches = gather_patches(patches, masked)
    teacher, masked_patches = jax.lax.stop_gradient((teacher, masked_patches))
    targets = encoder.apply({"params": teacher}, masked_patches, method="encode")[0, :, 1:]
    return jax.lax.stop_gradient(targets), hypotheses


def _moments(x: Float[Array, "C masked *rest"]) -> Float[Array, "2 *rest"]:
    """Return the sums over patches of x (index 0) and of x squared (1)."""
    return jnp.stack([x.sum((0, 1)), jnp.square(x).sum((0, 1))])


def _counts(indices: Int[Array, "C masked"], length: int) -> Float[Array, "_"]:
    return jnp.bincount(indices.reshape(-1), length=length).astype(float)


def init_params(config: SelfSupervisedConfig, seed: int) -> Tree:
    """Return the student's initial random parameters, distributed as published."""
    return jax.jit(lambda: _init_student(config, seed))()


def _init_student(config: SelfSupervisedConfig, seed: int) -> Tree:
    encoder_key, predictor_key, head_key = jax.random.split(jax.random.key(seed), 3)
    order = jnp.arange(config.patches)[None]
    visible = jnp.zeros((1, 1 + config.visible, config.encoder.width))
    return {
        "encoder": _init_encoder(config, encoder_key),
        "predictor": Predictor(config).init(predictor_key, visible, order)["params"],
        "class_head": ClassHead(config).init(head_key, visible)["params"],
    }


def _init_encoder(config: SelfSupervisedConfig, key: Array) -> Tree:
    samples = jnp.zeros((1, 1, column_samples(config.encoder.patch_size)))
    return Matpac(config.encoder).init(key, samples, method="init_all")["params"]


def init_teacher(config: SelfSupervisedConfig, params: Tree, seed: int) -> TeacherState:
    """Return the teacher's initial state, as published.

    Its weights are random and independent of the student's, with a smaller scale in the class head.
    Only the class head's last layer is a copy of the student's in `params`.
    """
    return jax.jit(lambda last: _init_teacher(config, last, seed))(params["class_head"]["last"])


def _init_teacher(config: SelfSupervisedConfig, last: Tree, seed: int) -> TeacherState:
    encoder_key, head_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    head = ClassHead(config, nn.initializers.normal(0.02))
    embeddings = jnp.zeros((1, 1, config.encoder.width))
    class_head = head.init(head_key, embeddings)["params"] | {"last": last}
    params = {"encoder": _init_encoder(config, encoder_key), "class_head": class_head}
    return TeacherState(ema_params(params), jnp.zeros(config.class_head.num_classes))


def init_student_and_teacher(config: SelfSupervisedConfig, seed: int) -> Tree:
    """Return the initial student and teacher as one tree, as a checkpoint stores them."""
    params = init_params(config, seed)
    return {**params, **init_teacher(config, params, seed)._asdict()}


def split_teacher(tree: Tree) -> tuple[Tree, TeacherState]:
    """Split a checkpoint's tree into the student's parameters and the teacher's state."""
    params = {name: value for name, value in tree.items() if name not in TeacherState._fields}
    return params, TeacherState(**{name: tree[name] for name in TeacherState._fields})
