"""What the notebooks in launch/colab need: lists from a csv, tables, pictures.

Nothing here is needed to train or to ask; matplotlib and sklearn are imported where they are used.
"""

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import ComputeDtype
from tinymu_jax.utils.files import make_folder, read_text, write_atomic, write_text

QUESTION_COLUMNS = ("file", "question", "answer")

ASKED_FOR = ("timbre", "drums", "dynamics")
"""Facts that questions are made about."""

MANY = 12
"""Recordings from which on neighbours mean something, so that t-SNE is drawn beside the PCA."""

NUMBERED_COLOURS = 10
"""Labels that differ in colour; further ones have another marker."""


def best_compute_dtype() -> ComputeDtype:
    """Returns what to multiply in: bfloat16 where the device has it, else float32.

    TPUs have it, and NVIDIA's cards from compute capability 8 on; a T4 (7.5) emulates it.
    """
    import jax

    device = jax.devices()[0]
    # AMD's cards have a name there, such as gfx90a.
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    has_it = device.platform == "tpu" or (major.isdecimal() and int(major) >= 8)
    return "bfloat16" if has_it else "float32"


def make_example_questions(folder: str | Path, clips: int, seconds: float, seed: int = 0) -> Path:
    """Writes clips and questions.csv about them, for those who have none at hand.

    Half of the clips have a timbre that nano does not know (`NEW_TIMBRE`), half a usual one; each
    is asked for its instrument, its drums and its dynamics.

    Returns:
        The csv; its files lie beside it.

    Raises:
        InputError: the folder cannot be written to.
    """
    import json

    from tinymu_jax.data.question_formats import QA
    from tinymu_jax.data.synthetic.generate import CLIPS, LISTS, synthesize

    folder, rows = make_folder(folder), []
    counts = {NEW_TIMBRE: clips - clips // 2, "usual": clips // 2}
    for number, (name, count) in enumerate(counts.items()):
        own = folder / name
        timbre = NEW_TIMBRE if name == NEW_TIMBRE else None
        parts = {"captions": 0, "open": len(FACTS), "choice": 0, "binary": 0, "workers": 1}
        parts |= {"seconds": seconds, "timbre": timbre, "extra": (NEW_TIMBRE,)}
        config = SynthesisConfig(count, seed=seed + number, **parts)
        synthesize(own, config)
        for asked in json.loads(read_text(own / LISTS[QA])):
            if asked["facts"][0] in ASKED_FOR:
                path = f"{name}/{CLIPS}/{asked['file_name']}"
                rows.append((path, asked["input_text"], asked["target_text"]))
    return _write_table(folder / "questions.csv", [QUESTION_COLUMNS, *rows])


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
    return path


def read_questions(path: str | Path) -> list[dict[str, str]]:
    """Reads a csv of file, question and answer as records of a list in MusicSkills' format.

    Raises:
        InputError: it cannot be read, lacks a column, has no rows, or has an empty field.
    """
    # Excel's "CSV UTF-8" begins with a mark of the byte order.
    text = read_text(path, "save it as a csv in UTF-8").removeprefix("\ufeff")
    table = csv.DictReader(io.StringIO(text))
    rows, names = list(table), table.fieldnames or ()
    missing = [name for name in QUESTION_COLUMNS if name not in names]
    if missing:
        raise InputError(
            f"{path}: has no {' and no '.join(missing)}; begin it with the line "
            f"{','.join(QUESTION_COLUMNS)}, and one line for each question"
        )
    if not rows:
        raise InputError(f"{path}: has no rows; write one line for each question")
    found = []
    for number, row in enumerate(rows, 2):
        file, question, answer = ((row[name] or "").strip() for name in QUESTION_COLUMNS)
        if not (file and question and answer):
            raise InputError(f"{path}: line {number} has an empty field; fill it or take it out")
        record = {"file_name": file, "input_text": question, "target_text": answer}
        found.append(record | {"dataset": Path(path).stem, "task": "QA"})
    return found


def label_by_folder(folder: str | Path, path: str | Path) -> Path:
    """Writes a csv of file and label for recordings that lie in one folder for each label.

    Raises:
        InputError: there are no recordings, or one lies outside such a folder.
    """
    from tinymu_jax.audio.load import list_audio_files

    rows = [("file", "label")]
    for found in list_audio_files(folder):
        inside = found.relative_to(folder)
        if len(inside.parts) < 2:
            raise InputError(f"{found}: lies in no folder of its label; put it into one")
        rows.append((str(inside), inside.parts[0]))
    return _write_table(Path(path), rows)


def html_table(columns: Mapping[str, Sequence[str]]) -> str:
    """Returns a table as HTML, its columns by their names."""
    cell = "<td style='text-align:left'>{}</td>"
    head = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in columns)
    rows = (
        "<tr>" + "".join(cell.format(html.escape(text)) for text in row) + "</tr>"
        for row in zip(*columns.values(), strict=True)
    )
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def plot_percentages(shares: Mapping[str, float], path: str | Path, title: str = "") -> None:
    """Writes a picture of shares (0 to 1) as bars in percent, the first one at the top.

    Raises:
        InputError: matplotlib is not installed; the place cannot be written to.
    """
    from tinymu_jax.utils.plotting import new_figure, save_figure

    figure, axes = new_figure(8, 0.9 + 0.45 * len(shares))
    percent = [100 * share for share in shares.values()]
    places = np.arange(len(percent))[::-1]
    drawn = axes.barh(places, percent, 0.6, color="tab:blue")
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set_yticks(places, list(shares), parse_math=False)
    axes.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, parse_math=False, loc="left")
    save_figure(figure, path)


def pca_2d(vectors: Float[np.ndarray, "R E"]) -> Float[np.ndarray, "R 2"]:
    """Returns vectors on the plane in which they differ most (PCA)."""
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return (left * sizes)[:, :2]


def plot_embeddings(
    vectors: Float[np.ndarray, "R E"],
    labels: Sequence[str],
    path: str | Path,
    wrong: Sequence[int] = (),
) -> None:
    """Writes a picture of recordings by their vectors: PCA, and t-SNE where there are `MANY`.

    Args:
        vectors: of each recording.
        labels: of each; they give its colour.
        path: of the picture; its suffix says the format.
        wrong: numbers of recordings that get a ring.

    Raises:
        InputError: matplotlib is not installed; the place cannot be written to.
    """
    from tinymu_jax.utils.plotting import new_figure, save_figure

    places = {"PCA: where they differ most": pca_2d(vectors)}
    if len(vectors) >= MANY:
        from sklearn.manifold import TSNE

        scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-6)
        near = min(30.0, len(vectors) / 4)
        drawn = TSNE(perplexity=near, init="pca", random_state=0).fit_transform(scaled)
        places["t-SNE: neighbours stay together"] = drawn
    figure, first = new_figure(5.2 * len(places), 5.2)
    first.remove()
    names, own = sorted(set(labels)), np.asarray(labels)
    for number, (title, points) in enumerate(places.items(), 1):
        axes = figure.add_subplot(1, len(places), number)
        for kind, name in enumerate(names):
            chosen = points[own == name]
            marker = "os^Dv"[kind // NUMBERED_COLOURS % 5]
            style = {"color": f"C{kind % NUMBERED_COLOURS}", "marker": marker, "s": 32}
            axes.scatter(*chosen.T, **style, label=name, alpha=0.85, linewidths=0)
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


def synthesize_recording(path: Path, seconds: float) -> Path:
    """Writes a clip of synthetic music as a wav file.

    Raises:
        InputError: the place cannot be written to.
    """
    from tinymu_jax.data.synthetic.generate import make_clip

    return _write_sound(path, make_clip(SynthesisConfig(seconds=seconds), 0)[1])


def _write_sound(path: Path, samples: np.ndarray) -> Path:
    import soundfile

    def write(partial: Path) -> None:
        soundfile.write(partial, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")

    write_atomic(path, write)
    return path
