"""TinyMU in plain PyTorch, the reference of the tests and the benchmarks.

Parameter and buffer names are those of the published checkpoint, so its state dict loads strictly.
Nothing is optimized except `TinyMU.generate_cached`, the baseline of a benchmark.
"""

import copy
import math
from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SAMPLE_RATE = 16_000
MELS = 80
PATCH = 16
ROWS = MELS // PATCH  # patches above each other: 5
LOGMEL_MEAN, LOGMEL_STD = -7.056, 4.193
AUDIOSET_CLASSES = 527

END, SEP, PAD = 0, 0, 17  # PAD is the real token "!"
TEXT_LENGTH = 129
IGNORED = -100

FULL_SIZES = {
    "encoder": {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4, "n_t": 992},
    "lm": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "head_dim": 64,
    },
    "projector": {"d_in": 3840, "d_h": 2048, "d_out": 576},
}

# --- audio -------------------------------------------------------------------------------------


def resample(
    waveform: torch.Tensor,
    rate: int,
    new_rate: int = SAMPLE_RATE,
    zeros: int = 6,
    rolloff: float = 0.99,
    beta: float | None = None,
) -> torch.Tensor:
    """Windowed-sinc resampling of `(samples,)`, as torchaudio does; `beta` of a Kaiser window.

    `zeros` are the zero crossings of the sinc on each side, `rolloff` the cutoff under Nyquist.
    """
    if rate == new_rate:
        return waveform
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    cutoff = min(old, new) * rolloff
    half = math.ceil(zeros * old / cutoff)

    # One filter per output phase. The phase offset is an integer division, which torch does in
    # float32; everything else is float64.
    phase = torch.arange(0, -new, -1)[:, None] / new
    taps = torch.arange(-half, half + old, dtype=torch.float64)[None, :] / old
    time = ((phase + taps) * cutoff).clamp(-zeros, zeros)
    if beta is None:
        window = torch.cos(time * math.pi / zeros / 2).square()
    else:
        height = torch.tensor(beta)
        window = torch.i0(height * torch.sqrt(1 - (time / zeros) ** 2)) / torch.i0(height)
    angle = time * math.pi
    sinc = torch.where(angle == 0, 1.0, torch.sin(angle) / angle)
    filters = (sinc * (window * (cutoff / old))).to(torch.float32).to(waveform.device)

    padded = F.pad(waveform, (half, half + old))[None, None]
    phases = F.conv1d(padded, filters[:, None], stride=old)[0]  # (new, steps)
    # torchaudio rounds the quotient to float32 before the ceiling: long clips at odd rates can
    # come out one sample shorter than the exact ceiling says.
    length = int(torch.ceil(torch.tensor(new * len(waveform) / old, dtype=torch.float32)))
    return phases.T.reshape(-1)[:length]


def mel_filters(
    bins: int = 201, bands: int = MELS, low: float = 50.0, high: float = 8000.0
) -> torch.Tensor:
    """Slaney mel filters with Slaney's area norm, `(bins, bands)`, rounded as torchaudio's."""
    hz_per_mel = 200.0 / 3
    knee_mel = 1000.0 / hz_per_mel  # linear below 1 kHz, logarithmic above
    log_step = math.log(6.4) / 27.0

    def to_mel(hz: float) -> float:
        if hz < 1000.0:
            return hz / hz_per_mel
        return knee_mel + math.log(hz / 1000.0) / log_step

    # linspace and exp round differently from one kind of CPU to the next. Worked out in float64 and
    # rounded once, both give what torch gave where the published filters were made.
    start, stop = torch.tensor([to_mel(low), to_mel(high)])
    step = ((stop - start) / (bands + 1)).double()
    index = torch.arange(bands + 2)
    mels = torch.where(
        index < (bands + 2) // 2, start + step * index, stop - step * (bands + 1 - index)
    ).float()
    above = torch.exp((log_step * (mels - knee_mel)).double()).float()
    edges = torch.where(mels >= knee_mel, 1000.0 * above, hz_per_mel * mels)
    frequencies = torch.arange(bins) * (SAMPLE_RATE / 2 / (bins - 1))
    gap = edges[1:] - edges[:-1]
    distance = edges[None, :] - frequencies[:, None]
    rising = -distance[:, :-2] / gap[:-1]
    falling = distance[:, 2:] / gap[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return triangles * (2.0 / (edges[2:] - edges[:-2]))


class _Float32Buffers(nn.Module):
    """Keeps its own buffers in float32 when a model around it is cast.

    A window, a filter bank or RoPE frequencies in bfloat16 would be a different model, not a
    faster one.
    """

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self


class _Spectrogram(_Float32Buffers):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(400))


class _MelScale(_Float32Buffers):
    def __init__(self):
        super().__init__()
        self.register_buffer("fb", mel_filters())


class _MelSpectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectrogram = _Spectrogram()
        self.mel_scale = _MelScale()


class LogMel(nn.Module):
    """Normalised log-mel: `(B, samples)` at 16 kHz to `(B, 80, frames)`, in its window's dtype.

    That is float32, whatever the model around it is cast to; see `to_float64`.
    """

    def __init__(self):
        super().__init__()
        self.MelSpectrogram = _MelSpectrogram()

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        window = self.MelSpectrogram.spectrogram.window
        spectrum = torch.stft(
            waveform.to(window.dtype), 400, 160, window=window, center=False, return_complex=True
        )
        power = spectrum.abs().square()
        mel = (power.transpose(1, 2) @ self.MelSpectrogram.mel_scale.fb).transpose(1, 2)
        return (torch.log(mel + torch.finfo(torch.float32).eps) - LOGMEL_MEAN) / LOGMEL_STD


# --- encoder -----------------------------------------------------------------------------------


def sincos_positions(rows: int, columns: int, width: int) -> torch.Tensor:
    """Return positions `(1, 1 + rows * columns, width)`, the class token's row being zero."""

    def axis(index: torch.Tensor) -> torch.Tensor:
        count = width // 4
        omega = 10_000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
        angle = index.reshape(-1, 1) * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    table = torch.cat([axis(column), axis(row)], dim=1)
    return F.pad(table, (0, 0, 1, 0))[None].float()


class _PatchEmbed(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, stride=PATCH)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        # A matrix product, since patches do not overlap: oneDNN's bfloat16 convolution gives NaN on
        # some CPUs for a chunk of one column. Patches come out frequency-major.
        batch, _, frames = image.shape
        grid = image.reshape(batch, ROWS, PATCH, frames // PATCH, PATCH).transpose(2, 3)
        return F.linear(
            grid.reshape(batch, -1, PATCH**2), self.proj.weight.flatten(1), self.proj.bias
        )


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, activation=F.gelu):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width, int(width * mlp_ratio))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Blocks(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        outputs[-1] = self.norm(x)
        return outputs


class Matpac(nn.Module):
    """MATPAC++ encoder, with its AudioSet head or a linear probe if asked for."""

    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        n_t: int = 992,
        audioset_head: bool = False,
        probe_classes: int | None = None,
    ):
        super().__init__()
        self.n_t = n_t
        columns = n_t // PATCH
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(
            sincos_positions(ROWS, columns, embed_dim), requires_grad=False
        )
        self.patch_embed = _PatchEmbed(embed_dim)
        self.student_encoder = _Blocks(embed_dim, depth, num_heads, mlp_ratio)
        self.log_mel = LogMel()
        if audioset_head:
            self.head_norm = nn.BatchNorm1d(embed_dim, affine=False)
            self.head = nn.Linear(embed_dim, AUDIOSET_CLASSES)
        if probe_classes is not None:
            self.probe = nn.Linear(ROWS * embed_dim, probe_classes)

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Encode one chunk `(B, 80, frames)` to each layer's `(B, frames / 16, 5 * D)`."""
        patches = self.patch_embed(image.to(self.patch_embed.proj.weight.dtype))
        batch, count, width = patches.shape
        columns = count // ROWS
        grid = self.pos_embed[:, 1:].reshape(1, ROWS, -1, width)[:, :, :columns]
        patches = patches + grid.reshape(1, count, width)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        outputs = self.student_encoder(torch.cat([first, patches], dim=1))
        return [
            output[:, 1:].reshape(batch, ROWS, columns, width).transpose(1, 2).flatten(2)
            for output in outputs
        ]

    def _precise(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        image = self.log_mel(waveform)
        image = F.pad(image, (0, -image.shape[-1] % PATCH))
        chunks = [self.encode(chunk) for chunk in image.split(self.n_t, dim=-1)]
        return [torch.cat(layer, dim=1) for layer in zip(*chunks, strict=True)]

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Embed `(B, samples)` to `(B, T, 5 * D)`; a short last chunk stays short."""
        return self._precise(waveform)[-1]

    def layers(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return every layer's output `(B, depth, T, 5 * D)`, the last one normalised."""
        return torch.stack(self._precise(waveform), dim=1)

    def fast(self, waveform: torch.Tensor) -> torch.Tensor:
        """Embed all chunks, padded to full length, as one batch; interleaved as published.

        Row `t * chunks + chunk` holds vector t of that chunk, so time order is lost.
        """
        image = self.log_mel(waveform)
        image = F.pad(image, (0, -image.shape[-1] % self.n_t))
        batch, _, frames = image.shape
        chunks = frames // self.n_t
        stacked = image.reshape(batch, MELS, chunks, self.n_t).transpose(1, 2)
        vectors = self.encode(stacked.flatten(0, 1))[-1]
        return vectors.reshape(batch, chunks, -1, vectors.shape[-1]).transpose(1, 2).flatten(1, 2)

    def class_probabilities(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return `(B, classes)` of the AudioSet head, or else of the probe.

        The AudioSet classes stand in the order of their sorted `mid`, not of their index.
        """
        vectors = self(waveform)
        if hasattr(self, "head"):
            clip = vectors.unflatten(-1, (ROWS, -1)).mean(dim=2).mean(dim=1)
            logits = self.head(self.head_norm(clip))
        else:
            logits = self.probe(vectors.mean(dim=1))
        return logits.softmax(dim=-1)


# --- projectors --------------------------------------------------------------------------------


class LinearProjector(nn.Module):
    """The published projector: Linear, ReLU, Linear."""

    def __init__(self, d_in: int, d_out: int, d_h: int = 1024):
        super().__init__()
        self.linear1 = nn.Linear(d_in, d_h)
        self.linear2 = nn.Linear(d_h, d_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.linear1(x).relu())


class ResidualProjector(nn.Module):
    """Linear plus a GELU branch, then LayerNorm."""

    def __init__(self, d_in: int, d_out: int, p: float = 0.5):
        super().__init__()
        self.linear1 = nn.Linear(d_in, d_out, bias=False)
        self.linear2 = nn.Linear(d_out, d_out, bias=False)
        self.layer_norm = nn.LayerNorm(d_out)
        self.drop = nn.Dropout(p)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.linear1(x)
        return self.layer_norm(first + self.drop(self.linear2(F.gelu(first))))


class _ProjectorAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def by_head(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        key, value = self.to_keys_values(x).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(
            by_head(self.to_queries(x)), by_head(key), by_head(value)
        )
        return self.project(mixed.transpose(1, 2).flatten(2))


class _ProjectorBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _ProjectorAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width, 2 * width, F.relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _ProjectorBlocks(nn.Module):
    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(_ProjectorBlock(width, heads) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class TransformerProjector(nn.Module):
    """Learned vectors after the audio, a transformer over both; only the former are returned."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        prefix_length: int = 32,
        num_layers: int = 8,
        num_heads: int = 8,
    ):
        super().__init__()
        self.transformer = _ProjectorBlocks(d_out, num_heads, num_layers)
        self.linear = nn.Linear(d_in, d_out)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, d_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        learnt = self.prefix_const.expand(len(x), -1, -1)
        return self.transformer(torch.cat([self.linear(x), learnt], dim=1))[:, x.shape[1] :]


PROJECTORS = {
    "linearprojector": LinearProjector,
    "reslinearprojector": ResidualProjector,
    "transformerprojector": TransformerProjector,
}

# --- language model ----------------------------------------------------------------------------


class _Rotary(_Float32Buffers, LlamaRotaryEmbedding):
    """Llama's RoPE whose frequencies survive `.to(torch.bfloat16)`, as under from_pretrained."""


def build_llama(
    rms_norm_eps: float = 1e-5, rope_theta: float = 100_000.0, **sizes: int
) -> LlamaForCausalLM:
    """Llama with tied embeddings and SmolLM2's constants."""
    config = LlamaConfig(
        rms_norm_eps=rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        bos_token_id=END,
        eos_token_id=END,
        **sizes,
    )
    lm = LlamaForCausalLM(config)
    lm.model.rotary_emb = _Rotary(config)
    return lm


class _AudioEncoder(nn.Module):
    def __init__(self, enc: Matpac, ds_rate: int):
        super().__init__()
        self.enc = enc
        self.ds_rate = ds_rate

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        vectors = self.enc(waveform)
        if self.ds_rate == 1:
            return vectors
        # Vectors that do not fill a last group are dropped.
        return F.avg_pool1d(vectors.transpose(1, 2), self.ds_rate).transpose(1, 2)


class _TextDecoder(nn.Module):
    def __init__(self, lm: LlamaForCausalLM):
        super().__init__()
        self.lm = lm
        self.embed_fn = lm.model.embed_tokens  # registered twice, as in the published state dict


def _is_one(ids) -> bool:
    """Return whether ids are one sequence, not a list of sequences."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    return not len(ids) or isinstance(ids[0], Integral)


def _as_batch(ids) -> list[list[int]]:
    return [[int(i) for i in row] for row in ([ids] if _is_one(ids) else ids)]


def _pad(rows: list[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut or pad each row to 129 ids; the mask is 1 on real tokens, a real "!" among them."""
    ids = torch.full((len(rows), TEXT_LENGTH), PAD)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        row = row[:TEXT_LENGTH]
        ids[i, : len(row)] = torch.tensor(row, dtype=ids.dtype)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


class TinyMU(nn.Module):
    """The full model as published: everything is padded, and positions count the padding.

    `waveform` is `(samples,)` or `(B, samples)` at 16 kHz; token ids are one sequence, or a list
    of B sequences.
    """

    def __init__(self, encoder: Matpac, projector: nn.Module, lm: LlamaForCausalLM, ds_rate=1):
        super().__init__()
        self.audio_encoder = _AudioEncoder(encoder, ds_rate)
        self.projector = projector
        self.text_decoder = _TextDecoder(lm)

    def audio(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return the projected audio vectors `(B, A, d_out)`, in the decoder's dtype."""
        vectors = self.audio_encoder(torch.atleast_2d(waveform))
        # Encoder, projector and decoder may each have been cast by itself.
        vectors = self.projector(vectors.to(next(self.projector.parameters()).dtype))
        return vectors.to(self.text_decoder.embed_fn.weight.dtype)

    def prefix(
        self, waveform: torch.Tensor, prompt_ids: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings `(B, A + 130, D)` of [audio, sep, padded prompt] and their mask."""
        audio = self.audio(waveform)
        ids, mask = _pad(_as_batch(prompt_ids), audio.device)
        ids = F.pad(ids, (1, 0), value=SEP)
        mask = F.pad(mask, (1 + audio.shape[1], 0), value=1)
        return torch.cat([audio, self.text_decoder.embed_fn(ids)], dim=1), mask

    def _answer_logits(self, waveform, prompt_ids, targets: list[list[int]]):
        """Run prefix and padded targets; return logits, the targets' ids and their mask.

        `logits[:, j]` `(B, 129, V)` predict target j.
        """
        prefix, prefix_mask = self.prefix(waveform, prompt_ids)
        ids, mask = _pad(targets, prefix.device)
        logits = self.text_decoder.lm(
            inputs_embeds=torch.cat([prefix, self.text_decoder.embed_fn(ids)], dim=1),
            attention_mask=torch.cat([prefix_mask, mask], dim=1),
            use_cache=False,
        ).logits
        # The last place of the prefix predicts the first target.
        return logits[:, prefix.shape[1] - 1 : -1], ids, mask

    def target_logits(
        self, waveform: torch.Tensor, prompt_ids: Sequence[int], target_ids_with_end: Sequence[int]
    ) -> torch.Tensor:
        """Logits `(T, V)` that predict each of one question's T <= 129 target tokens."""
        (target,) = _as_batch(target_ids_with_end)
        if len(target) > TEXT_LENGTH:
            raise ValueError(f"{len(target)} target tokens, at most {TEXT_LENGTH}")
        logits, _, _ = self._answer_logits(waveform, prompt_ids, [target])
        return logits[0, : len(target)]

    def loss(
        self,
        waveform: torch.Tensor,
        prompt_ids: Sequence[int],
        target_ids: Sequence[int],
        ignore_bang: bool = True,
    ) -> torch.Tensor:
        """Cross-entropy of the answers, given without their end token.

        As published every label equal to 17 is ignored; `ignore_bang=False` ignores padding only.
        """
        targets = [
            [*row, END] if len(row) < TEXT_LENGTH else row[:TEXT_LENGTH]
            for row in _as_batch(target_ids)
        ]
        logits, ids, mask = self._answer_logits(waveform, prompt_ids, targets)
        ignored = ids == PAD if ignore_bang else mask == 0
        labels = ids.masked_fill(ignored, IGNORED)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)

    @torch.no_grad()
    def generate_published(
        self, waveform: torch.Tensor, prompt_ids: Sequence[int], max_new_tokens: int = 300
    ) -> list[int] | list[list[int]]:
        """Decode greedily, the whole sequence again for every token; ids before the end."""
        embeds, mask = self.prefix(waveform, prompt_ids)
        tokens, ended = [], False
        for _ in range(max_new_tokens):
            logits = self.text_decoder.lm(
                inputs_embeds=embeds, attention_mask=mask, use_cache=False
            ).logits
            token = logits[:, -1].argmax(dim=-1, keepdim=True)
            tokens.append(token)
            ended = ended | (token == END)
            if ended.all():
                break
            embeds = torch.cat([embeds, self.text_decoder.embed_fn(token)], dim=1)
            mask = F.pad(mask, (0, 1), value=1)
        return _before_end(tokens, prompt_ids)

    @torch.no_grad()
    def generate_cached(
        self,
        waveform: torch.Tensor,
        prompt_ids: Sequence[int],
        max_new_tokens: int = 300,
        stop: bool = True,
    ) -> list[int] | list[list[int]]:
        """Decode greedily with a key-value cache, logits at the last position only.

        With `stop=False` it generates all tokens (for timing) and returns them.
        """
        lm = self.text_decoder.lm
        embeds, mask = self.prefix(waveform, prompt_ids)
        length = mask.shape[1]
        mask = F.pad(mask, (0, max_new_tokens), value=1)
        cache = DynamicCache(config=lm.config)
        tokens, ended = [], False
        # No position ids: with or without the cache, a position id is the index.
        for step in range(max_new_tokens):
            logits = lm(
                inputs_embeds=embeds,
                attention_mask=mask[:, : length + step],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            token = logits[:, -1].argmax(dim=-1, keepdim=True)
            tokens.append(token)
            ended = ended | (token == END)
            if stop and ended.all():
                break
            embeds = self.text_decoder.embed_fn(token)
        return _before_end(tokens, prompt_ids, stop)


def _before_end(tokens: list[torch.Tensor], prompt_ids, cut: bool = True):
    """Cut each row at its end token; one row for one prompt, a list for a list of prompts."""
    rows = torch.cat(tokens, dim=1).tolist() if tokens else [[] for _ in _as_batch(prompt_ids)]
    if cut:
        rows = [row[: row.index(END)] if END in row else row for row in rows]
    return rows[0] if _is_one(prompt_ids) else rows


def build_tinymu(sizes: dict) -> TinyMU:
    """Build the model, in eval mode, from sizes laid out like `FULL_SIZES`.

    Optional: `encoder.ds_rate`, `projector.proj_name`, `lm.rope_theta`, `lm.rms_norm_eps`.
    """
    encoder = dict(sizes["encoder"])
    ds_rate = encoder.pop("ds_rate", 1)
    projector = dict(sizes["projector"])
    kind = PROJECTORS[projector.pop("proj_name", "linearprojector").lower()]
    if kind is TransformerProjector:
        projector.pop("d_h", None)
    return TinyMU(Matpac(**encoder), kind(**projector), build_llama(**sizes["lm"]), ds_rate).eval()


def to_float64(model: TinyMU) -> TinyMU:
    """Return a copy that computes in float64, log-mel included.

    RoPE's angles stay float32 products, which transformers computes in any data type: they are
    part of the published computation.
    """
    double = copy.deepcopy(model).double()
    mel = double.audio_encoder.enc.log_mel.MelSpectrogram
    mel.spectrogram.window, mel.mel_scale.fb = (
        mel.spectrogram.window.double(),
        mel.mel_scale.fb.double(),
    )
    return double
