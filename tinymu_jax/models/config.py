"""Every size and switch of the models, as frozen dataclasses; presets of the published sizes."""

from dataclasses import dataclass, field
from typing import Literal

from tinymu_jax.utils.config_base import ConfigBase, nested

ComputeDtype = Literal["float32", "bfloat16"]

Remat = Literal["none", "attention", "full"]

HeadKind = Literal["audioset", "probe"]

HeadActivation = Literal["softmax", "sigmoid"]

ProjectorKind = Literal["linear", "residual", "transformer"]


@dataclass(frozen=True)
class HeadConfig(ConfigBase):
    """A classifier on top of the encoder (MATPAC++'s AudioSet head, or a linear probe)."""

    kind: HeadKind = "audioset"
    """`audioset`: rows averaged, BatchNorm statistics, Linear; `probe`: rows joined, Linear."""
    num_classes: int = 527
    """Number of outputs."""
    activation: HeadActivation = "softmax"
    """What makes probabilities of the outputs: `softmax`, which sum to one, as published;
    `sigmoid` where a recording may be of several classes, as ours learn."""


@dataclass(frozen=True)
class MatpacConfig(ConfigBase):
    """The MATPAC++ encoder: a ViT over log-mel patches (arXiv 2508.12709, section III)."""

    width: int = 768
    """Width D of each patch's vector."""
    depth: int = 12
    """Number of transformer blocks."""
    num_heads: int = 12
    """Attention heads; each has width / num_heads."""
    mlp_ratio: int = 4
    """Hidden width of a block's MLP over `width`."""
    num_mels: int = 80
    """Mel bands F of the log-mel; a multiple of `patch_size`."""
    num_frames: int = 992
    """Frames of one chunk (n_t): 992 in AudioSet-tuned checkpoints, 608 in self-supervised ones."""
    patch_size: int = 16
    """Side of a square patch, in bands and in frames."""
    compute_dtype: ComputeDtype = "float32"
    """`bfloat16` multiplies in bfloat16 and sums in float32: faster, 3 digits instead of 7. `load`
    sets it anew."""
    remat: Remat = "none"
    """What a training step computes again on the way back instead of keeping it: `attention` all
    but the outputs of matrix products, `full` all but the input of each layer."""
    head: HeadConfig | None = nested(HeadConfig, default=False)
    """The classifier, if the checkpoint has one."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the sizes."""
        return [
            (self.width % self.num_heads == 0, "width must be a multiple of num_heads"),
            (self.width % 4 == 0, "width must be a multiple of 4"),
            (self.num_mels == 80, "num_mels must be 80, as the front end makes them"),
            (self.num_mels % self.patch_size == 0, "num_mels must be a multiple of patch_size"),
            (self.num_frames % self.patch_size == 0, "num_frames must be one of patch_size"),
        ]

    @property
    def rows(self) -> int:
        """Patches on the frequency axis (5)."""
        return self.num_mels // self.patch_size

    @property
    def columns(self) -> int:
        """Patches on the time axis of a full chunk (62 for 992 frames)."""
        return self.num_frames // self.patch_size

    @property
    def output_width(self) -> int:
        """Width of one time step's vector: its rows joined (3840)."""
        return self.rows * self.width


@dataclass(frozen=True)
class ProjectorConfig(ConfigBase):
    """From the encoder's vectors to the decoder's width (TinyMU, arXiv 2604.15849, section 3)."""

    kind: ProjectorKind = "linear"
    """`linear` is the published one; the others are the paper's ablations."""
    input_width: int = 3840
    """Width of the encoder's vectors."""
    hidden_width: int = 2048
    """Hidden width of `linear`; the other kinds do not read it."""
    output_width: int = 576
    """Width of the decoder."""
    dropout: float = 0.5
    """Dropout of `residual` while training."""
    num_vectors: int = 32
    """Output vectors of `transformer`, whatever the clip's length."""
    depth: int = 8
    """Layers of `transformer`."""
    num_heads: int = 8
    """Attention heads of `transformer`."""
    mlp_ratio: int = 2
    """Hidden width of `transformer`'s MLP over `output_width`."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the sizes."""
        divides = self.output_width % self.num_heads == 0
        return [
            (self.dropout < 1, "dropout must be below 1"),
            (
                divides or self.kind != "transformer",
                "output_width must be a multiple of num_heads",
            ),
        ]

    def num_outputs(self, num_inputs: int | float) -> int | float:
        """Returns how many vectors come out for `num_inputs` vectors of audio."""
        return self.num_vectors if self.kind == "transformer" else num_inputs


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder that LoRA can be added to."""


@dataclass(frozen=True)
class LoraConfig(ConfigBase):
    """Low-rank additions to linear layers: W x + (alpha / rank) B A dropout(x) (arXiv 2106.09685).

    The defaults are those that TinyMU was published with.
    """

    rank: int = 32
    """Width r between the factors A and B."""
    alpha: float = 128.0
    """Over `rank`, what the addition is multiplied with."""
    dropout: float = 0.1
    """Share of the addition's inputs that is left out in training."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the layers that are added to, of `LORA_TARGETS`."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold of the fields."""
        unknown = [name for name in self.targets if name not in LORA_TARGETS]
        return [
            (self.dropout < 1, "dropout must be below 1"),
            (bool(self.targets), "targets must name a layer"),
            (not unknown, f"targets must be of {', '.join(LORA_TARGETS)}, not {unknown}"),
        ]


@dataclass(frozen=True)
class SmolLM2Config(ConfigBase):
    """A decoder of the SmolLM2 family (Llama's architecture with a tied embedding)."""

    vocab_size: int = 49152
    """Rows V of the embedding."""
    width: int = 576
    """Width D of the residual stream."""
    depth: int = 30
    """Number of layers L."""
    num_heads: int = 9
    """Query heads N."""
    num_kv_heads: int = 3
    """Key/value heads K; N is a multiple of K."""
    head_width: int = 64
    """Width H of one head."""
    mlp_width: int = 1536
    """Hidden width of the gated MLP."""
    rope_theta: float = 100_000.0
    """Base of the rotary positions' wavelengths."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    compute_dtype: ComputeDtype = "float32"
    """As `MatpacConfig.compute_dtype`."""
    remat: Remat = "none"
    """As `MatpacConfig.remat`."""
    lora: LoraConfig | None = nested(LoraConfig, default=False)
    """What is added to the layers while LoRA is trained and not yet merged."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the sizes."""
        return [
            (
                self.num_heads % self.num_kv_heads == 0,
                "num_heads must be a multiple of num_kv_heads",
            ),
            (self.head_width % 2 == 0, "head_width must be even"),
        ]


@dataclass(frozen=True)
class TinyMUConfig(ConfigBase):
    """The whole model and the rules of its token sequence (reference: m2t.py as published)."""

    encoder: MatpacConfig = nested(MatpacConfig)
    """The frozen audio encoder."""
    projector: ProjectorConfig = nested(ProjectorConfig)
    """The bridge between the two."""
    decoder: SmolLM2Config = nested(SmolLM2Config)
    """The language model."""
    pooling: int = 1
    """Encoder vectors averaged into one before the projector (`ds_rate`)."""
    max_text_tokens: int = 129
    """Prompts and answers are laid out on this many positions each."""
    pad_token: int = 17
    """Pads prompts; it is the real token "!"."""
    separator_token: int = 0
    """Stands between audio and prompt."""
    end_token: int = 0
    """Ends an answer."""
    max_seconds: float = 10.0
    """How much of a recording is heard, from its start."""
    ignore_pad_labels: bool = True
    """Leave every "!" of an answer out of the loss, as the published code does."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the parts."""
        heard, bridge = self.encoder.output_width, self.projector
        special = max(self.pad_token, self.separator_token, self.end_token)
        return [
            (special < self.decoder.vocab_size, "special tokens must be in the vocabulary"),
            (bridge.input_width == heard, f"projector.input_width must be the encoder's {heard}"),
            (
                bridge.output_width == self.decoder.width,
                f"projector.output_width must be the decoder's {self.decoder.width}",
            ),
        ]


PUBLISHED = "AndreasXi/TinyMU"
"""Hub name of the published checkpoint."""

NANO = "nano"
"""Name of the small checkpoint that comes with the package."""

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
    """Returns the sizes of a decoder by its hub name ("HuggingFaceTB/SmolLM2-135M"), or None."""
    short = name.rsplit("/", 1)[-1].removesuffix("-Instruct")
    return SMOLLM2_PRESETS.get(short)


Centre = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class PredictorConfig(ConfigBase):
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
class ClassHeadConfig(ConfigBase):
    """What sorts vectors into classes that nobody named."""

    hidden_width: int = 2048
    """Of its MLP's two hidden layers."""
    bottleneck: int = 256
    """Width of the normalised vectors that classes are compared with."""
    num_classes: int = 2048
    """Number of classes."""


@dataclass(frozen=True)
class SelfSupervisedConfig(ConfigBase):
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
    class_loss_weight: float = 0.5
    """Of the loss; the rest is prediction's."""
    mcl_temperature: float = 0.1
    """Of the softmax that weighs the hypotheses of a patch, at the first step."""
    mcl_temperature_decay: float = 0.99997
    """What that is multiplied with at each step."""
    mcl_temperature_end: float = 1e-4
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
    encoder_ema_decay: float = 0.99995
    """Share of the teacher's encoder that a step keeps, at the first step."""
    encoder_ema_decay_end: float = 0.99999
    """And at the last one."""
    head_ema_decay: float = 0.998
    """Share of the teacher's class head that a step keeps, at the first step."""
    head_ema_decay_end: float = 1.0
    """And before the last one; past it, `encoder_ema_decay_end` holds for both, as published."""

    def rules(self) -> list[tuple[bool, str]]:
        """Returns what must hold between the numbers."""
        shares = (
            "class_loss_weight",
            "centre_momentum",
            "encoder_ema_decay",
            "encoder_ema_decay_end",
        )
        shares += ("head_ema_decay", "head_ema_decay_end")
        temperatures = ("mcl_temperature", "mcl_temperature_end", "student_temperature")
        temperatures += ("teacher_temperature", "teacher_temperature_end")
        return [
            (0 < self.visible < self.patches, "mask_ratio must leave some patches and hide some"),
            (self.encoder.head is None, "encoder.head must be left out"),
            (
                0 < self.mcl_temperature_decay <= 1,
                "mcl_temperature_decay must be above 0 and at most 1",
            ),
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
