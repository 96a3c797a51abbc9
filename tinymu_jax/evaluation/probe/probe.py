"""Linear probes: how much of what a label means lies in a frozen encoder's vectors.

As published: the mean over time of a recording's vectors, one linear layer, accuracy or mean
average precision, a mean over seeds with its 95 % interval.
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

from tinymu_jax.data.annotations.labelled import LabelledSet
from tinymu_jax.errors import InputError

HELD_OUT = 0.1
"""Share of the recordings to learn from that is held out where a data set names none."""

ROUND = 20
"""Steps of a round at least."""

MISSING = 1e-6
"""Spread below which a number of a vector tells nothing."""


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe learns."""

    seeds: int = 5
    """Probes that are learnt, each with other first weights and another order."""
    rounds: int = 100
    """At most: epochs, or several of a small data set (`ROUND` steps)."""
    patience: int = 10
    """Rounds without a lower loss of the validation after which it ends; the best weights are
    kept."""
    batch: int = 128
    """Recordings of a step."""
    learning_rate: float = 1e-3
    """Of Adam, over vectors with mean 0 and spread 1."""

    def check(self) -> None:
        """Raises `InputError` where a number is out of range."""
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name.replace('_', '-')} is {value}; give a number above 0")


class Probe(NamedTuple):
    """A linear layer over the mean of a recording's vectors."""

    kernel: Float[np.ndarray, "E classes"]
    bias: Float[np.ndarray, "classes"]

    def scores(self, vectors: Float[np.ndarray, "R E"]) -> Float[np.ndarray, "R classes"]:
        """Returns a score of each class for each recording."""
        return vectors @ self.kernel + self.bias


class ProbeResult(NamedTuple):
    """What a probe reached."""

    metric: str
    """accuracy, or mAP."""
    values: list[float]
    """Of each seed; of folds their mean."""
    chance: float
    """Of the class most often right, or of scores that say nothing."""
    probe: Probe
    """Of the first seed (and the first fold)."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> float:
        """Half of the mean's 95 % interval, by Student's t; nan of one seed."""
        from scipy.stats import t

        count = len(self.values)
        if count < 2:
            return float("nan")
        return float(t.ppf(0.975, count - 1) * np.std(self.values, ddof=1) / count**0.5)


def run_probe(
    vectors: Float[np.ndarray, "R E"], data: LabelledSet, config: ProbeConfig
) -> ProbeResult:
    """Learns and tests probes of all seeds.

    Args:
        vectors: of every recording, in the order of the data set.
        data: with its parts or folds.
        config: how.
    """
    wanted, known = data.targets()
    folds: Sequence[str] = data.folds or ["test"]
    values, chances, kept = [], [], None
    for seed in range(config.seeds):
        found = []
        for fold in folds:
            learn, valid, test = _parts(data, fold, seed)
            probe = fit(vectors, wanted, known, learn, valid, data.multi_label, config, seed)
            scores = probe.scores(vectors[test])
            found.append(measure(wanted[test], known[test], scores, data.multi_label))
            flat = np.broadcast_to(wanted[learn].mean(0), scores.shape)
            chances.append(measure(wanted[test], known[test], flat, data.multi_label))
            kept = kept or probe
        values.append(float(np.mean(found)))
    metric = "mAP" if data.multi_label else "accuracy"
    return ProbeResult(metric, values, float(np.mean(chances)), kept)


def _parts(data: LabelledSet, fold: str, seed: int) -> tuple[Any, Any, Any]:
    """Returns the recordings to learn from, to stop by, and to test with."""
    test = data.indices(fold)
    if data.folds:
        learn, valid = np.setdiff1d(np.arange(len(data.clips)), test), test[:0]
    else:
        learn, valid = data.indices("train"), data.indices("valid")
    if not len(valid) and len(learn) == 1:
        valid = learn
    elif not len(valid):
        mixed = np.random.default_rng([seed, 1]).permutation(learn)
        count = max(1, int(HELD_OUT * len(mixed)))
        valid, learn = mixed[:count], mixed[count:]
    return learn, valid, test


def measure(
    wanted: Bool[np.ndarray, "R classes"],
    known: Bool[np.ndarray, "R classes"],
    scores: Float[np.ndarray, "R classes"],
    several: bool,
) -> float:
    """Returns accuracy, or mean average precision over the classes that have examples.

    Args:
        wanted: which labels each recording has.
        known: of which of them that is known; the others do not count.
        scores: the greater, the more probable.
        several: whether a recording may have several labels.
    """
    if not several:
        return float(np.mean(wanted[np.arange(len(wanted)), scores.argmax(1)]))
    from sklearn.metrics import average_precision_score

    found = []
    for own, told, score in zip(wanted.T, known.T, scores.T, strict=True):
        if own[told].any():
            found.append(average_precision_score(own[told], score[told]))
    return float(np.mean(found)) if found else 0.0


def fit(
    vectors: Float[np.ndarray, "R E"],
    wanted: Bool[np.ndarray, "R classes"],
    known: Bool[np.ndarray, "R classes"],
    learn: Int[np.ndarray, "_"],
    valid: Int[np.ndarray, "_"],
    several: bool,
    config: ProbeConfig,
    seed: int,
) -> Probe:
    """Learns one probe; it takes vectors as they are, the scaling is in its weights.

    Args:
        vectors: of all recordings.
        wanted: their labels; see `measure`.
        known: see `measure`.
        learn: numbers of those that it learns from.
        valid: numbers of those that say when to stop.
        several: see `measure`.
        config: how.
        seed: of its first weights and of the order.
    """
    own = vectors[learn]
    mean, spread = own.mean(0), own.std(0)
    scale = np.where(spread > MISSING, 1 / np.maximum(spread, MISSING), 0).astype(np.float32)
    # In place: there may be hundreds of thousands.
    own -= mean
    own *= scale
    x = jnp.asarray(own)
    y, told = jnp.asarray(wanted[learn]), jnp.asarray(known[learn])
    rng = np.random.default_rng([seed, 0])
    bound = x.shape[1] ** -0.5
    kernel = rng.uniform(-bound, bound, (x.shape[1], y.shape[1])).astype(np.float32)
    params: Any = (jnp.asarray(kernel), jnp.zeros(y.shape[1]))
    state, best, left = optax.adam(config.learning_rate).init(params), (np.inf, params), 0
    held = jnp.asarray((vectors[valid] - mean) * scale), wanted[valid], known[valid]
    for _ in range(config.rounds):
        order = jnp.asarray(_order(rng, len(learn), config.batch))
        params, state = _round(params, state, x, y, told, order, config.learning_rate, several)
        lost = float(_lost(params, *held, several))
        left = config.patience if lost < best[0] else left - 1
        best = min(best, (lost, params), key=lambda pair: pair[0])
        if left == 0:
            break
    kernel, bias = map(np.asarray, best[1])
    return Probe(kernel * scale[:, None], bias - (mean * scale) @ kernel)


def _order(rng: np.random.Generator, number: int, batch: int) -> Int[np.ndarray, "steps size"]:
    """Returns the batches of a round: whole epochs, as many as its steps need."""
    size = min(batch, number)
    epochs = -(-ROUND // (number // size))
    whole = [rng.permutation(number)[: number // size * size] for _ in range(epochs)]
    return np.concatenate(whole).reshape(-1, size)


@partial(jax.jit, static_argnames="several")
def _lost(
    params: Any,
    x: Float[Array, "R E"],
    wanted: Array,
    known: Array,
    several: bool,
) -> Float[Array, ""]:
    """Returns the mean cross-entropy of what is known."""
    scores = x @ params[0] + params[1]
    wanted, known = wanted.astype(float), known.astype(float)
    if several:
        lost = optax.sigmoid_binary_cross_entropy(scores, wanted) * known
        return lost.sum() / jnp.maximum(known.sum(), 1)
    return optax.softmax_cross_entropy(scores, wanted).mean()


@partial(jax.jit, static_argnames=("rate", "several"))
def _round(
    params: Any,
    state: Any,
    x: Float[Array, "R E"],
    y: Bool[Array, "R classes"],
    known: Bool[Array, "R classes"],
    order: Int[Array, "steps size"],
    rate: float,
    several: bool,
) -> tuple[Any, Any]:
    """Learns from batches, one after the other."""
    optimiser = optax.adam(rate)

    def step(carried: Any, rows: Array) -> tuple[Any, None]:
        params, state = carried
        gradient = jax.grad(_lost)(params, x[rows], y[rows], known[rows], several)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), order)[0]
