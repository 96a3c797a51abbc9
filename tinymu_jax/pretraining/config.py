"""What MATPAC and MATPAC++ pre-training computes, as frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.config import MatpacConfig
from tinymu_jax.serialised import Serialised, nested

Centre = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class PredictorConfig(Serialised):
    """What tells the masked patches' vectors from the visible ones'."""

    width: int = 512
    """Width D of its vectors."""
    depth: int = 8
    """Number of transformer blocks."""
    num_heads: int = 16
    """Attention heads; each has width / num_heads."""
    mlp_ratio: int = 4
    """Hidden width of a block's MLP over `width`."""
    hypotheses: int = 5
    """Predictions of each patch: 1 is MATPAC, more are MATPAC++ (multiple choice learning)."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the sizes."""
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4"),
            (self.hypotheses >= 1, "hypotheses must be 1 or more"),
        ]


@dataclass(frozen=True)
class ClassHeadConfig(Serialised):
    """What sorts vectors into classes that nobody named."""

    hidden_width: int = 2048
    """Of its MLP's two hidden layers."""
    bottleneck: int = 256
    """Width of the normalised vectors that classes are compared with."""
    num_classes: int = 2048
    """Number of classes."""


@dataclass(frozen=True)
class SelfSupervisedConfig(Serialised):
    """The two tasks: to predict what is masked, and to sort it as the teacher does."""

    encoder: MatpacConfig = field(
        default_factory=lambda: MatpacConfig(num_frames=608), metadata={"config": MatpacConfig}
    )
    """The encoder; its `num_frames` are those of a crop."""
    predictor: PredictorConfig = nested(PredictorConfig)
    """From visible patches to masked ones."""
    class_head: ClassHeadConfig = nested(ClassHeadConfig)
    """From vectors to classes."""
    mask_ratio: float = 0.7
    """Share of the patches that the student does not see."""
    class_share: float = 0.5
    """Of the loss; the rest is prediction's."""
    winner_temperature: float = 0.1
    """Of the softmax that weighs the hypotheses of a patch, at the first step."""
    winner_decay: float = 0.99997
    """What that is multiplied with at each step."""
    winner_end: float = 1e-4
    """From here on down the best hypothesis alone counts."""
    student_temperature: float = 0.1
    """Of the student's classes."""
    teacher_temperature: float = 0.04
    """Of the teacher's classes at the first step."""
    teacher_temperature_end: float = 0.07
    """And at the end of its warm-up."""
    teacher_warmup: int = 9827
    """Steps in which it rises."""
    centre: Centre = "probabilities"
    """What the teacher's running mean is taken of: its probabilities as published, or its logits
    as in DINO (arXiv 2104.14294)."""
    centre_momentum: float = 0.9
    """Share of the running mean that a step keeps."""
    encoder_decay: float = 0.99995
    """Share of the teacher's encoder that a step keeps, at the first step."""
    encoder_decay_end: float = 0.99999
    """And at the last one."""
    head_decay: float = 0.998
    """Share of the teacher's class head that a step keeps, at the first step."""
    head_decay_end: float = 1.0
    """And before the last one; past it, `encoder_decay_end` holds for both, as published."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the numbers."""
        shares = ("class_share", "centre_momentum", "encoder_decay", "encoder_decay_end")
        shares += ("head_decay", "head_decay_end")
        temperatures = ("winner_temperature", "winner_end", "student_temperature")
        temperatures += ("teacher_temperature", "teacher_temperature_end")
        return [
            (0 < self.visible < self.patches, "mask_ratio must leave some patches and hide some"),
            (self.encoder.head is None, "encoder.head must be left out"),
            (0 < self.winner_decay <= 1, "winner_decay must be above 0 and at most 1"),
            (self.teacher_warmup >= 0, "teacher_warmup must be 0 or more"),
            *((0 <= getattr(self, name) <= 1, f"{name} must be from 0 to 1") for name in shares),
            *((getattr(self, name) > 0, f"{name} must be above 0") for name in temperatures),
        ]

    @property
    def patches(self) -> int:
        """Patches of a crop (190 of 608 frames)."""
        return self.encoder.rows * self.encoder.columns

    @property
    def visible(self) -> int:
        """Patches of a crop that the student sees (57)."""
        return int(self.patches * (1 - self.mask_ratio))
