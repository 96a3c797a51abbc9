"""Every size and switch of the models, as frozen dataclasses; presets of the published sizes."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tinymu_jax.errors import InputError

Products = Literal["float32", "bfloat16"]
HeadKind = Literal["audioset", "probe"]
ProjectorKind = Literal["linear", "residual", "transformer"]


class _Serialised:
    """To and from plain dictionaries, refusing keys that no field reads."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain containers, ready for json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> Self:
        """Builds the config from `to_dict()`'s result.

        Raises:
            InputError: a key that is no field, named with `where` it was found.
        """
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected an object with fields, found {values!r}")
        known = {f.name: f for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise InputError(
                    f"{where}: unknown key {key!r}; remove it or use one of {', '.join(known)}"
                )
        made = {}
        for key, value in values.items():
            nested = known[key].metadata.get("config")
            made[key] = (
                nested.from_dict(value, f"{where}.{key}") if nested and value is not None else value
            )
        return cls(**made)


def _nested(config: type, default: bool = True) -> Any:
    """Returns a field that holds another config, or None if there is no `default`."""
    if default:
        return field(default_factory=config, metadata={"config": config})
    return field(default=None, metadata={"config": config})


@dataclass(frozen=True)
class HeadConfig(_Serialised):
    """A classifier on top of the encoder (MATPAC++'s AudioSet head, or a linear probe)."""

    kind: HeadKind = "audioset"
    """`audioset`: rows averaged, BatchNorm statistics, Linear; `probe`: rows joined, Linear."""
    num_classes: int = 527
    """Number of outputs."""


@dataclass(frozen=True)
class MatpacConfig(_Serialised):
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
    products: Products = "float32"
    """`bfloat16` multiplies in bfloat16 and sums in float32: faster, 3 digits instead of 7."""
    head: HeadConfig | None = _nested(HeadConfig, default=False)
    """The classifier, if the checkpoint has one."""

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
class ProjectorConfig(_Serialised):
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

    def num_outputs(self, num_inputs: int) -> int:
        """Returns how many vectors come out for `num_inputs` vectors of audio."""
        return self.num_vectors if self.kind == "transformer" else num_inputs


@dataclass(frozen=True)
class SmolLM2Config(_Serialised):
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
    products: Products = "float32"
    """As `MatpacConfig.products`."""


@dataclass(frozen=True)
class TinyMUConfig(_Serialised):
    """The whole model and the rules of its token sequence (reference: m2t.py as published)."""

    encoder: MatpacConfig = _nested(MatpacConfig)
    """The frozen audio encoder."""
    projector: ProjectorConfig = _nested(ProjectorConfig)
    """The bridge between the two."""
    decoder: SmolLM2Config = _nested(SmolLM2Config)
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
