"""Helpers for the notebooks in launch/colab: example data, csv tables, plots, recordings."""

import base64
import csv
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tinymu_jax.audio.files import list_audio_files
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import ComputeDtype
from tinymu_jax.utils.files import make_folder, read_text, write_atomic, write_text
from tinymu_jax.utils.plotting import new_figure, save_figure
from tinymu_jax.utils.tables import read_rows

QUESTION_COLUMNS = ("file", "question", "answer")
QUESTION_FACTS = ("timbre", "drums", "dynamics")
"""Properties of a clip that `make_example_questions` asks about."""
MIN_TSNE = 12
"""Minimum number of recordings for which `plot_embeddings` plots t-SNE beside PCA."""
NUM_COLOURS = 10
"""Number of colours for labels; further labels reuse the colours with another marker."""


def best_compute_dtype() -> ComputeDtype:
    """Return "bfloat16" if the first device computes in bfloat16 natively, else "float32".

    TPUs and NVIDIA GPUs of compute capability 8.0 or more do so; a T4 (7.5) does not.
    """
    import jax

    device = jax.devices()[0]
    # On AMD GPUs the capability is a name such as gfx90a.
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    native = device.platform == "tpu" or (major.isdecimal() and int(major) >= 8)
    return "bfloat16" if native else "float32"


def make_example_questions(folder: str | Path, clips: int, seconds: float, seed: int = 0) -> Path:
    """Synthesize music clips in `folder`, and write a csv of questions; return the csv's path.

    The questions are about instrument, drums and dynamics. Half of the clips have a timbre
    (`NEW_TIMBRE`) that the package's model nano was not trained on.
    """
    from tinymu_jax.data.question_formats import QA
    from tinymu_jax.data.synthetic.generate import CLIPS, LISTS, synthesize

    folder, rows = make_folder(folder), []
    counts = {NEW_TIMBRE: clips - clips // 2, "usual": clips // 2}
    for number, (name, count) in enumerate(counts.items()):
        config = SynthesisConfig(
            count,
            captions=0,
            open=len(FACTS),
            choice=0,
            binary=0,
            workers=1,
            seed=seed + number,
            seconds=seconds,
            timbre=NEW_TIMBRE if name == NEW_TIMBRE else None,
            extra=(NEW_TIMBRE,),
        )
        synthesize(folder / name, config)
        for record in json.loads(read_text(folder / name / LISTS[QA])):
            if record["facts"][0] in QUESTION_FACTS:
                path = f"{name}/{CLIPS}/{record['file_name']}"
                rows.append((path, record["input_text"], record["target_text"]))
    return _write_csv(folder / "questions.csv", [QUESTION_COLUMNS, *rows])


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
    return path


def read_questions(path: str | Path) -> list[dict[str, str]]:
    """Read the columns file, question and answer of a csv, as records with MusicSkills' keys.

    Raises:
        InputError: the file cannot be read, lacks a column, has no rows, or has an empty field.
    """
    header = ",".join(QUESTION_COLUMNS)
    remedy = f"save a csv in UTF-8 with the line {header}, and one line for each question"
    records = []
    for row in read_rows(Path(path), QUESTION_COLUMNS, remedy):
        file, *texts = QUESTION_COLUMNS
        fields = (row.name(file), *map(row.filled, texts))
        record = dict(zip(("file_name", "input_text", "target_text"), fields, strict=True))
        records.append(record | {"dataset": Path(path).stem, "task": "QA"})
    if not records:
        raise InputError(f"{path}: has no rows; write one line for each question")
    return records


def label_by_folder(folder: str | Path, path: str | Path) -> Path:
    """Write a csv of recordings and their labels, the subfolders of `folder`; return its path.

    Raises:
        InputError: there are no recordings, or a recording is not in a subfolder.
    """
    rows = [("file", "label")]
    for recording in list_audio_files(folder):
        relative = recording.relative_to(folder)
        if len(relative.parts) < 2:
            raise InputError(
                f"{recording}: is not in a folder named by its label; move it into one"
            )
        rows.append((str(relative), relative.parts[0]))
    return _write_csv(Path(path), rows)


def html_table(columns: Mapping[str, Sequence[str]]) -> str:
    """Return an HTML table; `columns` maps the heading of each column to its cells."""

    def row(tag: str, texts: Sequence[str]) -> str:
        cells = (f"<{tag} style='text-align:left'>{html.escape(text)}</{tag}>" for text in texts)
        return f"<tr>{''.join(cells)}</tr>"

    rows = (row("td", texts) for texts in zip(*columns.values(), strict=True))
    return f"<table>{row('th', list(columns))}{''.join(rows)}</table>"


def plot_percentages(fractions: Mapping[str, float], path: str | Path, title: str = "") -> None:
    """Plot fractions (0 to 1) as horizontal bars in percent; save the image to `path`."""
    figure, axes = new_figure(8, 0.9 + 0.45 * len(fractions))
    percent = [100 * fraction for fraction in fractions.values()]
    places = np.arange(len(percent))[::-1]
    axes.bar_label(axes.barh(places, percent, 0.6, color="tab:blue"), fmt="%.1f", padding=3)
    axes.set_yticks(places, list(fractions), parse_math=False)
    axes.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, parse_math=False, loc="left")
    save_figure(figure, path)


def pca_2d(vectors: Float[np.ndarray, "B E"]) -> Float[np.ndarray, "B 2"]:
    """Project vectors onto their first two principal components."""
    left, singular_values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    return (left * singular_values)[:, :2]


def plot_embeddings(
    vectors: Float[np.ndarray, "B E"],
    labels: Sequence[str],
    path: str | Path,
    wrong: Sequence[int] = (),
) -> None:
    """Plot recordings' embeddings in two dimensions by PCA, and save the image to `path`.

    For at least `MIN_TSNE` recordings, a second plot shows t-SNE. Colour and marker show the label.
    Rings mark the recordings with the indices `wrong`, which a classifier gets wrong.
    """
    panels = {"PCA: directions of largest variance": pca_2d(vectors)}
    if len(vectors) >= MIN_TSNE:
        from sklearn.manifold import TSNE

        scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
        tsne = TSNE(perplexity=min(30.0, len(vectors) / 4), init="pca", random_state=0)
        panels["t-SNE: neighbours stay together"] = tsne.fit_transform(scaled)
    figure, first = new_figure(5.2 * len(panels), 5.2)
    first.remove()
    label_of_row = np.asarray(labels)
    for number, (title, points) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), number)
        for kind, name in enumerate(sorted(set(labels))):
            marker = "os^Dv"[kind // NUM_COLOURS % 5]
            style = {"color": f"C{kind % NUM_COLOURS}", "marker": marker, "s": 32}
            xy = points[label_of_row == name].T
            axes.scatter(*xy, **style, label=name, alpha=0.85, linewidths=0)
        if len(wrong):
            ring = {"facecolors": "none", "edgecolors": "black", "s": 110, "linewidths": 1.2}
            axes.scatter(*points[list(wrong)].T, **ring, label="the probe is wrong")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize="medium", loc="left")
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(5, len(handles[0])))
    save_figure(figure, path)


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
  // The context resamples to its rate while decoding.
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
"""JavaScript: records the microphone for SECONDS; returns 16-bit samples (RATE Hz) as base64."""


def in_colab() -> bool:
    """Return whether this process runs in Google Colab."""
    return find_spec("google") is not None and find_spec("google.colab") is not None


def get_recording(source: str, folder: str | Path, seconds: float = 10.0) -> Path:
    """Upload, record, synthesize or find a recording, and return its path.

    `source` is `upload` or `record` (in Colab; elsewhere the user is asked for a path), `example`
    for a synthesized clip, or a path. New files are saved in `folder`; new clips last `seconds`.

    Raises:
        InputError: nothing was chosen, the file does not exist, or there is no microphone.
    """
    if source == "example":
        return synthesize_recording(make_folder(folder) / "example.wav", seconds)
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
    """Ask the user to upload a file in Colab, save it in `folder`, and return its path.

    Raises:
        InputError: nothing was uploaded.
    """
    from google.colab import files

    uploaded = files.upload()
    if not uploaded:
        raise InputError("nothing was uploaded: run the cell again and choose a file")
    name, content = next(iter(uploaded.items()))
    path = make_folder(folder) / Path(name).name
    path.write_bytes(content)
    return path


def record(path: Path, seconds: float) -> Path:
    """Record the microphone in Colab to a 16 kHz wav file, and return the file's path.

    Raises:
        InputError: there is no microphone, or the browser sends no samples.
    """
    from google.colab import output

    code = RECORDER.replace("SECONDS", f"{seconds:g}").replace("RATE", str(SAMPLE_RATE))
    print(f"recording {seconds:g} s ...", flush=True)
    try:
        encoded = output.eval_js(code, timeout_sec=seconds + 60)
    except Exception as error:
        raise InputError(
            f"the browser gave no microphone ({error}); allow it for this page, or upload a file"
        ) from error
    samples = np.frombuffer(base64.b64decode(encoded or ""), np.int16)
    if not len(samples):
        raise InputError("the browser sent no sound: run the cell again, or upload a file")
    return _write_wav(path, samples)


def synthesize_recording(path: Path, seconds: float) -> Path:
    """Write a clip of synthetic music to a 16 kHz wav file, and return the file's path."""
    from tinymu_jax.data.synthetic.generate import make_clip

    return _write_wav(path, make_clip(SynthesisConfig(seconds=seconds), 0)[1])


def _write_wav(path: Path, samples: np.ndarray) -> Path:
    import soundfile

    def write(partial: Path) -> None:
        soundfile.write(os.fsencode(partial), samples, SAMPLE_RATE, "PCM_16", format="WAV")

    write_atomic(path, write)
    return path
