"""Changes the sound of a clip as rooms, microphones, tapes, telephones and codecs do.

Every effect is drawn from a random generator. None changes what is played: the pitch moves by a
third of a semitone at most, and the tempo with it.
"""

import io

import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio.log_mel import SAMPLE_RATE

Samples = Float32[np.ndarray, "n"]


def add_effects(samples: Samples, rng: np.random.Generator) -> Samples:
    """Return a clip of the same length with random effects; a few clips get none."""
    if rng.random() < 0.4:
        samples = change_speed(samples, 2 ** ((rng.random() - 0.5) * 0.6 / 12))
    if rng.random() < 0.5:
        samples = add_room(samples, rng)
    if rng.random() < 0.5:
        samples = equalize(samples, rng)
    if rng.random() < 0.15:
        samples = limit_band(samples, rng)
    if rng.random() < 0.15:
        samples = saturate(samples, rng)
    if rng.random() < 0.5:
        samples = add_noise(samples, rng)
    samples = set_level(samples, rng)
    return recode(samples, rng) if rng.random() < 0.25 else samples


def set_level(samples: Samples, rng: np.random.Generator) -> Samples:
    """Scale a clip to a peak of -30 to 0 dB of full scale."""
    peak = np.abs(samples).max()
    if peak == 0:
        return samples
    decibels = -30 * rng.random() ** 2
    return samples * np.float32(0.98 * 10 ** (decibels / 20) / peak)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play a clip faster or slower, which changes its pitch too; the end is filled with zeros."""
    at = np.arange(len(samples)) * factor
    return np.interp(at, np.arange(len(samples)), samples, right=0).astype(np.float32)


def add_room(samples: Samples, rng: np.random.Generator) -> Samples:
    """Convolve a clip with the response of a random room: early echoes, then decaying noise."""
    from scipy.signal import fftconvolve

    seconds = 0.15 * 16 ** rng.random()  # time in which the reverb falls by 60 dB
    count = int(seconds * SAMPLE_RATE)
    decay = np.exp(-6.9 * np.arange(count) / count)
    response = (rng.standard_normal(count) * decay).astype(np.float32)
    response[: int(0.005 * SAMPLE_RATE)] = 0
    echoes = rng.integers(int(0.003 * SAMPLE_RATE), int(0.05 * SAMPLE_RATE), 6)
    np.add.at(response, echoes[echoes < count], 3.0)
    response /= np.sqrt((response**2).sum())
    wet = fftconvolve(samples, response)[: len(samples)]
    level = 0.1 + 0.6 * rng.random()
    scale = np.sqrt((samples**2).mean() / max((wet**2).mean(), 1e-12))
    return ((1 - level) * samples + level * scale * wet).astype(np.float32)


def equalize(samples: Samples, rng: np.random.Generator) -> Samples:
    """Tilt the spectrum, and boost or cut three bands by up to 9 dB (in the frequency domain)."""
    size = len(samples)
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20) / 1000)
    decibels = (rng.random() - 0.5) * 4 * octave
    for _ in range(3):
        centre, width = -4 + 7 * rng.random(), 0.4 + 1.2 * rng.random()
        decibels += (rng.random() - 0.5) * 18 * np.exp(-(((octave - centre) / width) ** 2))
    return np.fft.irfft(spectrum * 10 ** (decibels / 20), size).astype(np.float32)


def limit_band(samples: Samples, rng: np.random.Generator) -> Samples:
    """Cut what a telephone, a small loudspeaker or an old tape does not carry."""
    from scipy.signal import butter, sosfilt

    kinds = ((300, 3400), (150, 7000), (30, 3000), (60, 5000))
    low, high = kinds[int(rng.random() * len(kinds))]
    band = butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    return sosfilt(band, samples).astype(np.float32)


def saturate(samples: Samples, rng: np.random.Generator) -> Samples:
    """Distort loud samples, as tapes and small loudspeakers do."""
    peak = np.abs(samples).max() or 1
    drive = np.float32(1 + 4 * rng.random())
    return np.tanh(drive * samples / peak).astype(np.float32)


def add_noise(samples: Samples, rng: np.random.Generator) -> Samples:
    """Add white or brownish noise or hum, 15 to 55 dB below the clip."""
    kind = rng.random()
    if kind < 0.2:
        hum = (50, 60)[int(2 * rng.random())]
        phase = 2 * np.pi * hum * np.arange(len(samples)) / SAMPLE_RATE
        noise = np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)
    else:
        noise = rng.standard_normal(len(samples))
        if kind < 0.6:
            noise = colour(noise, -6 * rng.random())
    ratio = 10 ** (-(15 + 40 * rng.random()) / 20)
    scale = np.sqrt((samples**2).mean() / max((noise**2).mean(), 1e-12))
    return (samples + ratio * scale * noise).astype(np.float32)


def colour(noise: np.ndarray, decibels_per_octave: float) -> np.ndarray:
    """Return noise whose spectrum falls by so many decibels per octave."""
    spectrum = np.fft.rfft(noise)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE), 20) / 1000)
    return np.fft.irfft(spectrum * 10 ** (decibels_per_octave * octave / 20), len(noise))


def recode(samples: Samples, rng: np.random.Generator) -> Samples:
    """Encode and decode a clip as mp3 or Vorbis of low quality."""
    import soundfile

    container, subtype = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"))[int(2 * rng.random())]
    buffer = io.BytesIO()
    # libsndfile refuses a level of almost 1.
    quality = 0.5 + 0.45 * rng.random()
    with soundfile.SoundFile(
        buffer, "w", SAMPLE_RATE, 1, subtype, format=container, compression_level=quality
    ) as file:
        file.write(samples)
    buffer.seek(0)
    decoded = soundfile.read(buffer, dtype="float32")[0][: len(samples)]
    return np.pad(decoded, (0, len(samples) - len(decoded)))
