"""Linear probes: measure how well a frozen encoder's embeddings predict labels.

A linear layer is trained on each recording's embeddings, averaged over time. The result is the
accuracy or the mean average precision over several seeds, with a 95 % confidence interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from tinymu_jax.data.annotations.labelled import LabelledSet, describe_split
from tinymu_jax.errors import InputError
from tinymu_jax.models.matmul import matmul

VALIDATION_FRACTION = 0.1
"""Fraction of training recordings used for validation if a data set has no validation split."""
MIN_EPOCH_STEPS = 20
"""Minimum number of steps of an epoch; an epoch over a small data set makes several passes."""
MIN_STD = 1e-6
"""Embedding dimensions with a smaller standard deviation are ignored."""


@dataclass(frozen=True)
class ProbeConfig:
    """Settings of the training of probes."""

    seeds: int = 5
    """Number of probes to train, each with its own initial weights and data order."""
    max_epochs: int = 100
    """Maximum number of epochs; an epoch has 20 steps or more."""
    patience: int = 10
    """Epochs without a lower validation loss before training stops; the best weights are used."""
    batch: int = 128
    """Recordings per step."""
    learning_rate: float = 1e-3
    """Learning rate of Adam, on standardized embeddings."""

    def check(self) -> None:
        """Raise `InputError` unless all settings are above 0."""
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name.replace('_', '-')} is {value}; give a number above 0")


class Probe(NamedTuple):
    """A linear layer that maps a recording's mean embedding, of width E, to class logits."""

    kernel: Float[np.ndarray, "E classes"]
    bias: Float[np.ndarray, "classes"]

    def scores(self, vectors: Float[np.ndarray, "R E"]) -> Float[np.ndarray, "R classes"]:
        """Return the logits of R recordings, given their mean embeddings of width E."""
        return vectors @ self.kernel + self.bias


class ProbeResult(NamedTuple):
    """Test results of probes on a data set, with one value per seed."""

    metric: str
    """Name of the metric: "accuracy" or "mAP"."""
    values: list[float]
    """Value of the metric for each seed, averaged over folds."""
    chance: float
    """Value of the metric if each class is scored by its frequency in the training labels."""
    probe: Probe
    """The probe of the first seed and the first fold."""
    split: str
    """The recordings that were tested; see `describe_split`."""

    @property
    def mean(self) -> float:
        """The mean of the metric over seeds."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> float:
        """Half the width of the mean's 95 % interval, by Student's t; NaN for a single seed."""
        from scipy.stats import t

        count = len(self.values)
        if count < 2:
            return float("nan")
        return float(t.ppf(0.975, count - 1) * np.std(self.values, ddof=1) / count**0.5)


def run_probe(
    vectors: Float[np.ndarray, "R E"], data: LabelledSet, config: ProbeConfig
) -> ProbeResult:
    """Train and test a probe for each seed and each fold of a data set.

    `vectors` are the mean embeddings of the R recordings (width E), in the order of the data set.
    """
    labels, known = data.targets()
    folds: Sequence[str] = data.folds or ["test"]
    values, chances, first_probe = [], [], None
    for seed in range(config.seeds):
        by_fold = []
        for fold in folds:
            train, valid, test = _split(data, fold, seed)
            probe = fit_probe(vectors, labels, known, train, valid, data.multi_label, config, seed)
            scores = probe.scores(vectors[test])
            by_fold.append(probe_metric(labels[test], known[test], scores, data.multi_label))
            constant = np.broadcast_to(labels[train].mean(0), scores.shape)
            chances.append(probe_metric(labels[test], known[test], constant, data.multi_label))
            first_probe = first_probe or probe
        values.append(float(np.mean(by_fold)))
    metric = "mAP" if data.multi_label else "accuracy"
    split = describe_split(data)
    return ProbeResult(metric, values, float(np.mean(chances)), first_probe, split)


def _split(data: LabelledSet, fold: str, seed: int) -> tuple[Any, Any, Any]:
    """Return the indices of the training, validation and test recordings.

    `fold` is the name of the test fold, or "test" for a data set with splits instead of folds.
    `seed` draws the validation recordings if the data set has no validation split.
    """
    test = data.indices(fold)
    if data.folds:
        train, valid = np.setdiff1d(np.arange(len(data.clips)), test), test[:0]
    else:
        train, valid = data.indices("train"), data.indices("valid")
    if not len(valid) and len(train) == 1:
        valid = train
    elif not len(valid):
        shuffled = np.random.default_rng([seed, 1]).permutation(train)
        count = max(1, int(VALIDATION_FRACTION * len(shuffled)))
        valid, train = shuffled[:count], shuffled[count:]
    return train, valid, test


def probe_metric(
    labels: Bool[np.ndarray, "R classes"],
    known: Bool[np.ndarray, "R classes"],
    scores: Float[np.ndarray, "R classes"],
    multi_label: bool,
) -> float:
    """Return the accuracy or, with `multi_label`, the mean average precision (mAP).

    The mAP averages over the classes that have at least one positive among R recordings.

    Args:
        labels: whether each recording has each label.
        known: whether each entry of `labels` is known; mAP ignores unknown entries.
        scores: the logit or probability of each class for each recording.
        multi_label: whether a recording may have several labels.
    """
    if not multi_label:
        return float(np.mean(labels[np.arange(len(labels)), scores.argmax(1)]))
    from sklearn.metrics import average_precision_score

    precisions = [
        average_precision_score(column[rows], score[rows])
        for column, rows, score in zip(labels.T, known.T, scores.T, strict=True)
        if column[rows].any()
    ]
    return float(np.mean(precisions)) if precisions else 0.0


def fit_probe(
    vectors: Float[np.ndarray, "R E"],
    labels: Bool[np.ndarray, "R classes"],
    known: Bool[np.ndarray, "R classes"],
    train: Int[np.ndarray, "_"],
    valid: Int[np.ndarray, "_"],
    multi_label: bool,
    config: ProbeConfig,
    seed: int,
) -> Probe:
    """Train a probe on standardized embeddings, and fold the standardization into its weights.

    Args:
        vectors: the mean embeddings of all R recordings, of width E.
        labels: whether each recording has each label.
        known: whether each entry of `labels` is known; `multi_label` ignores unknown entries.
        train: the indices of the training recordings.
        valid: the indices of the validation recordings, whose loss stops the training.
        multi_label: whether a recording may have several labels.
        config: the settings of the training.
        seed: the seed of the initial weights and the data order.
    """
    inputs = vectors[train]
    # Float32 sums over 100,000 embeddings would be wrong by 1e-4: constant dimensions would vary.
    mean = inputs.mean(0, dtype=np.float64).astype(np.float32)
    # In place to save memory: there may be hundreds of thousands of embeddings.
    inputs -= mean
    std = np.sqrt(np.square(inputs).mean(0, dtype=np.float64))
    scale = np.where(std > MIN_STD, 1 / np.maximum(std, MIN_STD), 0).astype(np.float32)
    inputs *= scale
    x = jnp.asarray(inputs)
    y, train_known = jnp.asarray(labels[train]), jnp.asarray(known[train])
    rng = np.random.default_rng([seed, 0])
    bound = x.shape[1] ** -0.5
    kernel = rng.uniform(-bound, bound, (x.shape[1], y.shape[1])).astype(np.float32)
    params: Any = (jnp.asarray(kernel), jnp.zeros(y.shape[1]))
    state = optax.adam(config.learning_rate).init(params)
    best_loss, best_params, epochs_left = np.inf, params, 0
    validation = jnp.asarray((vectors[valid] - mean) * scale), labels[valid], known[valid]
    for _ in range(config.max_epochs):
        batches = jnp.asarray(_batches(rng, len(train), config.batch))
        params, state = _train_epoch(
            params, state, x, y, train_known, batches, config.learning_rate, multi_label
        )
        loss = float(_loss(params, *validation, multi_label))
        epochs_left = config.patience if loss < best_loss else epochs_left - 1
        if loss < best_loss:
            best_loss, best_params = loss, params
        if epochs_left == 0:
            break
    kernel, bias = map(np.asarray, best_params)
    return Probe(kernel * scale[:, None], bias - (mean * scale) @ kernel)


def _batches(rng: np.random.Generator, number: int, batch: int) -> Int[np.ndarray, "steps size"]:
    """Return at least `MIN_EPOCH_STEPS` batches of up to `batch` random indices below `number`."""
    size = min(batch, number)
    passes = -(-MIN_EPOCH_STEPS // (number // size))
    order = [rng.permutation(number)[: number // size * size] for _ in range(passes)]
    return np.concatenate(order).reshape(-1, size)


@partial(jax.jit, static_argnames="multi_label")
def _loss(
    params: Any, x: Float[Array, "R E"], labels: Array, known: Array, multi_label: bool
) -> Float[Array, ""]:
    """Return the mean cross-entropy of the linear layer `params`, a pair (kernel, bias).

    It is the softmax cross-entropy or, with `multi_label`, the binary one over `known` labels.
    """
    logits = matmul(x, params[0]) + params[1]
    labels, known = labels.astype(float), known.astype(float)
    if multi_label:
        losses = optax.sigmoid_binary_cross_entropy(logits, labels) * known
        return losses.sum() / jnp.maximum(known.sum(), 1)
    return optax.softmax_cross_entropy(logits, labels).mean()


@partial(jax.jit, static_argnames=("learning_rate", "multi_label"))
def _train_epoch(
    params: Any,
    state: Any,
    x: Float[Array, "R E"],
    y: Bool[Array, "R classes"],
    known: Bool[Array, "R classes"],
    batches: Int[Array, "steps size"],
    learning_rate: float,
    multi_label: bool,
) -> tuple[Any, Any]:
    """Take one Adam step per row of `batches` (indices into `x`); return new params and state."""
    optimizer = optax.adam(learning_rate)

    def step(carry: Any, rows: Array) -> tuple[Any, None]:
        params, state = carry
        gradient = jax.grad(_loss)(params, x[rows], y[rows], known[rows], multi_label)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), batches)[0]
