"""How a model is trained, as frozen dataclasses."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class OptimConfig:
    """Adam with the published schedule."""

    learning_rate: float = 1e-4
    """At its highest."""
    warmup: float = 0.05
    """Share of the steps in which it rises; then it falls as half a cosine."""
    beta1: float = 0.9
    """Decay of the gradient's average."""
    beta2: float = 0.999
    """Decay of the squared gradient's average."""
    eps: float = 1e-8
    """Added to the root of the squared gradient's average."""
    weight_decay: float = 0.0
    """Decoupled from the gradient (AdamW), on the weights that `decayed` names; 0 as published."""
    decayed: str = r".*/kernel|.*/embedding"
    """Paths of weights that decay (a regular expression that matches the whole path)."""
    frozen: str = r"encoder/.*"
    """Paths of weights that stay as they are: no gradient, no averages."""
    slowed: dict[str, float] = field(default_factory=dict)
    """Paths (regular expressions) of weights that learn at a multiple of the learning rate."""
    clip_norm: float | None = None
    """Longest gradient, over all trained weights; longer ones are shortened to it."""
