"""The notebooks run from top to bottom in their tiny mode."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.image
import nbformat
import numpy as np
import pytest
import torch
from helpers import ROOT
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

import tinymu_jax
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import make_clip
from tinymu_jax.data.synthetic.questions import name_of
from tinymu_jax.training.plots import read_losses

FOLDER = ROOT / "launch/colab"
NAMES = ("ask", "finetune", "pretrain_probe")
PATHS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 600
"""Timeout of a cell, or of a kernel's start, on a busy machine."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Folder with a kernel spec of this Python; nothing is installed."""
    folder = tmp_path_factory.mktemp("kernels")
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "tests", "language": "python"}
    (folder / "tests").mkdir()
    (folder / "tests/kernel.json").write_text(json.dumps(spec))
    return folder


def run_notebook(name, folder, kernels):
    """Runs a notebook in its own folder; returns its cells and the folder."""
    specs = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    # Ports that are looked for first may be taken by others before the kernel has them.
    files = {"transport": "ipc", "connection_file": str(kernels / f"{name}.json")}
    kernel = AsyncKernelManager(kernel_name="tests", kernel_spec_manager=specs, **files)
    page = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    part = {"TINYMU_TINY": "1", "TINYMU_CACHE": folder / "cache", "IPYTHONDIR": folder / "ipython"}
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    # The hub's client is told to download nothing.
    env |= {"HF_HUB_OFFLINE": "1"} | {key: str(value) for key, value in part.items()}
    place = {"metadata": {"path": str(folder)}}
    waits = {"timeout": SECONDS, "startup_timeout": SECONDS}
    client = NotebookClient(page, km=kernel, resources=place, **waits)
    client.execute(env=env, cleanup_kc=True)
    return SimpleNamespace(cells=page.cells, folder=folder)


def code_of(page):
    return [cell for cell in page.cells if cell.cell_type == "code"]


def printed(run):
    """Returns everything that the cells printed."""
    outputs = [output for cell in code_of(run) for output in cell.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


def shown(run, kind):
    """Returns the displayed outputs of a MIME type, in order."""
    outputs = [output for cell in code_of(run) for output in cell.outputs]
    return [o.data[kind] for o in outputs if kind in o.get("data", {})]


def pictures(run):
    """Returns the displayed images; each must have some content."""
    result = []
    for text in shown(run, "image/png"):
        pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(text)), "png")[..., :3]
        assert pixels.shape[0] > 150
        assert pixels.shape[1] > 800
        # Ink, and not only lines and letters.
        assert 0.02 < (pixels.min(-1) < 0.9).mean() < 0.98
        result.append(pixels)
    return result


@pytest.fixture(scope="module")
def asked(tmp_path_factory, kernels):
    return run_notebook("ask", tmp_path_factory.mktemp("ask"), kernels)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, kernels):
    return run_notebook("finetune", tmp_path_factory.mktemp("finetune"), kernels)


@pytest.fixture(scope="module")
def probed(tmp_path_factory, kernels):
    return run_notebook("pretrain_probe", tmp_path_factory.mktemp("probe"), kernels)


# --- their files ---------------------------------------------------------------------------------


def test_there_is_a_notebook_for_each_use():
    assert sorted(path.stem for path in PATHS) == sorted(NAMES)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_files_are_tidy(path):
    text = path.read_text("utf-8")
    page = nbformat.reads(text, as_version=4)
    nbformat.validate(page)
    assert (page.nbformat, page.nbformat_minor) == (4, 5)
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    assert [cell.id for cell in page.cells] == [
        f"{path.stem.replace('_', '-')}-{number:02d}" for number in range(len(page.cells))
    ]
    for cell in code_of(page):
        assert cell.outputs == []
        assert cell.execution_count is None
        # Plain Python: what it does can be copied into a script.
        compile(cell.source, f"{path.name}, {cell.id}", "exec")
        assert len(cell.source.splitlines()) <= 30
    badge = f"https://colab.research.google.com/github/tinymu-jax/tinymu_jax/blob/main/launch/colab/{path.name}"
    assert badge in page.cells[0].source
    assert "| takes |" in page.cells[0].source
    assert "TINYMU_TINY" in code_of(page)[0].source


def test_ruff_passes():
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, str(FOLDER)]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# --- their results -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asked", "tuned", "probed"])
def test_every_cell_runs(name, request):
    for number, cell in enumerate(code_of(request.getfixturevalue(name)), 1):
        assert cell.execution_count == number
        assert not [output for output in cell.outputs if output.output_type == "error"]


@pytest.mark.usefixtures("compiled_programs_stay_here")
def test_an_answer_is_streamed_and_options_are_bars(asked):
    recording = asked.folder / "recordings/example.wav"
    nano = tinymu_jax.load("nano")
    assert printed(asked) == nano.ask(recording, "Describe the music in full.")
    track, bars, whole = shown(asked, "text/html")
    image = base64.b64decode(track.split("data:image/png;base64,")[1].split('"')[0])
    assert matplotlib.image.imread(io.BytesIO(image), "png")[..., :3].std() > 0.1
    options = {"string", "organ", "flute", "trumpet", "bell", "bass", "singer"}
    assert set(re.findall("<span>(.*?)</span><b>", bars)) == options
    answer = nano.ask(recording, "What instrument is playing?")
    assert re.findall("</time><span>(.*?)</span>", whole) == [answer]
    assert [text.count("<audio") for text in (track, bars, whole)] == [1, 0, 1]
    facts, _, _ = make_clip(SynthesisConfig(seconds=4.0), 0)
    assert name_of("timbre", facts.timbre) in printed(asked)


@pytest.mark.usefixtures("compiled_programs_stay_here")
def test_fine_tuning_learns_and_saves_for_pytorch(tuned):
    steps, losses = read_losses(tuned.folder / "finetuned/run")
    assert len(steps) > 10
    assert np.mean(losses[-3:]) < 0.3 * np.mean(losses[:3])
    (table,) = (text for text in shown(tuned, "text/html") if "before" in text)
    rows = [
        [cell.split("</td>")[0] for cell in row.split("<td style='text-align:left'>")[1:]]
        for row in table.split("</tr>")[1:-1]
    ]
    taught = [row for row in rows if row[2] == "accordion"]
    assert len(taught) >= 3
    assert not [row for row in taught if row[3] == "accordion"]
    assert sum(row[4] == "accordion" for row in taught) > len(taught) / 2
    assert sum(row[4] == row[2] for row in rows) > sum(row[3] == row[2] for row in rows)
    assert len(pictures(tuned)) == 2

    saved = tuned.folder / "finetuned/saved"
    assert "same answers from the PyTorch file: True" in printed(tuned)
    state = torch.load(saved / "pytorch/tinymu.pt", weights_only=True)["model"]
    assert all(torch.isfinite(weight).all() for weight in state.values())
    # LoRA is merged into what PyTorch gets, and none of it is left beside.
    assert not [name for name in state if "lora" in name]
    row = taught[0]
    clip = tuned.folder / "example" / row[0]
    assert tinymu_jax.load(saved / "model").ask(clip, row[1]) == row[4]
    assert tinymu_jax.load(saved / "pytorch/tinymu.pt").ask(clip, row[1]) == row[4]


def test_a_probe_is_trained_and_embeddings_are_plotted(probed):
    lines = [text for text in printed(probed).splitlines() if text.startswith("accuracy")]
    reached = {text.split(": ")[1]: float(text.split()[1]) for text in lines}
    # Eight instruments: chance is an eighth.
    assert reached["checkpoint"] > 50
    assert reached["checkpoint"] > reached["random weights"] + 10
    _, losses = read_losses(probed.folder / "probe/pretraining")
    assert np.isfinite(losses).all()
    assert "pre-trained here, 8 steps" in reached
    bars, drawn = pictures(probed)[-2:]
    assert drawn.shape[1] > 1.5 * drawn.shape[0]
    # Dots of the eight labels' colours.
    colours = {tuple(c) for c in np.round(drawn.reshape(-1, 3), 1)}
    assert len(colours) > 20
    assert bars.shape != drawn.shape
    assert any("(120, 800)" in text for text in shown(probed, "text/plain"))
