"""The commands that evaluate a model, from lists and recordings to a report."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import soundfile
from helpers import ROOT, noise, run_cli

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import synthesize
from tinymu_jax.data.synthetic.templates import NAMES
from tinymu_jax.evaluation.report.build import read_report

COLUMNS = ["question", "correct_answer", "distractor_1_answer", "distractor_2_answer"]
COLUMNS += ["distractor_3_answer", "dataset", "dataset_identifier", "genre"]
COLUMNS += ["music_knowledge", "music_reasoning"]


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Synthetic clips that nano knows how to answer about, and a csv in MuChoMusic's form."""
    folder = synthesize(tmp_path_factory.mktemp("music") / "clips", SynthesisConfig(12, workers=1))
    with (folder / "muchomusic.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, record in enumerate(json.loads((folder / "mcq.json").read_text())):
            texts = [option[4:] for option in record["options"]]
            right = texts.pop(record["options"].index(record["target_text"]))
            tags = ["Instrumentation"] if number % 2 else ["Metre and Rhythm"]
            name = record["file_name"].removesuffix(".wav")
            asked = "Which is right?"
            table.writerow([asked, right, *texts, "musiccaps", name, "Rock", tags, []])
    return folder


def evaluate(capsys, monkeypatch, output, *arguments):
    """Evaluates nano; returns the exit code, what was printed, and the findings."""
    code, out, err = run_cli(
        capsys, monkeypatch, "evaluate", *arguments, "--checkpoint", "nano", "--output", output
    )
    assert code in (0, 3), err
    (findings,) = read_report(output)
    return code, out, findings


def test_muchomusic_is_asked_and_goes_on(music, tmp_path, capsys, monkeypatch):
    arguments = ("muchomusic", "--questions", music / "muchomusic.csv", "--audio", music / "clips")
    code, out, findings = evaluate(capsys, monkeypatch, tmp_path / "all", *arguments)
    assert code == 0
    # Nano hears what it is asked about.
    assert findings.headline["accuracy, likelihood"].value > 0.7
    assert findings.headline["accuracy, likelihood"].count == 36
    assert f"accuracy: {100 * findings.headline['accuracy'].value:.1f} %" in out
    replies = (tmp_path / "all" / "responses.jsonl").read_text()
    # A second run asks nothing and finds the same.
    from tinymu_jax.inference.engine import BatchEngine

    monkeypatch.setattr(BatchEngine, "ask", None)
    assert evaluate(capsys, monkeypatch, tmp_path / "all", *arguments)[2] == findings
    assert (tmp_path / "all" / "responses.jsonl").read_text() == replies


def test_missing_recordings_are_said_first(music, tmp_path, capsys, monkeypatch):
    (tmp_path / "some").mkdir()
    for path in sorted((music / "clips").iterdir())[:9]:
        (tmp_path / "some" / path.name).symlink_to(path)
    (tmp_path / "some" / "000009.wav").write_text("no sound")
    arguments = ("muchomusic", "--questions", music / "muchomusic.csv", "--no-generate")
    arguments += ("--no-text-only", "--audio", tmp_path / "some")
    code, _, findings = evaluate(capsys, monkeypatch, tmp_path / "out", *arguments)
    assert code == 3
    assert findings.missing == 9
    assert findings.notices[0].startswith("9 of 36 questions skipped")
    assert findings.headline["accuracy, likelihood"].count == 27


def test_a_killed_evaluation_goes_on(music, tmp_path):
    command = [sys.executable, "-m", "tinymu_jax", "evaluate", "muchomusic"]
    command += ["--questions", music / "muchomusic.csv", "--audio", music / "clips"]
    command += ["--checkpoint", "nano", "--output", tmp_path, "--no-text-only"]
    # Write responses recording by recording.
    start = "import sys; from tinymu_jax.evaluation import responses; "
    start += "responses.RECORDINGS_PER_WRITE = 1; "
    start += "from tinymu_jax.cli.main import main; sys.argv[0] = 'tinymu'; main()"
    command[1:3] = ["-c", start]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(list(map(str, command)), env=environment)
    replies = tmp_path / "responses.jsonl"
    for _ in range(600):
        if replies.exists() and replies.read_text().count("\n") >= 6:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = replies.read_text().splitlines()[:6]
    assert subprocess.run(list(map(str, command)), env=environment, check=False).returncode == 0
    after = replies.read_text().splitlines()
    assert after[:6] == before
    assert len({json.loads(line)["key"] for line in after}) == len(after) == 36


def test_recordings_are_classified_by_their_labels(music, tmp_path, capsys, monkeypatch):
    words = tmp_path / "words.csv"
    result = {row["timbre"] for row in csv.DictReader((music / "facts.csv").open())}
    rows = [f"{value},{name}" for value, name in NAMES["timbre"].items() if value in result]
    words.write_text("\n".join(["label,text", *rows]))
    arguments = (
        "classification",
        music / "facts.csv",
        "--label-column",
        "timbre",
        "--label-texts",
        words,
    )
    arguments += ("--audio", music / "clips", "--prompt", "What instrument is playing?")
    code, out, findings = evaluate(capsys, monkeypatch, tmp_path / "out", *arguments)
    assert code == 0
    assert out.startswith(f"split: {findings.settings['split']}\naccuracy: ")
    assert next(iter(findings.headline.values())).value > 0.8
    assert findings.confusions
    assert findings.reliabilities


def test_captions_are_scored(music, tmp_path, capsys, monkeypatch):
    arguments = ("captions", "--captions", music / "captioning.json", "--audio", music / "clips")
    code, out, findings = evaluate(capsys, monkeypatch, tmp_path / "out", *arguments)
    assert code == 0
    assert 0 < findings.headline["ROUGE-L"].value < 1
    assert "METEOR" in out


def test_checkpoints_stand_beside_each_other(music, tmp_path, capsys, monkeypatch):
    arguments = ("questions", music / "binary.json", "--audio", music / "clips")
    for name in ("one", "two"):
        evaluate(capsys, monkeypatch, tmp_path / name, *arguments)
    code, out, _ = run_cli(
        *(capsys, monkeypatch, "evaluate", "report", tmp_path / "one", tmp_path / "two"),
        *("--output", tmp_path / "both"),
    )
    assert code == 0
    assert "report.html" in out
    assert len(read_report(tmp_path / "both")) == 2
    code, _, err = run_cli(capsys, monkeypatch, "evaluate", "report", tmp_path / "one")
    assert code == 2
    assert "less than two reports" in err


@pytest.mark.parametrize("made", [pytest.param("by hand", marks=pytest.mark.slow), "example"])
def test_a_list_is_learnt_by_heart(made, request, tmp_path, capsys, monkeypatch):
    if made == "example":
        shared = request.getfixturevalue("shared_dir")
        questions, audio = shared / "data" / "musicskills_example.json", shared / "audio"
    else:
        audio, questions = tmp_path, tmp_path / "list.json"
        answers = {
            "QA": "A bell.",
            "Binary": "Yes.",
            "MCQ": "(B) Folk",
            "Captioning": "You hear a drum.",
        }
        prompts = {
            "MCQ": "Question: Which genre? Options: (A) Jazz (B) Folk. The correct answer is:"
        }
        records = []
        for number, (task, answer) in enumerate(answers.items()):
            soundfile.write(tmp_path / f"{number}.wav", noise(20_000) * (number + 1), 16_000)
            asked = {"input_text": prompts.get(task, "What is it?"), "target_text": answer}
            records.append({"file_name": f"{number}.wav", "dataset": "Made", "task": task} | asked)
        questions.write_text(json.dumps(records))
    nano = ROOT / "tinymu_jax" / "checkpoints" / "nano" / "tokenizer.json"
    prepare = ("data", "prepare", "--lists", questions, "--audio", audio, "--tokenizer", nano)
    prepare += ("--output", tmp_path / "data", "--workers", 1, "--max-seconds", 4)
    assert run_cli(capsys, monkeypatch, *prepare)[0] == 0
    train = ("train", "--config", ROOT / "configs" / "sft_tinymu.py", "--overfit-batch")
    train += ("--data.train", tmp_path / "data", "--init.checkpoint", "nano")
    train += ("--init.encoder", "None", "--init.decoder", "None", "--step.remat", "none")
    train += ("--steps", 300, "--step.blocks", 1, "--optim.learning-rate", 4e-3)
    train += ("--data.packing.row-length", 512, "--data.packing.rows", 1)
    train += ("--data.packing.max-clips", 8, "--data.packing.max-labels", 256)
    process = subprocess.run(
        [sys.executable, "-m", "tinymu_jax", *map(str, train), "--output", str(tmp_path / "run")],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    arguments = ("evaluate", "questions", questions, "--audio", audio, "--output", tmp_path / "out")
    code, _, err = run_cli(capsys, monkeypatch, *arguments, "--checkpoint", tmp_path / "run")
    assert code == 0, err
    (findings,) = read_report(tmp_path / "out")
    assert {measure.value for measure in findings.headline.values()} == {1.0}
