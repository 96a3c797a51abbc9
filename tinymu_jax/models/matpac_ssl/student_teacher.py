"""MATPAC and MATPAC++ (arXiv 2502.12031, 2508.12709): student, teacher, and what they are told.

The student sees some patches of a crop and tells the vectors that the teacher, a moving average of
it, has for the masked ones; both then sort those vectors into classes. Gathered, never masked in
place: the student pays for what it sees.
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

_HEAD_AXES: dict[str, tuple[str | None, ...]] = {
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
    """Returns the logical axes of every weight by its path in the stacked tree."""
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
    parts = {"encoder": encoder, "predictor": predictor, "class_head": _HEAD_AXES}
    return {f"{part}/{path}": axes for part, own in parts.items() for path, axes in own.items()}


class MetricSums(NamedTuple):
    """What a step tells of itself: sums over masked patches, which add up over devices."""

    prediction: Float[Array, ""]
    """Losses of the hypotheses."""
    classes: Float[Array, ""]
    """Losses of the classes."""
    hypotheses: Float[Array, "2 Y E"]
    """Normalised predictions, and their squares."""
    targets: Float[Array, "2 E"]
    """The teacher's normalised vectors, and their squares."""
    student: Float[Array, "2 classes"]
    """The student's probabilities, and their squares."""
    teacher: Float[Array, "2 classes"]
    """The teacher's."""
    logits: Float[Array, "classes"]
    """The teacher's, before the centre is taken off."""
    chosen: Float[Array, "2 classes"]
    """How often each class is the student's best, and the teacher's."""
    agreed: Float[Array, ""]
    """How often the two are the same."""
    wins: Float[Array, "Y"]
    """How often each hypothesis is the best."""


class SSLOutput(NamedTuple):
    """Losses of each masked patch, and the step's sums."""

    prediction: Float[Array, "C M"]
    classes: Float[Array, "C M"]
    sums: MetricSums


def ssl_loss(
    params: Tree,
    teaching: TeacherState,
    log_mel: Float[Array, "C frames F"],
    order: Int[Array, "C P"],
    step: Int[Array, ""],
    config: SelfSupervisedConfig,
) -> SSLOutput:
    """Returns how far the student is from the teacher.

    Args:
        params: of encoder, predictor and class head.
        teaching: the teachers and the centre; no gradient goes through them.
        log_mel: normalised crops.
        order: of each crop's patches, visible ones first.
        step: steps done, for the temperatures.
        config: of all.
    """
    targets, student = _targets_and_student(params, teaching, log_mel, order, config)
    predictions = losses.normalise(student)
    each = losses.prediction_losses(predictions, losses.normalise(targets))
    lost, best = losses.mcl_loss(each, *schedules.mcl_temperature(config, step))
    # What the classes are of is the best prediction as it is, not normalised.
    winner = jnp.take_along_axis(student, best[..., None, None], axis=2)[:, :, 0]
    head = ClassHead(config)
    told = head.apply({"params": params["class_head"]}, winner)
    logits = head.apply({"params": teaching.teacher["class_head"]}, targets)
    temperature = schedules.teacher_temperature(config, step)
    wanted = jax.nn.softmax((logits - teaching.centre) / temperature, axis=-1)
    sorted_as = losses.class_losses(told, wanted, config.student_temperature)
    own = jax.nn.softmax(told / config.student_temperature, axis=-1)
    picked = [jnp.argmax(x, axis=-1) for x in (own, wanted)]
    classes = logits.shape[-1]
    sums = MetricSums(
        lost.sum(),
        sorted_as.sum(),
        _moments(predictions),
        _moments(losses.normalise(targets)),
        _moments(own),
        _moments(wanted),
        logits.sum((0, 1)),
        jnp.stack([jnp.bincount(x.reshape(-1), length=classes) for x in picked]).astype(float),
        (picked[0] == picked[1]).sum().astype(float),
        jnp.bincount(best.reshape(-1), length=each.shape[-1]).astype(float),
    )
    return SSLOutput(lost, sorted_as, jax.lax.stop_gradient(sums))


def _targets_and_student(
    params: Tree,
    teaching: TeacherState,
    log_mel: Float[Array, "C frames F"],
    order: Int[Array, "C P"],
    config: SelfSupervisedConfig,
) -> tuple[Float[Array, "C M E"], Float[Array, "C M Y E"]]:
    """Returns the teacher's vectors of the masked patches, and the student's hypotheses."""
    encoder, own = Matpac(config.encoder), params["encoder"]
    columns = log_mel.reshape(len(log_mel), -1, config.encoder.patch_size, log_mel.shape[-1])
    patches = encoder.apply({"params": own}, columns, method="embed")
    visible, masked = jnp.split(order, [config.visible], axis=1)
    seen = encoder.apply({"params": own}, gather_patches(patches, visible), method="encode")[0]
    student = Predictor(config).apply({"params": params["predictor"]}, seen, order)
    # The teacher hears through the student's patches and class token, without a gradient.
    taught = {**own, **teaching.teacher["encoder"]}
    hidden = gather_patches(patches, masked)
    taught, hidden = jax.lax.stop_gradient((taught, hidden))
    targets = encoder.apply({"params": taught}, hidden, method="encode")[0, :, 1:]
    return jax.lax.stop_gradient(targets), student


def _moments(x: Float[Array, "C M *rest"]) -> Float[Array, "2 *rest"]:
    """Returns the sums over patches of x and of its squares."""
    return jnp.stack([x.sum((0, 1)), jnp.square(x).sum((0, 1))])


def init_params(config: SelfSupervisedConfig, seed: int) -> Tree:
    """Returns the student's weights at random, as published; one compiled program."""
    return jax.jit(lambda: _init(config, seed))()


def _init(config: SelfSupervisedConfig, seed: int) -> Tree:
    keys = jax.random.split(jax.random.key(seed), 3)
    samples = jnp.zeros((1, 1, column_samples(config.encoder.patch_size)))
    order = jnp.arange(config.patches)[None]
    visible = jnp.zeros((1, 1 + config.visible, config.encoder.width))
    encoder = Matpac(config.encoder).init(keys[0], samples, method="init_all")
    parts = {
        "encoder": encoder,
        "predictor": Predictor(config).init(keys[1], visible, order),
        "class_head": ClassHead(config).init(keys[2], visible),
    }
    return {name: own["params"] for name, own in parts.items()}


def init_teacher(config: SelfSupervisedConfig, params: Tree, seed: int) -> TeacherState:
    """Returns what teaches at the first step, as published.

    Its encoder is not the student's but another draw; its class head begins with smaller numbers,
    and with the same last layer.
    """
    return jax.jit(lambda last: _init_teaching(config, last, seed))(params["class_head"]["last"])


def init_student_and_teacher(config: SelfSupervisedConfig, seed: int) -> Tree:
    """Returns student and what teaches as one tree, which is what checkpoints hold."""
    params = init_params(config, seed)
    return {**params, **init_teacher(config, params, seed)._asdict()}


def split_teacher(whole: Tree) -> tuple[Tree, TeacherState]:
    """Returns the student's weights, and what teaches."""
    params = {name: tree for name, tree in whole.items() if name not in TeacherState._fields}
    return params, TeacherState(**{name: whole[name] for name in TeacherState._fields})


def _init_teaching(config: SelfSupervisedConfig, last: Tree, seed: int) -> TeacherState:
    encoder, head = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    samples = jnp.zeros((1, 1, column_samples(config.encoder.patch_size)))
    other = Matpac(config.encoder).init(encoder, samples, method="init_all")["params"]
    small = ClassHead(config, nn.initializers.normal(0.02))
    vectors = jnp.zeros((1, 1, config.encoder.width))
    class_head = small.init(head, vectors)["params"] | {"last": last}
    teacher = ema_params({"encoder": other, "class_head": class_head})
    return TeacherState(teacher, jnp.zeros(config.class_head.num_classes))
