"""Recordings for a notebook: uploaded, from the browser's microphone, or made on the spot."""

import base64
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tinymu_jax.audio import SAMPLE_RATE
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.errors import InputError
from tinymu_jax.files import make_folder, write_whole

RECORDER = """
(async () => {
  const stream = await navigator.mediaDevices.getUserMedia({audio: true});
  const recorder = new MediaRecorder(stream), parts = [];
  recorder.ondataavailable = event => parts.push(event.data);
  const stopped = new Promise(done => recorder.onstop = done);
  recorder.start();
  await new Promise(done => setTimeout(done, 1000 * SECONDS));
  recorder.stop();
  await stopped;
  stream.getTracks().forEach(track => track.stop());
  // A context of this rate resamples what it decodes, whatever the browser records in.
  const context = new AudioContext({sampleRate: RATE});
  const sound = await context.decodeAudioData(await new Blob(parts).arrayBuffer());
  const samples = Int16Array.from(
    sound.getChannelData(0), x => Math.max(-32768, Math.min(32767, Math.round(32768 * x))));
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192)
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
})()
"""
"""Records the microphone in the browser; its value is 16-bit samples in base64."""


def in_colab() -> bool:
    """Returns whether this is a notebook in Colab."""
    return find_spec("google") is not None and find_spec("google.colab") is not None


def get_recording(source: str, folder: str | Path, seconds: float = 10.0) -> Path:
    """Returns the path of a recording.

    Args:
        source: `upload` or `record` (in Colab; elsewhere a path is asked for), `example` (made on
            the spot), or a path.
        folder: for what is uploaded, recorded or made.
        seconds: of what is recorded or made.

    Raises:
        InputError: nothing was given, there is no such file, or the browser gave no microphone.
    """
    if source == "example":
        return make_recording(make_folder(folder) / "example.wav", seconds)
    if source in ("upload", "record"):
        if not in_colab():
            source = input(f"{source} works in Colab only; path of a recording: ").strip()
        elif source == "upload":
            return upload(folder)
        else:
            return record(make_folder(folder) / "recorded.wav", seconds)
    if not source or not Path(source).is_file():
        raise InputError(f"{source!r}: no such file; name a recording, or use 'example'")
    return Path(source)


def upload(folder: str | Path) -> Path:
    """Asks for a file in Colab, and returns where it then lies.

    Raises:
        InputError: nothing was uploaded.
    """
    from google.colab import files

    found = files.upload()
    if not found:
        raise InputError("nothing was uploaded: run the cell again and choose a file")
    name, content = next(iter(found.items()))
    path = make_folder(folder) / Path(name).name
    path.write_bytes(content)
    return path


def record(path: Path, seconds: float) -> Path:
    """Records the microphone of Colab's browser to a wav file of 16 kHz.

    Raises:
        InputError: the browser gave no microphone, or sent nothing.
    """
    from google.colab import output

    code = RECORDER.replace("SECONDS", f"{seconds:g}").replace("RATE", str(SAMPLE_RATE))
    print(f"recording {seconds:g} s ...", flush=True)
    try:
        sent = output.eval_js(code, timeout_sec=seconds + 60)
    except Exception as error:
        raise InputError(
            f"the browser gave no microphone ({error}); allow it for this page, or upload a file"
        ) from error
    samples = np.frombuffer(base64.b64decode(sent or ""), np.int16)
    if not len(samples):
        raise InputError("the browser sent no sound: run the cell again, or upload a file")
    return _write_sound(path, samples)


def make_recording(path: Path, seconds: float) -> Path:
    """Writes a clip of synthetic music as a wav file.

    Raises:
        InputError: the place cannot be written to.
    """
    from tinymu_jax.data.synthetic import make_clip

    return _write_sound(path, make_clip(SynthesisConfig(seconds=seconds), 0)[1])


def _write_sound(path: Path, samples: np.ndarray) -> Path:
    import soundfile

    def write(partial: Path) -> None:
        soundfile.write(partial, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")

    write_whole(path, write)
    return path
