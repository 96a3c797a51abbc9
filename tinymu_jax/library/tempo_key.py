"""Estimates tempo and key by signal processing: librosa's beat tracker, and chroma with profiles.

No model is asked. Tempo is ambiguous by nature: half and double the number are right too, and the
estimate prefers what is near 120 beats per minute.
"""

import numpy as np
from jaxtyping import Float, Float32

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.utils.compilation_cache import import_librosa

PIECE_SECONDS = 30
"""Seconds of a recording whose tempo is estimated at a time; the median of these tempos is used."""
MIN_SECONDS = 4
"""Length, in seconds, below which a piece has too few beats for a tempo."""
MIN_BEAT_STRENGTH = 0.15
"""Least mean autocorrelation of the onset strength at one beat. White and pink noise reach 0.13;
95 % of synthetic clips have more than 0.15, half of them more than 0.7."""
MIN_TONALITY = 0.2
"""Least tonality (see `best_key`). Noise reaches 0.08; synthetic clips have 0.34 or more."""
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
PROFILES = {
    "major": (
        (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
        (5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0),
    ),
    "minor": (
        (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
        (5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0),
    ),
}
"""How well each semitone above the tonic fits a mode: by Krumhansl and Kessler (1982), and by
Temperley, "What's Key for Key?" (1999). The first alone names too many minor keys, the second too
many major ones; both together named most keys of synthetic clips, of all pairs of four profiles."""
_ONSET_HOP, _ONSET_FFT, _ONSET_MELS = 256, 1024, 64
_CHROMA_HOP, _CHROMA_FFT = 2048, 4096
_BINS_PER_SEMITONE = 3
_BEAT_WINDOW = 8
"""Seconds over which a beat must go on, as in librosa's tempogram."""
MIN_BEATS = 4
"""Number of beats from which their mean distance is used."""
MIN_TUNING_CLARITY = 0.5
"""Least length of the mean phase in a semitone by which a recording's tuning is taken from it."""
_QUIET = 0.02
"""Share of a piece's loudest frame below which a frame does not count for the key."""


class TempoKeyEstimator:
    """Estimates tempo and key of a recording that arrives in blocks, in bounded memory.

    The estimates do not depend on how the recording is cut into blocks::

        estimator = TempoKeyEstimator()
        for window in read_windows(path, seconds=10):
            estimator.add(window.samples, window.start)
        bpm, key = estimator.tempo(), estimator.key()
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        """Start with no samples; `sample_rate` is that of all blocks, in Hz."""
        self.sample_rate = sample_rate
        self._blocks: list[np.ndarray] = []
        self._waiting = self._end = 0
        self._tempos: list[tuple[float, float]] = []
        self._chroma = np.zeros(12 * _BINS_PER_SEMITONE)

    def add(self, samples: Float32[np.ndarray, "n"], start: float | None = None) -> None:
        """Add a block of mono samples.

        `start` is the block's start in the recording, in seconds, and must not be before an earlier
        block's; what an earlier block had already is left out. None: after the last block.
        """
        first = self._end if start is None else round(start * self.sample_rate)
        samples = samples[max(self._end - first, 0) :]
        if not len(samples):
            return
        if first > self._end:  # samples were left out between two blocks: no beat spans them
            self._flush()
        self._end = max(first, self._end) + len(samples)
        piece = PIECE_SECONDS * self.sample_rate
        while len(samples):
            block = samples[: piece - self._waiting]
            self._blocks.append(np.array(block, np.float32))
            self._waiting += len(block)
            samples = samples[len(block) :]
            if self._waiting == piece:
                self._flush()

    def tempo(self) -> float | None:
        """Return the tempo in beats per minute, with one decimal; None where no beat is heard."""
        self._flush()
        strong = [bpm for bpm, strength in self._tempos if strength >= MIN_BEAT_STRENGTH]
        if not strong or 2 * len(strong) < len(self._tempos):
            return None
        return round(float(np.median(strong)), 1)

    def key(self) -> str | None:
        """Return the key, such as "F# minor" (sharps only); None where no key is heard."""
        self._flush()
        key, tonality = best_key(fold_chroma(self._chroma))
        return key if tonality >= MIN_TONALITY else None

    def _flush(self) -> None:
        """Analyze the samples that wait."""
        if not self._blocks:
            return
        samples = np.concatenate(self._blocks)
        self._blocks, self._waiting = [], 0
        self._chroma += sum_chroma(samples, self.sample_rate)
        # A short rest after other pieces has too few beats.
        if len(samples) >= MIN_SECONDS * self.sample_rate:
            self._tempos.append(track_beats(samples, self.sample_rate))


def estimate_tempo_and_key(
    samples: Float32[np.ndarray, "n"], sample_rate: int = SAMPLE_RATE
) -> tuple[float | None, str | None]:
    """Return tempo and key of mono samples; see `TempoKeyEstimator`."""
    estimator = TempoKeyEstimator(sample_rate)
    estimator.add(samples)
    return estimator.tempo(), estimator.key()


def track_beats(samples: Float32[np.ndarray, "n"], sample_rate: int) -> tuple[float, float]:
    """Return the tempo of samples in beats per minute, and the beat's strength (-1 to 1).

    The tempo is the one that librosa's beat tracker follows, made finer: the mean distance of the
    beats that it places. See `beat_strength`.
    """
    librosa = import_librosa()  # here, since most commands need not wait for it
    options = {"sr": sample_rate, "hop_length": _ONSET_HOP}
    envelope = librosa.onset.onset_strength(
        y=samples, n_fft=_ONSET_FFT, n_mels=_ONSET_MELS, aggregate=np.median, **options
    )
    if not np.any(envelope):
        return 0.0, 0.0
    tempogram = librosa.feature.tempogram(onset_envelope=envelope, **options)
    bpm = librosa.feature.tempo(tg=tempogram.mean(axis=1, keepdims=True), **options)[0]
    frames_per_second = sample_rate / _ONSET_HOP
    strength = beat_strength(
        envelope, round(60 * frames_per_second / bpm), round(_BEAT_WINDOW * frames_per_second)
    )
    _, beats = librosa.beat.beat_track(
        onset_envelope=envelope, bpm=bpm, trim=False, units="time", **options
    )
    if len(beats) >= MIN_BEATS:
        bpm = 60 / np.polyfit(np.arange(len(beats)), beats, 1)[0]
    return float(bpm), strength


def beat_strength(envelope: Float[np.ndarray, "frames"], lag: int, window: int) -> float:
    """Return the autocorrelation of an onset envelope at `lag` frames, or one frame beside it.

    It is the mean over windows of `window` frames that overlap by half, each without its mean: two
    loud events alone are no beat.
    """
    window = min(window, len(envelope))
    strengths = []
    for frames in np.lib.stride_tricks.sliding_window_view(envelope, window)[:: window // 2 or 1]:
        frames = frames - frames.mean()
        energy = frames @ frames
        lags = [n for n in (lag - 1, lag, lag + 1) if 0 < n < window]
        peaks = [frames[n:] @ frames[:-n] * window / (window - n) for n in lags]
        strengths.append(max(peaks) / energy if peaks and energy > 0 else 0.0)
    return float(np.mean(strengths))


def sum_chroma(samples: Float32[np.ndarray, "n"], sample_rate: int) -> Float[np.ndarray, "36"]:
    """Return how strong each third of a semitone is in samples, from C, in any octave.

    Frames count alike, loud or not, if they are not silent.
    """
    if len(samples) < _CHROMA_FFT:
        return np.zeros(12 * _BINS_PER_SEMITONE)
    librosa = import_librosa()
    spectrum = np.abs(librosa.stft(samples, n_fft=_CHROMA_FFT, hop_length=_CHROMA_HOP)) ** 2
    bank = librosa.filters.chroma(
        sr=sample_rate, n_fft=_CHROMA_FFT, n_chroma=12 * _BINS_PER_SEMITONE
    )
    chroma = bank @ spectrum
    peaks = chroma.max(axis=0)
    loud = peaks > _QUIET * peaks.max()
    return ((chroma[:, loud] / peaks[loud]) ** 2).sum(axis=1, dtype=np.float64)


def fold_chroma(fine: Float[np.ndarray, "36"]) -> Float[np.ndarray, "12"]:
    """Return the strength of each semitone from C, in the recording's tuning.

    The tuning is where in a semitone most of `fine` lies, so that a recording at 432 Hz is folded
    as one at 440 Hz is. If that is not clear, as with a wide vibrato, it is 440 Hz.
    """
    phases = np.exp(2j * np.pi * np.arange(_BINS_PER_SEMITONE) / _BINS_PER_SEMITONE)
    peaks = np.maximum(fine - np.median(fine), 0).reshape(12, _BINS_PER_SEMITONE).sum(axis=0)
    mean_phase = peaks @ phases
    is_clear = abs(mean_phase) > MIN_TUNING_CLARITY * peaks.sum()
    tuning = np.angle(mean_phase) / (2 * np.pi) if is_clear else 0.0  # in semitones
    # A shift by a part of a bin is a turn of each Fourier coefficient.
    turned = np.fft.rfft(fine)
    turned *= np.exp(2j * np.pi * np.arange(len(turned)) * tuning / 12)
    return np.fft.irfft(turned, len(fine))[::_BINS_PER_SEMITONE]


def best_key(chroma: Float[np.ndarray, "12"]) -> tuple[str, float]:
    """Return the key whose profiles correlate best with a chroma, and how tonal the chroma is.

    The second is the correlation times the chroma's spread over its mean: 0 for equal strengths.
    """
    spread = chroma.std()
    if not spread > 0:
        return "C major", 0.0
    keys = [(tonic, mode) for mode in PROFILES for tonic in range(12)]
    correlations = [
        np.mean([np.corrcoef(chroma, np.roll(p, tonic))[0, 1] for p in PROFILES[mode]])
        for tonic, mode in keys
    ]
    best = int(np.argmax(correlations))
    tonic, mode = keys[best]
    return f"{NOTES[tonic]} {mode}", float(correlations[best] * spread / chroma.mean())
