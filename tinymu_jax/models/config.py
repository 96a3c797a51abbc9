"""Sizes and options of every model as frozen dataclasses, and presets of the published sizes."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.utils.config_base import ConfigBase, nested

ComputeDtype = Literal["float32", "bfloat16"]

Remat = Literal["none", "attention", "full"]

ProjectorKind = Literal["linear", "residual", "transformer"]


@dataclass(frozen=True)
class HeadConfig(ConfigBase):
    """A classifier on top of the encoder: MATPAC++'s AudioSet head, or a linear probe."""

    kind: Literal["audioset", "probe"] = "audioset"
    """`audioset`: mean over patch rows, BatchNorm, linear; `probe`: linear on all patch rows."""
    num_classes: int = 527
    """Number of classes."""
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """`softmax`, as published, or `sigmoid` for several labels per clip."""


@dataclass(frozen=True)
class MatpacConfig(ConfigBase):
    """The MATPAC++ encoder: a ViT over log-mel patches (arXiv 2508.12709, section III)."""

    width: int = 768
    """Model width D."""
    depth: int = 12
    """Number of transformer blocks L."""
    num_heads: int = 12
    """Attention heads N, each width / num_heads wide."""
    mlp_ratio: int = 4
    """Hidden width of an MLP relative to `width`."""
    num_mels: int = 80
    """Mel bands F, a multiple of `patch_size`."""
    num_frames: int = 992
    """Log-mel frames per chunk (n_t): 992 in AudioSet-tuned checkpoints, 608 in self-supervised."""
    patch_size: int = 16
    """Side of a square patch, in mel bands and in frames."""
    compute_dtype: ComputeDtype = "float32"
    """Inputs of matrix products: `bfloat16` is faster and accumulates in float32, with about 3
    significant digits instead of 7. `load` overrides it."""
    remat: Remat = "none"
    """Gradient checkpointing: `attention` saves only the outputs of dense layers, `full` only the
    input of each layer."""
    head: HeadConfig | None = nested(HeadConfig, default=False)
    """The classifier, if the checkpoint has one."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints between fields."""
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4"),
            (self.num_mels == 80, "num_mels must be 80, as the log-mel front end computes them"),
            (self.num_mels % self.patch_size == 0, "num_mels must be a multiple of patch_size"),
            (self.num_frames % self.patch_size == 0, "num_frames must be one of patch_size"),
        ]

    @property
    def rows(self) -> int:
        """Patches along the frequency axis (5)."""
        return self.num_mels // self.patch_size

    @property
    def columns(self) -> int:
        """Patches along the time axis of a full chunk (62 for 992 frames)."""
        return self.num_frames // self.patch_size

    @property
    def output_width(self) -> int:
        """Width E of one output vector: the patches of one column, concatenated (3840)."""
        return self.rows * self.width


@dataclass(frozen=True)
class ProjectorConfig(ConfigBase):
    """Maps encoder outputs to the decoder's width (TinyMU, arXiv 2604.15849, section 3)."""

    kind: ProjectorKind = "linear"
    """`linear` is the published projector; the others are the paper's ablations."""
    input_width: int = 3840
    """Width E of the encoder's output."""
    hidden_width: int = 2048
    """Hidden width; `linear` only."""
    output_width: int = 576
    """Model width D of the decoder."""
    dropout: float = 0.5
    """Dropout rate in training; `residual` only."""
    num_vectors: int = 32
    """Output vectors for a clip of any length; `transformer` only."""
    depth: int = 8
    """Number of layers; `transformer` only."""
    num_heads: int = 8
    """Attention heads; `transformer` only."""
    mlp_ratio: int = 2
    """Hidden width of an MLP relative to `output_width`; `transformer` only."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints between fields."""
        divisible = self.output_width % self.num_heads == 0 or self.kind != "transformer"
        return [
            (self.dropout < 1, "dropout must be below 1"),
            (divisible, "output_width must be a multiple of num_heads"),
        ]

    def num_outputs(self, num_inputs: int | float) -> int | float:
        """Returns how many vectors come out for `num_inputs` encoder vectors."""
        return self.num_vectors if self.kind == "transformer" else num_inputs


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of the decoder that LoRA can adapt."""


@dataclass(frozen=True)
class LoraConfig(ConfigBase):
    """Low-rank adaptation: W x + (alpha / rank) B A dropout(x) (LoRA, arXiv 2106.09685).

    The defaults are TinyMU's published values.
    """

    rank: int = 32
    """Rank r of the factors A and B."""
    alpha: float = 128.0
    """Scale of the update, divided by `rank`."""
    dropout: float = 0.1
    """Dropout rate of the adapter's input in training."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Adapted layers, from `LORA_TARGETS`."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints on the fields."""
        unknown = [name for name in self.targets if name not in LORA_TARGETS]
        return [
            (self.dropout < 1, "dropout must be below 1"),
            (bool(self.targets), "targets must name a layer"),
            (not unknown, f"targets must be of {', '.join(LORA_TARGETS)}, not {unknown}"),
        ]


@dataclass(frozen=True)
class SmolLM2Config(ConfigBase):
    """A SmolLM2 decoder: Llama's architecture with tied embeddings."""

    vocab_size: int = 49152
    """Vocabulary size V."""
    width: int = 576
    """Model width D."""
    depth: int = 30
    """Number of layers L."""
    num_heads: int = 9
    """Query heads N, a multiple of `num_kv_heads`."""
    num_kv_heads: int = 3
    """Key/value heads K."""
    head_width: int = 64
    """Head width H."""
    mlp_width: int = 1536
    """Hidden width of the gated MLP."""
    rope_theta: float = 100_000.0
    """Base of the RoPE frequencies."""
    norm_eps: float = 1e-5
    """Epsilon of RMSNorm."""
    compute_dtype: ComputeDtype = "float32"
    """See `MatpacConfig.compute_dtype`."""
    remat: Remat = "none"
    """See `MatpacConfig.remat`."""
    lora: LoraConfig | None = nested(LoraConfig, default=False)
    """LoRA adapters that are not merged into the weights yet."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints between fields."""
        divisible = self.num_heads % self.num_kv_heads == 0
        return [
            (divisible, "num_heads must be a multiple of num_kv_heads"),
            (self.head_width % 2 == 0, "head_width must be even"),
        ]


@dataclass(frozen=True)
class TinyMUConfig(ConfigBase):
    """The full model and the layout of its token sequence (published code: m2t.py)."""

    encoder: MatpacConfig = nested(MatpacConfig)
    """The frozen audio encoder."""
    projector: ProjectorConfig = nested(ProjectorConfig)
    """Maps encoder outputs to the decoder's width."""
    decoder: SmolLM2Config = nested(SmolLM2Config)
    """The language model."""
    pooling: int = 1
    """Encoder vectors averaged into one before the projector (published: `ds_rate`)."""
    max_text_tokens: int = 129
    """Length that prompts are padded to, and maximum length of answers, in tokens."""
    pad_token: int = 17
    """Token that pads prompts: the real token "!"."""
    separator_token: int = 0
    """Token between audio and prompt."""
    end_token: int = 0
    """Token that ends an answer."""
    max_seconds: float = 10.0
    """Seconds of a recording that are encoded, from its start."""
    ignore_pad_labels: bool = True
    """Exclude every "!" of an answer from the loss, as the published code does."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints between the parts."""
        projector, encoded = self.projector, self.encoder.output_width
        special = max(self.pad_token, self.separator_token, self.end_token)
        return [
            (special < self.decoder.vocab_size, "special tokens must be in the vocabulary"),
            (
                projector.input_width == encoded,
                f"projector.input_width must be the encoder's {encoded}",
            ),
            (
                projector.output_width == self.decoder.width,
                f"projector.output_width must be the decoder's {self.decoder.width}",
            ),
        ]


PUBLISHED = "AndreasXi/TinyMU"
"""Hub name of the published checkpoint."""

NANO = "nano"
"""Name of the small checkpoint in the package."""

SMOLLM2_PRESETS: dict[str, SmolLM2Config] = {
    "SmolLM2-135M": SmolLM2Config(),
    "SmolLM2-360M": SmolLM2Config(
        width=960, depth=32, num_heads=15, num_kv_heads=5, mlp_width=2560
    ),
    "SmolLM2-1.7B": SmolLM2Config(
        width=2048,
        depth=24,
        num_heads=32,
        num_kv_heads=32,
        mlp_width=8192,
        rope_theta=130_000.0,
    ),
}


def smollm2_preset(name: str) -> SmolLM2Config | None:
    """Returns the config of a hub model such as "HuggingFaceTB/SmolLM2-135M", or None."""
    return SMOLLM2_PRESETS.get(name.rsplit("/", 1)[-1].removesuffix("-Instruct"))


@dataclass(frozen=True)
class PredictorConfig(ConfigBase):
    """Predicts the embeddings of masked patches from those of visible patches."""

    width: int = 512
    """Model width D."""
    depth: int = 8
    """Number of transformer blocks."""
    num_heads: int = 16
    """Attention heads N, each width / num_heads wide."""
    mlp_ratio: int = 4
    """Hidden width of an MLP relative to `width`."""
    hypotheses: int = 5
    """Predictions per patch: 1 is MATPAC, more is MATPAC++ (multiple choice learning)."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints between fields."""
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4"),
            (self.hypotheses >= 1, "hypotheses must be 1 or more"),
        ]


@dataclass(frozen=True)
class ClassHeadConfig(ConfigBase):
    """Assigns embeddings to unsupervised classes, as in DINO (arXiv 2104.14294)."""

    hidden_width: int = 2048
    """Width of the two hidden layers."""
    bottleneck: int = 256
    """Width of the normalized embeddings that are compared with the classes."""
    num_classes: int = 2048
    """Number of classes."""


@dataclass(frozen=True)
class SelfSupervisedConfig(ConfigBase):
    """MATPAC pre-training: predict masked patches, and classify them as the teacher does."""

    encoder: MatpacConfig = field(
        default_factory=lambda: MatpacConfig(num_frames=608), metadata={"config": MatpacConfig}
    )
    """The encoder; its `num_frames` is the length of a training crop."""
    predictor: PredictorConfig = nested(PredictorConfig)
    """Predicts masked patches from visible ones."""
    class_head: ClassHeadConfig = nested(ClassHeadConfig)
    """Classifies patch embeddings."""
    mask_ratio: float = 0.7
    """Fraction of the patches hidden from the student."""
    class_loss_weight: float = 0.5
    """Weight of the classification loss; the prediction loss gets the rest."""
    mcl_temperature: float = 0.1
    """Softmax temperature of the hypothesis weights (multiple choice learning) at step 0."""
    mcl_temperature_decay: float = 0.99997
    """Factor applied to that temperature at each step."""
    mcl_temperature_end: float = 1e-4
    """At and below this temperature only the best hypothesis counts."""
    student_temperature: float = 0.1
    """Softmax temperature of the student's class logits."""
    teacher_temperature: float = 0.04
    """Softmax temperature of the teacher's class logits at step 0."""
    teacher_temperature_end: float = 0.07
    """Softmax temperature of the teacher's class logits after its warm-up."""
    teacher_warmup: int = 9827
    """Steps over which the teacher's temperature rises."""
    centre: Literal["probabilities", "logits"] = "probabilities"
    """What the running mean that centres the teacher's logits averages: `probabilities`, as
    published, or `logits`, as in DINO (arXiv 2104.14294)."""
    centre_momentum: float = 0.9
    """Momentum of that running mean."""
    encoder_ema_decay: float = 0.99995
    """EMA decay of the teacher's encoder at step 0."""
    encoder_ema_decay_end: float = 0.99999
    """EMA decay of the teacher's encoder at the last step."""
    head_ema_decay: float = 0.998
    """EMA decay of the teacher's class head at step 0."""
    head_ema_decay_end: float = 1.0
    """EMA decay of the teacher's class head at the last step. Beyond the last step,
    `encoder_ema_decay_end` applies to both, as published."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns the constraints between fields."""
        fractions = ("class_loss_weight", "centre_momentum", "encoder_ema_decay")
        fractions += ("encoder_ema_decay_end", "head_ema_decay", "head_ema_decay_end")
        temperatures = ("mcl_temperature", "mcl_temperature_end", "student_temperature")
        temperatures += ("teacher_temperature", "teacher_temperature_end")
        decay = self.mcl_temperature_decay
        return [
            (0 < self.visible < self.patches, "mask_ratio must leave some patches and hide some"),
            (self.encoder.head is None, "encoder.head must be left out"),
            (0 < decay <= 1, "mcl_temperature_decay must be above 0 and at most 1"),
            (self.teacher_warmup >= 0, "teacher_warmup must be 0 or more"),
            *((0 <= getattr(self, n) <= 1, f"{n} must be from 0 to 1") for n in fractions),
            *((getattr(self, n) > 0, f"{n} must be above 0") for n in temperatures),
        ]

    @property
    def patches(self) -> int:
        """Patches per crop (190 for 608 frames)."""
        return self.encoder.rows * self.encoder.columns

    @property
    def visible(self) -> int:
        """Patches per crop that the student encodes (57)."""
        return int(self.patches * (1 - self.mask_ratio))
