"""Frozen dataclasses with the sizes and options of every model."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.utils.config_base import ConfigBase, nested

ComputeDtype = Literal["float32", "bfloat16", "float16"]
Remat = Literal["none", "attention", "full"]
GradientDtype = Literal["float32", "bfloat16"]
AttentionKind = Literal["reference", "flash", "cudnn"]
ProjectorKind = Literal["linear", "residual", "transformer"]
MAX_POSITION_TABLE = 2**24
"""Largest number of entries in a table of position embeddings (published: 238,080)."""


@dataclass(frozen=True)
class HeadConfig(ConfigBase):
    """Config of a classifier on top of the encoder: MATPAC++'s AudioSet head, or a linear probe."""

    kind: Literal["audioset", "probe"] = "audioset"
    """`audioset`: mean of all patch embeddings, BatchNorm, linear layer. `probe`: mean of the
    encoder outputs over time, linear layer."""
    num_classes: int = 527
    """Number of classes."""
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """Final activation: `softmax`, as published, or `sigmoid` if a clip may have several labels."""


@dataclass(frozen=True)
class MatpacConfig(ConfigBase):
    """Config of MATPAC++'s encoder, a ViT over log-mel patches (arXiv 2508.12709, section III)."""

    width: int = 768
    """Model width D."""
    depth: int = 12
    """Number of transformer blocks L."""
    num_heads: int = 12
    """Number of attention heads N; the width of a head is `width` / `num_heads`."""
    mlp_ratio: int = 4
    """Ratio of an MLP's hidden width to `width`."""
    num_mels: int = 80
    """Number of mel bands F; must be 80."""
    num_frames: int = 992
    """Number of log-mel frames (10 ms) per chunk of audio: 608 in pre-training, 992 on AudioSet."""
    patch_size: int = 16
    """Side of a square patch, in mel bands and in frames."""
    compute_dtype: ComputeDtype = "float32"
    """Data type of activations and of the inputs of matrix products. Sums in products, norms,
    softmax and parameters are float32. `bfloat16` is faster, with about 3 significant digits
    instead of 7. `tinymu_jax.load` overrides a checkpoint's value."""
    remat: Remat = "none"
    """Gradient checkpointing: keep all activations for the backward pass (`none`), only the outputs
    of linear layers and of `flash` attention (`attention`), or only the input of each layer
    (`full`)."""
    attention: AttentionKind = "reference"
    """How attention in training is computed: by XLA (`reference`), or fused, without scores in main
    memory, by a Pallas kernel for TPUs (`flash`) or by cuDNN (`cudnn`)."""
    gradient_dtype: GradientDtype = "float32"
    """Data type of the gradients of linear layers' weights, in which devices also add them up."""
    head: HeadConfig | None = nested(HeadConfig, default=False)
    """Config of the classifier; None if the checkpoint has no classifier."""

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4"),
            (self.num_mels == 80, "num_mels must be 80, as the log-mel front end computes them"),
            (self.num_mels % self.patch_size == 0, "num_mels must be a multiple of patch_size"),
            (self.num_frames % self.patch_size == 0, "num_frames must be one of patch_size"),
            (
                self.rows * self.columns * self.width <= MAX_POSITION_TABLE,
                "num_frames or width is too large for a table of positions",
            ),
        ]

    @property
    def rows(self) -> int:
        """Number of patches along the frequency axis (5 at the published sizes)."""
        return self.num_mels // self.patch_size

    @property
    def columns(self) -> int:
        """Number of patches along the time axis of a full chunk (62 for 992 frames)."""
        return self.num_frames // self.patch_size

    @property
    def output_width(self) -> int:
        """Width E of an output vector: a column's concatenated patch embeddings (3840)."""
        return self.rows * self.width


@dataclass(frozen=True)
class ProjectorConfig(ConfigBase):
    """Config of the projector from encoder to decoder (TinyMU, arXiv 2604.15849, section 3)."""

    kind: ProjectorKind = "linear"
    """`linear`, as published; `residual` and `transformer` are from the paper's ablations."""
    input_width: int = 3840
    """Width E of the encoder's output vectors."""
    hidden_width: int = 2048
    """Width of the hidden layer; `linear` only."""
    output_width: int = 576
    """Model width D of the decoder."""
    dropout: float = 0.5
    """Dropout rate in training; `residual` only."""
    num_vectors: int = 32
    """Number of output vectors, whatever the length of the clip; `transformer` only."""
    depth: int = 8
    """Number of transformer layers; `transformer` only."""
    num_heads: int = 8
    """Number of attention heads; `transformer` only."""
    mlp_ratio: int = 2
    """Ratio of an MLP's hidden width to `output_width`; `transformer` only."""

    def rules(self) -> list[tuple[bool, str]]:
        divisible = self.output_width % self.num_heads == 0 or self.kind != "transformer"
        return [
            (self.dropout < 1, "dropout must be below 1"),
            (divisible, "output_width must be a multiple of num_heads"),
        ]

    def num_outputs(self, num_inputs: int | float) -> int | float:
        """Return the number of output vectors for `num_inputs` input vectors."""
        return self.num_vectors if self.kind == "transformer" else num_inputs


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the decoder's linear layers to which LoRA adapters can be added."""


@dataclass(frozen=True)
class LoraConfig(ConfigBase):
    """LoRA (arXiv 2106.09685): W x + (alpha / rank) B A dropout(x); the defaults are TinyMU's."""

    rank: int = 32
    """Inner width r of the factors A and B."""
    alpha: float = 128.0
    """Numerator of the scale `alpha` / `rank` of an adapter's output."""
    dropout: float = 0.1
    """Dropout rate of an adapter's input in training."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the layers that get adapters, from `LORA_TARGETS`."""

    def rules(self) -> list[tuple[bool, str]]:
        unknown = [name for name in self.targets if name not in LORA_TARGETS]
        return [
            (self.dropout < 1, "dropout must be below 1"),
            (bool(self.targets), "targets must name a layer"),
            (not unknown, f"targets must be of {', '.join(LORA_TARGETS)}, not {unknown}"),
        ]


@dataclass(frozen=True)
class SmolLM2Config(ConfigBase):
    """Config of a SmolLM2 decoder: Llama's architecture with tied embeddings."""

    vocab_size: int = 49152
    """Vocabulary size V."""
    width: int = 576
    """Model width D."""
    depth: int = 30
    """Number of layers L."""
    num_heads: int = 9
    """Number of query heads N, a multiple of `num_kv_heads`."""
    num_kv_heads: int = 3
    """Number of key/value heads K."""
    head_width: int = 64
    """Head width H."""
    mlp_width: int = 1536
    """Hidden width of the gated MLP."""
    rope_theta: float = 100_000.0
    """Base of the RoPE frequencies."""
    norm_eps: float = 1e-5
    """Epsilon that RMSNorm adds to the mean square."""
    compute_dtype: ComputeDtype = "float32"
    """Data type of activations and of the inputs of matrix products; see `MatpacConfig`."""
    remat: Remat = "none"
    """Gradient checkpointing: keep all activations for the backward pass (`none`), only the outputs
    of linear layers and of `flash` attention (`attention`), or only the input of each layer
    (`full`)."""
    attention: AttentionKind = "reference"
    """How attention in training is computed: by XLA (`reference`), or fused, without scores in main
    memory, by a Pallas kernel for TPUs (`flash`) or by cuDNN (`cudnn`)."""
    gradient_dtype: GradientDtype = "float32"
    """Data type of the gradients of linear layers' weights, in which devices also add them up."""
    lora: LoraConfig | None = nested(LoraConfig, default=False)
    """Config of the LoRA adapters; None without adapters, or if they are merged into the
    weights."""

    def rules(self) -> list[tuple[bool, str]]:
        divisible = self.num_heads % self.num_kv_heads == 0
        return [
            (divisible, "num_heads must be a multiple of num_kv_heads"),
            (self.head_width % 2 == 0, "head_width must be even"),
        ]


@dataclass(frozen=True)
class TinyMUConfig(ConfigBase):
    """Config of the full model and of its token sequence (published code: m2t.py)."""

    encoder: MatpacConfig = nested(MatpacConfig)
    """Config of the audio encoder."""
    projector: ProjectorConfig = nested(ProjectorConfig)
    """Config of the projector, which maps encoder outputs to the decoder's width."""
    decoder: SmolLM2Config = nested(SmolLM2Config)
    """Config of the language model."""
    pooling: int = 1
    """Number of encoder vectors averaged into one before the projector (published: `ds_rate`)."""
    max_text_tokens: int = 129
    """Padded length of a prompt in tokens; also the maximum number of answer tokens."""
    pad_token: int = 17
    """Id of the token that pads prompts: "!", which may also occur in texts."""
    separator_token: int = 0
    """Id of the token between audio and prompt."""
    end_token: int = 0
    """Id of the token that ends an answer."""
    max_seconds: float = 10.0
    """Maximum number of seconds that are encoded, from the start of a recording."""
    ignore_pad_labels: bool = True
    """Whether the loss ignores every "!" (the pad token) of an answer, as in the published code."""

    def rules(self) -> list[tuple[bool, str]]:
        projector, encoded = self.projector, self.encoder.output_width
        special = max(self.pad_token, self.separator_token, self.end_token)
        return [
            (special < self.decoder.vocab_size, "special tokens must be in the vocabulary"),
            (
                self.pooling <= self.encoder.columns,
                f"pooling must be at most the {self.encoder.columns} vectors of a chunk",
            ),
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
"""Name of the published checkpoint on the Hugging Face hub."""
NANO = "nano"
"""Name of the small checkpoint that the package contains."""
SMOLLM2_PRESETS: dict[str, SmolLM2Config] = {
    "SmolLM2-135M": SmolLM2Config(),
    "SmolLM2-360M": SmolLM2Config(
        width=960, depth=32, num_heads=15, num_kv_heads=5, mlp_width=2560
    ),
    "SmolLM2-1.7B": SmolLM2Config(
        width=2048, depth=24, num_heads=32, num_kv_heads=32, mlp_width=8192, rope_theta=130_000.0
    ),
}


def smollm2_preset(name: str) -> SmolLM2Config | None:
    """Return the config for a hub name ("HuggingFaceTB/SmolLM2-135M"), or None if it is unknown."""
    return SMOLLM2_PRESETS.get(name.rsplit("/", 1)[-1].removesuffix("-Instruct"))


@dataclass(frozen=True)
class PredictorConfig(ConfigBase):
    """Config of the network that predicts masked patches' embeddings from visible patches."""

    width: int = 512
    """Model width D."""
    depth: int = 8
    """Number of transformer blocks."""
    num_heads: int = 16
    """Number of attention heads N; the width of a head is `width` / `num_heads`."""
    mlp_ratio: int = 4
    """Ratio of an MLP's hidden width to `width`."""
    hypotheses: int = 5
    """Number of predictions per patch: 1 in MATPAC, 5 in MATPAC++ (multiple choice learning)."""

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4"),
            (self.hypotheses >= 1, "hypotheses must be 1 or more"),
        ]


@dataclass(frozen=True)
class ClassHeadConfig(ConfigBase):
    """Config of the network that assigns patches to learned classes (DINO, arXiv 2104.14294)."""

    hidden_width: int = 2048
    """Width of the two hidden layers."""
    bottleneck: int = 256
    """Width of the last layer's input, which is normalized to length 1."""
    num_classes: int = 2048
    """Number of classes."""


@dataclass(frozen=True)
class SelfSupervisedConfig(ConfigBase):
    """Config of MATPAC's pre-training: a student predicts a teacher's output for masked patches."""

    encoder: MatpacConfig = field(
        default_factory=lambda: MatpacConfig(num_frames=608), metadata={"config": MatpacConfig}
    )
    """Config of the encoder; its `num_frames` is the length of a training crop in frames."""
    predictor: PredictorConfig = nested(PredictorConfig)
    """Config of the network that predicts masked patches' embeddings from visible patches."""
    class_head: ClassHeadConfig = nested(ClassHeadConfig)
    """Config of the network that classifies patch embeddings."""
    mask_ratio: float = 0.7
    """Fraction of a crop's patches that are hidden from the student."""
    class_loss_weight: float = 0.5
    """Weight w of the classification loss; the prediction loss has weight 1 - w."""
    mcl_temperature: float = 0.1
    """Softmax temperature at step 0 of the weights of a patch's predictions (MATPAC++)."""
    mcl_temperature_decay: float = 0.99997
    """Factor by which `mcl_temperature` is multiplied at each step."""
    mcl_temperature_end: float = 1e-4
    """Minimum of `mcl_temperature`; once reached, the loss counts only a patch's best
    prediction."""
    student_temperature: float = 0.1
    """Softmax temperature of the student's class logits."""
    teacher_temperature: float = 0.04
    """Softmax temperature of the teacher's class logits at step 0."""
    teacher_temperature_end: float = 0.07
    """Softmax temperature of the teacher's class logits from step `teacher_warmup` on."""
    teacher_warmup: int = 9827
    """Number of steps over which `teacher_temperature` rises linearly to its final value."""
    centre: Literal["probabilities", "logits"] = "probabilities"
    """Outputs of the teacher whose running mean is subtracted from the teacher's class logits:
    `probabilities`, as published, or `logits`, as in DINO."""
    centre_momentum: float = 0.9
    """Weight of the old value when the running mean that `centre` selects is updated."""
    encoder_ema_decay: float = 0.99995
    """Decay of the moving average (EMA) of the teacher's encoder at step 0."""
    encoder_ema_decay_end: float = 0.99999
    """EMA decay of the teacher's encoder at the last step."""
    head_ema_decay: float = 0.998
    """EMA decay of the teacher's class head at step 0."""
    head_ema_decay_end: float = 1.0
    """EMA decay of the teacher's class head at the last step. Later steps use
    `encoder_ema_decay_end`, as published, unless the class head's decay is constant."""

    def rules(self) -> list[tuple[bool, str]]:
        fractions = ("class_loss_weight", "centre_momentum", "encoder_ema_decay")
        fractions += ("encoder_ema_decay_end", "head_ema_decay", "head_ema_decay_end")
        temperatures = ("mcl_temperature", "mcl_temperature_end", "student_temperature")
        temperatures += ("teacher_temperature", "teacher_temperature_end")
        decay = self.mcl_temperature_decay
        return [
            (0 < self.visible < self.patches, "mask_ratio must leave some patches and hide some"),
            (self.encoder.head is None, "encoder.head must be left out"),
            (
                self.patches * self.predictor.width <= MAX_POSITION_TABLE,
                "predictor.width is too large for a table of positions",
            ),
            (0 < decay <= 1, "mcl_temperature_decay must be above 0 and at most 1"),
            (self.teacher_warmup >= 0, "teacher_warmup must be 0 or more"),
            *((0 <= getattr(self, n) <= 1, f"{n} must be from 0 to 1") for n in fractions),
            *((getattr(self, n) > 0, f"{n} must be above 0") for n in temperatures),
        ]

    @property
    def patches(self) -> int:
        """Number of patches per crop (190 for 608 frames)."""
        return self.encoder.rows * self.encoder.columns

    @property
    def visible(self) -> int:
        """Number of patches per crop that the student encodes (57 at the published sizes)."""
        return int(self.patches * (1 - self.mask_ratio))
