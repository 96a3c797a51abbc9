"""Computes the features that data sets store: waveforms, log-mels, embeddings or text tokens."""

from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from tinymu_jax.audio.files import find_file
from tinymu_jax.audio.load import Clip, read_clip
from tinymu_jax.audio.log_mel import SAMPLE_RATE, log_mel, num_frames
from tinymu_jax.audio.resample import RESAMPLERS
from tinymu_jax.data.config import FeatureConfig, FeatureKind
from tinymu_jax.errors import InputError, note_damage
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.files import read_text
from tinymu_jax.utils.shapes import round_up


def read_recording(path: str | Path, config: FeatureConfig) -> Clip:
    """Read a recording with the config's channel, resampler and maximum duration.

    A note tells of a damaged recording of which only a part is used.
    """
    clip = read_clip(
        path,
        config.max_seconds,
        mono=config.mono,
        resampler=RESAMPLERS[config.resampler],
        keep_damaged=config.keep_damaged,
    )
    if clip.damage:
        note_damage(str(path), clip.damage)
    return clip


def as_waveform(clip: Clip) -> np.ndarray:
    """Convert a clip to int16 samples, (n,); lossless for files of 16 bits at 16 kHz."""
    return np.clip(np.round(clip.samples * 32768), -32768, 32767).astype(np.int16)


_log_mel = jax.jit(log_mel)


def as_log_mel(clip: Clip) -> np.ndarray:
    """Compute the normalized log-mel of a clip: (frames, 80) float16."""
    # Padding to whole seconds leaves few shapes to compile, and does not change the clip's frames.
    padded = np.zeros(round_up(len(clip.samples), SAMPLE_RATE), np.float32)
    padded[: len(clip.samples)] = clip.samples
    frames = np.asarray(_log_mel(padded))[: num_frames(len(clip.samples))]
    return frames.astype(np.float16)


def read_text_tokens(path: str | Path, tokenizer: Tokenizer) -> np.ndarray:
    """Tokenize a text file: (tokens,) int32; raise `InputError` if it is unreadable or empty."""
    tokens = tokenizer.encode(read_text(find_file(path), "name a folder with the texts"))
    if not tokens:
        raise InputError(f"{path}: is empty; write a text into it, or take it out of the list")
    return np.array(tokens, np.int32)


def as_embeddings(vectors: np.ndarray) -> np.ndarray:
    """Convert the encoder's embeddings of a clip, (vectors, width), to bfloat16."""
    return np.asarray(vectors).astype(ml_dtypes.bfloat16)


def num_columns(features: np.ndarray, kind: FeatureKind, patch_size: int) -> int:
    """Return a clip's number of encoder outputs, one per `patch_size` frames, or of text tokens."""
    if kind in ("embeddings", "text"):
        return len(features)
    frames = num_frames(len(features)) if kind == "waveform" else len(features)
    return -(-frames // patch_size)
