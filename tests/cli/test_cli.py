"""The commands print what the models say; bad input ends with one line and exit code 2."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import ROOT, SMALL_DECODER, SMALL_ENCODER, published_encoder, run_process
from oracles import torch_modules as oracle
from PIL import Image
from tokenizer_fixture import tokenizer_text

from conversion import from_torch, to_torch, verify
from tinymu_jax.checkpoints.checkpoint import read_checkpoint
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.cli import main as main_module

PROMPT = "What is the main instrument?"
LONG_PROMPT = "drums! " * 100

pytestmark = pytest.mark.usefixtures("compiled_programs_stay_here")


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch, own_cache):
    """An empty working folder; the cache lies elsewhere, and the hub is not asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "downloads"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A small MATPAC checkpoint."""
    module = oracle.Matpac(**SMALL_ENCODER | {"n_t": 208})
    path = tmp_path_factory.mktemp("encoder") / "matpac.pt"
    torch.save(published_encoder(module), path)
    return path


@pytest.fixture(scope="module")
def recordings(golden_dir):
    """One of 11 s at 48 kHz, one of 3.2 s at 44.1 kHz."""
    return [golden_dir / "audio" / f"{name}.wav" for name in ("stereo_48k_11s", "mono_44k_3p2s")]


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs a command in this process; returns exit code, stdout and stderr."""

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        return code or 0, *capfd.readouterr()

    return run


@pytest.fixture
def tinymu(run, checkpoint_file):
    """Runs `tinymu ask|score|embed` with the golden checkpoint."""

    def tinymu(command, *arguments):
        return run(main_module.main, command, *arguments, "--checkpoint", checkpoint_file)

    return tinymu


def assert_refused(outcome, *named):
    """Holds the outcome of a command against the rule for bad input."""
    code, out, err = outcome
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in named:
        assert str(part) in err


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# --- ask ---------------------------------------------------------------------------------------


def test_ask_prints_the_answer_and_how_much_was_heard(tinymu, recordings, loaded):
    code, out, err = tinymu("ask", recordings[0], "--prompt", PROMPT, "--max-new-tokens", 12)
    assert code == 0
    assert out == loaded.ask(recordings[0], PROMPT, max_new_tokens=12) + "\n"
    assert err == "encoded 10.0 s of 11.0 s\n"


def test_ask_labels_the_answers_of_several_recordings(tinymu, recordings, loaded):
    code, out, err = tinymu("ask", *recordings, "--prompt", PROMPT, "--max-new-tokens", 12)
    texts = loaded.ask(recordings, PROMPT, max_new_tokens=12)
    assert code == 0
    assert out == "".join(f"{r}: {t}\n" for r, t in zip(recordings, texts, strict=True))
    assert err == (
        f"{recordings[0]}: encoded 10.0 s of 11.0 s\n{recordings[1]}: encoded 3.2 s of 3.2 s\n"
    )


def test_ask_uses_a_damaged_recording_only_if_asked(tinymu, recordings, work):
    damaged = work / "cut.wav"
    damaged.write_bytes(recordings[1].read_bytes()[:150_000])
    command = ("ask", damaged, "--prompt", PROMPT, "--max-new-tokens", 2)
    assert_refused(tinymu(*command), "cut.wav: damaged after 1.7 s of 3.2 s; replace it, or use")
    code, _, err = tinymu(*command, "--keep-damaged")
    assert (code, err) == (0, "encoded 1.7 s of 3.2 s (damaged after 1.7 s of 3.2 s)\n")


def test_ask_prints_json_lines(tinymu, recordings, loaded):
    code, out, err = tinymu(
        "ask", *recordings, "--prompt", PROMPT, "--max-new-tokens", 12, "--json"
    )
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    answer = loaded.answers(recordings[0], PROMPT, max_new_tokens=12)[0]
    assert first == {
        "file": str(recordings[0]),
        "prompt": PROMPT,
        "answer": answer.text,
        "ended": answer.ended,
        "encoded_seconds": 10.0,
        "total_seconds": 11.0,
    }
    assert (second["file"], second["encoded_seconds"]) == (str(recordings[1]), 3.2)


def test_ask_hears_as_much_as_it_is_told(tinymu, recordings):
    options = ("--max-new-tokens", 1, "--max-seconds", 2)
    _, _, err = tinymu("ask", recordings[0], "--prompt", PROMPT, *options)
    assert err == "encoded 2.0 s of 11.0 s\n"


def test_ask_draws_by_seed(tinymu, recordings, loaded):
    options = ("--prompt", PROMPT, "--max-new-tokens", 12, "--strategy", "top-p", "--top-p", 0.99)
    first, again, other = (
        tinymu("ask", recordings[0], *options, "--seed", seed)[1] for seed in (1, 1, 2)
    )
    drawn = {"strategy": "top-p", "top_p": 0.99, "seed": 1, "max_new_tokens": 12}
    assert first == again == loaded.ask(recordings[0], PROMPT, **drawn) + "\n"
    assert other != first


def test_ask_cuts_a_long_prompt_if_told(tinymu, recordings, loaded):
    options = ("--prompt", LONG_PROMPT, "--max-new-tokens", 6, "--truncate-prompt")
    code, out, err = tinymu("ask", recordings[0], *options)
    ids = loaded.tokenizer.encode(LONG_PROMPT)[:129]
    tokens = loaded.generate_tokens(recordings[0], ids, max_new_tokens=6)
    assert (code, out) == (0, loaded.tokenizer.decode(tokens) + "\n")
    assert err == "encoded 10.0 s of 11.0 s\n"


def test_ask_answers_the_good_ones_of_a_batch(tinymu, recordings, loaded):
    options = ("--prompt", PROMPT, "--max-new-tokens", 12)
    code, out, err = tinymu("ask", recordings[0], "missing.wav", recordings[1], *options)
    texts = loaded.ask(recordings, PROMPT, max_new_tokens=12)
    assert code == 2
    assert out == "".join(f"{r}: {t}\n" for r, t in zip(recordings, texts, strict=True))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: missing.wav: no such file; check the path of the recording"]
    assert len(err.splitlines()) == 3


def test_ask_reports_the_bad_one_of_a_batch_in_json_too(tinymu, recordings):
    options = ("--prompt", PROMPT, "--max-new-tokens", 2, "--json")
    code, out, err = tinymu("ask", "missing.wav", recordings[1], *options)
    bad, good = map(json.loads, out.splitlines())
    assert code == 2
    assert bad == {
        "file": "missing.wav",
        "error": "missing.wav: no such file; check the path of the recording",
    }
    assert good["file"] == str(recordings[1])
    assert err == f"error: {bad['error']}\n"


def test_ask_answers_more_recordings_than_fit_a_batch(tinymu, recordings, loaded):
    many = [recordings[1]] * 9
    code, out, _ = tinymu("ask", *many, "--prompt", PROMPT, "--max-new-tokens", 12)
    text = loaded.ask(recordings[1], PROMPT, max_new_tokens=12)
    assert code == 0
    assert out.splitlines() == [f"{recordings[1]}: {text}"] * 9


# --- score -------------------------------------------------------------------------------------

OPTIONS = ["a guitar", "drums", "the trumpet!"]
SCORE = ("--prompt", PROMPT, *(part for option in OPTIONS for part in ("--option", option)))


def test_score_prints_a_table_the_best_first(tinymu, recordings, loaded):
    code, out, err = tinymu("score", recordings[0], *SCORE)
    heading, *rows = out.splitlines()
    assert (code, err) == (0, f"{recordings[0]}: encoded 10.0 s of 11.0 s\n")
    assert heading.split() == ["sum", "length", "pmi", "log-likelihood", "option"]
    details = loaded.score_details(recordings[0], PROMPT, OPTIONS)
    details.sort(key=lambda row: -row.probability)
    for line, row in zip(rows, details, strict=True):
        by_sum, by_length, pmi, log_likelihood, option = line.split(maxsplit=4)
        assert option == row.option
        assert by_sum == f"{row.probability:.3f}"
        assert by_length == f"{row.probability_per_token:.3f}"
        assert pmi == f"{row.probability_over_prior:.3f}"
        assert log_likelihood == f"{row.log_likelihood:.2f}"
    assert sum(row.probability for row in details) == pytest.approx(1)


@pytest.mark.parametrize(
    ("normalize", "field"),
    [
        ("sum", "probability"),
        ("length", "probability_per_token"),
        ("pmi", "probability_over_prior"),
    ],
)
def test_score_prints_json_sorted_by_what_is_asked_for(tinymu, recordings, normalize, field):
    code, out, err = tinymu("score", *recordings, *SCORE, "--normalize", normalize, "--json")
    assert (code, err) == (0, "")
    for line, recording in zip(out.splitlines(), recordings, strict=True):
        content = json.loads(line)
        assert (content["file"], content["prompt"], content["normalize"]) == (
            str(recording),
            PROMPT,
            normalize,
        )
        shares = [option[field] for option in content["options"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
        assert {option["option"] for option in content["options"]} == set(OPTIONS)


def test_score_names_the_recordings_where_there_are_several(tinymu, recordings):
    code, out, _ = tinymu("score", *recordings, *SCORE)
    lines = out.splitlines()
    assert code == 0
    assert [lines[0], lines[5]] == [str(recording) for recording in recordings]
    assert len(lines) == 10


def test_score_goes_on_after_a_bad_recording(tinymu, recordings):
    code, out, err = tinymu("score", "missing.wav", recordings[1], *SCORE)
    assert code == 2
    assert out.splitlines()[0] == str(recordings[1])
    assert err.splitlines() == [
        "error: missing.wav: no such file; check the path of the recording",
        f"{recordings[1]}: encoded 3.2 s of 3.2 s",
    ]


# --- embed -------------------------------------------------------------------------------------


def test_embed_writes_what_the_encoder_says(tinymu, recordings, golden, work):
    code, out, err = tinymu("embed", *recordings, "--output", "out/vectors")
    assert (code, err) == (0, "")
    assert files(work / "out" / "vectors") == ["mono_44k_3p2s.npy", "stereo_48k_11s.npy"]
    for recording in recordings:
        vectors = np.load(work / "out" / "vectors" / f"{recording.stem}.npy")
        assert vectors.dtype == np.float32
        expected = golden[f"{recording.stem}/embeddings"]
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4)
    assert out.splitlines() == [
        f"{recordings[0]}: (63, 160) in out/vectors/stereo_48k_11s.npy, encoded 10.0 s of 11.0 s",
        f"{recordings[1]}: (20, 160) in out/vectors/mono_44k_3p2s.npy, encoded 3.2 s of 3.2 s",
    ]


def test_embed_writes_all_layers(tinymu, recordings, golden, work):
    assert tinymu("embed", recordings[1], "--all-layers")[0] == 0
    layers = np.load(work / "embeddings" / "mono_44k_3p2s.npy")
    assert layers.shape == (2, 20, 160)
    expected = golden["mono_44k_3p2s/layers_mean_time"]
    np.testing.assert_allclose(layers.mean(axis=1), expected, rtol=0, atol=1e-4)


def test_embed_cuts_into_chunks_as_told(tinymu, recordings, golden, work):
    assert tinymu("embed", recordings[0], "--chunking", "fast-interleaved")[0] == 0
    expected = golden["stereo_48k_11s/embeddings_fast"]
    vectors = np.load(work / "embeddings" / "stereo_48k_11s.npy")
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4)


def test_embed_prints_json_lines(tinymu, recordings):
    code, out, err = tinymu("embed", recordings[0], "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "file": str(recordings[0]),
        "output": "embeddings/stereo_48k_11s.npy",
        "shape": [63, 160],
        "encoded_seconds": 10.0,
        "total_seconds": 11.0,
    }


def test_embed_draws_a_picture(tinymu, recordings, work):
    assert tinymu("embed", *recordings, "--plot")[0] == 0
    pictures = []
    for recording in recordings:
        with Image.open(work / "embeddings" / f"{recording.stem}.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24)) > 100
            pictures.append(np.asarray(picture.convert("RGB")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("option", [[], ["--plot"]])
def test_embed_tells_where_it_cannot_write(tinymu, recordings, work, option):
    """A folder of the output's name stands where the file should go."""
    suffix = ".png" if option else ".npy"
    blocked = work / "embeddings" / f"{recordings[0].stem}{suffix}"
    blocked.mkdir(parents=True)
    code, _, err = tinymu("embed", recordings[0], *option)
    assert code == 2
    assert str(blocked.relative_to(work)) in err
    assert "cannot be written" in err
    assert err.count("\n") == 1


def test_embed_takes_an_encoder_alone(run, recordings, encoder, work):
    code, _, err = run(main_module.main, "embed", recordings[0], "--checkpoint", encoder)
    assert (code, err) == (0, "")
    # It hears all of the 11 s.
    assert np.load(work / "embeddings" / "stereo_48k_11s.npy").shape == (69, 320)


def test_embed_goes_on_after_a_bad_recording(tinymu, recordings, work):
    code, out, err = tinymu("embed", "missing.wav", recordings[1])
    assert code == 2
    assert out.startswith(f"{recordings[1]}: (20, 160)")
    assert err == "error: missing.wav: no such file; check the path of the recording\n"
    assert files(work) == ["embeddings", "embeddings/mono_44k_3p2s.npy"]


# --- data synthesize ---------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", [[], ["--choice", 0, "--captions", 0]])
def test_synthesize_makes_a_folder_and_says_what_to_do_with_it(run, work, left_out):
    options = [
        "--clips",
        2,
        "--seconds",
        1,
        "--seed",
        5,
        "--timbre",
        "accordion",
        "--extra",
        "accordion",
        *left_out,
    ]
    code, out, _ = run(main_module.main, "data", "synthesize", "music", *options)
    assert code == 0
    assert len(list((work / "music" / "clips").glob("*.wav"))) == 2
    assert (work / "music" / "facts.csv").read_text().count(",accordion,") == 2
    assert out.startswith("2 clips in music/clips, their facts in music/facts.csv; ")
    lists = out.split("--lists ")[1].split(" --audio ")[0].split()
    assert set(lists) == {f"music/{p.name}" for p in (work / "music").glob("*.json")} - {
        "music/synthetic.json"
    }
    assert run(main_module.main, "data", "synthesize", "music", *options)[:2] == (0, out)


def test_synthesize_refuses_what_cannot_be(run, work):
    assert_refused(
        run(main_module.main, "data", "synthesize", "music", "--clips", 0), "give 1 or more"
    )
    (work / "notes").write_text("")
    assert_refused(run(main_module.main, "data", "synthesize", "notes"), "notes")


# --- bad recordings ----------------------------------------------------------------------------

COMMANDS = {"ask": ("--prompt", PROMPT, "--max-new-tokens", 2), "score": SCORE, "embed": ()}
BAD_RECORDINGS = {
    "missing.wav": "no such file",
    "empty.wav": "is empty",
    "text.mp3": "is text, not a recording",
    "cut.flac": "cannot be decoded",
    "short.wav": "less than one window",
    "folder": "is a folder",
    "nan.wav": "NaN",
    "no_samples.wav": "no samples",
}


def make_bad_recording(path):
    if path.name == "empty.wav":
        path.write_bytes(b"")
    elif path.name == "text.mp3":
        path.write_text("this is no music\n" * 100)
    elif path.name == "cut.flac":
        path.write_bytes(b"fLaC\x00\x00\x00\x22")
    elif path.name == "short.wav":
        soundfile.write(path, np.zeros(300, np.float32), 16_000)
    elif path.name == "folder":
        path.mkdir()
    elif path.name == "nan.wav":
        soundfile.write(path, np.full(8000, np.nan, np.float32), 16_000, subtype="FLOAT")
    elif path.name == "no_samples.wav":
        soundfile.write(path, np.zeros(0, np.float32), 16_000)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", BAD_RECORDINGS)
def test_a_bad_recording_is_named(tinymu, work, command, name):
    make_bad_recording(work / name)
    before = files(work)
    assert_refused(tinymu(command, name, *COMMANDS[command]), name, BAD_RECORDINGS[name])
    assert files(work) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_no_recording_is_told(tinymu, work, command):
    assert_refused(tinymu(command, *COMMANDS[command]), "no recording")
    assert files(work) == []


# --- bad questions -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--prompt", "")])
def test_no_prompt_is_told(tinymu, recordings, options):
    assert_refused(tinymu("ask", recordings[0], *options), "no prompt", "--prompt")


def test_a_prompt_that_is_too_long_is_told_with_both_lengths(tinymu, recordings, loaded):
    count = len(loaded.tokenizer.encode(LONG_PROMPT))
    assert count > 129
    outcome = tinymu("ask", recordings[0], "--prompt", LONG_PROMPT)
    assert_refused(outcome, f"{count} tokens", "129", "--truncate-prompt")


def test_a_prompt_that_is_too_long_is_told_once_for_all_recordings(tinymu, recordings):
    code, out, err = tinymu("ask", *recordings, "--prompt", LONG_PROMPT)
    assert (code, out) == (2, "")
    assert set(err.splitlines()) == {err.splitlines()[0]}
    assert "129" in err


def test_a_question_that_is_too_long_is_told_with_both_lengths(tinymu, recordings):
    options = ("--prompt", LONG_PROMPT, "--option", "a", "--option", "b")
    assert_refused(tinymu("score", recordings[0], *options), "129", "--truncate-prompt")
    assert tinymu("score", recordings[0], *options, "--truncate-prompt")[0] == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--option", "a", "--option", "b"), "no prompt"),
        (("--prompt", "Which?"), "fewer than two options"),
        (("--prompt", "Which?", "--option", "a"), "fewer than two options"),
        (("--prompt", "Which?", "--option", "a", "--option", "a"), "all different"),
        (("--prompt", "Which?", "--option", "a", "--option", ""), "is empty"),
    ],
)
def test_options_that_cannot_be_scored_are_told(tinymu, recordings, options, named):
    assert_refused(tinymu("score", recordings[0], *options), named)


@pytest.mark.parametrize("count", [0, -3])
def test_an_answer_must_have_a_length(tinymu, recordings, count):
    outcome = tinymu("ask", recordings[0], "--prompt", PROMPT, "--max-new-tokens", count)
    assert_refused(outcome, "max_new_tokens", count)


def test_embeddings_of_equal_names_are_refused(tinymu, recordings, work):
    shutil.copy(recordings[1], work / "song.wav")
    (work / "other").mkdir()
    shutil.copy(recordings[1], work / "other" / "song.wav")
    before = files(work)
    outcome = tinymu("embed", "song.wav", "other/song.wav")
    assert_refused(outcome, "other/song.wav", "embeddings/song.npy")
    assert files(work) == before


@pytest.mark.parametrize("output", ["taken", "taken/inside"])
def test_a_file_in_the_place_of_the_output_folder_is_told(tinymu, recordings, work, output):
    (work / "taken").write_text("a file")
    assert_refused(tinymu("embed", recordings[1], "--output", output), "taken")
    assert (work / "taken").read_text() == "a file"


# --- bad checkpoints ---------------------------------------------------------------------------


class Evil:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def change_weights(source, target, change):
    content = torch.load(source)
    change(content)
    torch.save(content, target)
    shutil.copy(source.with_suffix(".json"), target.with_suffix(".json"))
    return target


NORM = "text_decoder.lm.model.norm.weight"
BAD_CHECKPOINTS = {
    "missing key": (lambda c: c["model"].pop(NORM), f"missing {NORM}"),
    "left over": (lambda c: c["model"].update(more=torch.zeros(1)), "left over more"),
    "wrong shape": (
        lambda c: c["model"].update({NORM: torch.zeros(47)}),
        f"{NORM} (47,) instead of (48,)",
    ),
    "no config": (lambda c: c.pop("config"), "holds no config"),
    "malicious": (lambda c: c.update(more=Evil()), "it could run code"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_named(run, recordings, checkpoint_file, work, command, fault):
    change, named = BAD_CHECKPOINTS[fault]
    bad = change_weights(checkpoint_file, work / "bad.pt", change)
    before = files(work)
    outcome = run(main_module.main, command, recordings[1], *COMMANDS[command], "--checkpoint", bad)
    assert_refused(outcome, bad, named)
    assert files(work) == before


@pytest.mark.parametrize("remaining", [0, 1, 100, 5000, -100, -1])
def test_a_truncated_checkpoint_is_named(run, recordings, checkpoint_file, work, remaining):
    (work / "cut.pt").write_bytes(checkpoint_file.read_bytes()[:remaining])
    outcome = run(main_module.main, "embed", recordings[1], "--checkpoint", "cut.pt")
    assert_refused(outcome, "cut.pt: ")
    assert files(work) == ["cut.pt"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["nothing.pt", "no_folder", "./owner/name", "someone/TinyMU"])
def test_an_unknown_checkpoint_is_named(run, recordings, work, command, name):
    outcome = run(
        main_module.main, command, recordings[1], *COMMANDS[command], "--checkpoint", name
    )
    assert_refused(outcome, f"error: {name}: ")
    assert files(work) == []


@pytest.mark.parametrize("command", ["ask", "score"])
def test_an_encoder_answers_nothing(run, recordings, encoder, command):
    outcome = run(
        main_module.main, command, recordings[1], *COMMANDS[command], "--checkpoint", encoder
    )
    assert_refused(outcome, encoder, "is an encoder")


def test_a_missing_tokenizer_is_told_before_anything_else(run, recordings, golden_dir):
    golden = golden_dir / "tinymu_tiny.pt"
    bad = recordings[0].with_name("missing.wav")
    arguments = (bad, recordings[0], *COMMANDS["ask"], "--checkpoint", golden)
    assert_refused(run(main_module.main, "ask", *arguments), golden, "has no tokenizer")


@pytest.mark.parametrize("command", ["ask", "score", "embed"])
def test_recordings_that_are_all_missing_are_told_before_a_model_is_loaded(
    tinymu, monkeypatch, command
):
    monkeypatch.setattr("tinymu_jax.inference.load.load", None)
    code, out, err = tinymu(command, "a.wav", "b.wav", *COMMANDS[command])
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: {name}: no such file; check the path of the recording"
        for name in ("a.wav", "b.wav")
    ]


def test_a_file_whose_name_is_no_text_is_heard(tinymu, recordings, work):
    name = os.fsdecode(b"caf\xe9.wav")
    shutil.copy(recordings[1], work / name)
    code, out, err = tinymu("ask", name, name, "--prompt", PROMPT, "--max-new-tokens", 3, "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line)["file"] for line in out.splitlines()] == [name] * 2


def test_answers_go_to_the_file_while_a_bar_runs_on_the_terminal(checkpoint_file, recordings, work):
    """With stderr on a terminal and stdout in a file, as `tinymu ask *.mp3 > answers` has it."""
    import pty

    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "tinymu_jax", "embed", *recordings, "--json"]
    with (work / "answers.jsonl").open("w") as file:
        subprocess.run(
            [*map(str, command), "--checkpoint", str(checkpoint_file)],
            check=True,
            stdout=file,
            stderr=side,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    os.close(side)
    assert b"embedding" in os.read(terminal, 1 << 16)
    os.close(terminal)
    lines = (work / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(path) for path in recordings]


# --- processes ---------------------------------------------------------------------------------


def test_a_process_ends_with_one_line_and_code_two():
    result = run_process("-m", "tinymu_jax", "ask", "song.mp3")
    assert_refused((result.returncode, result.stdout, result.stderr), "no prompt")


def test_a_user_who_stops_sees_no_traceback(tinymu, recordings, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinymu_jax.inference.load.load", stop)
    assert tinymu("embed", recordings[0]) == (130, "", "stopped\n")


def test_a_disk_that_is_full_is_told_in_one_line(tinymu, recordings, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinymu_jax.cli.ask.Embed._embed", full)
    assert_refused(tinymu("embed", recordings[0]), "output: No space left on device")


def test_an_unknown_command_or_option_is_refused(run, work):
    for arguments in (["sing"], ["ask", "song.wav", "--volume", "11"], []):
        code, out, err = run(main_module.main, *arguments)
        assert (code, out) == (2, "")
        assert err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command):
    code, out, _ = run(main_module.main, command, "--help")
    assert code == 0
    assert "--checkpoint" in out


# --- conversion.from_torch ---------------------------------------------------------------------


def test_from_torch_makes_a_folder(run, checkpoint_file, work):
    code, out, err = run(from_torch.main, checkpoint_file, "out")
    assert (code, err) == (0, "")
    assert out.startswith("TinyMU, 0.15 M numbers -> out/config.json")
    made = read_checkpoint(work / "out")
    assert made.config.decoder.width == 48
    assert made.tokenizer == tokenizer_text()


def test_from_torch_puts_a_probe_and_a_tokenizer_in(
    run, encoder, checkpoint_file, golden_dir, work
):
    probe = {"probe.weight": torch.zeros(4, 320), "probe.bias": torch.zeros(4)}
    torch.save(probe, work / "probe.pt")
    code, out, _ = run(from_torch.main, encoder, "matpac", "--probe", "probe.pt")
    assert (code, out.split(",")[0]) == (0, "Matpac")
    assert read_checkpoint(work / "matpac").config.head.num_classes == 4
    golden, beside = golden_dir / "tinymu_tiny.pt", checkpoint_file.with_name("tokenizer.json")
    assert run(from_torch.main, golden, "tinymu", "--tokenizer", beside)[0] == 0
    assert read_checkpoint(work / "tinymu").tokenizer == tokenizer_text()


@pytest.mark.parametrize("fault", BAD_CHECKPOINTS)
def test_from_torch_refuses_a_bad_checkpoint(run, checkpoint_file, work, fault):
    change, named = BAD_CHECKPOINTS[fault]
    bad = change_weights(checkpoint_file, work / "bad.pt", change)
    before = files(work)
    assert_refused(run(from_torch.main, bad, "out"), bad, named)
    assert files(work) == before


def test_from_torch_refuses_what_is_not_there(run, checkpoint_file, work):
    assert_refused(run(from_torch.main, "missing.pt", "out"), "missing.pt: no such file")
    # Names of the hub are not looked up here.
    assert_refused(run(from_torch.main, "owner/name", "out"), "owner/name: no such file")
    options = ("--tokenizer", "none/tokenizer.json")
    assert_refused(run(from_torch.main, checkpoint_file, "out", *options), "none/tokenizer.json")
    assert files(work) == []


def test_from_torch_does_not_write_over_what_is_there(run, checkpoint_file, work):
    (work / "file").write_text("a file")
    (work / "folder").mkdir()
    (work / "folder" / "notes.txt").write_text("mine")
    before = files(work)
    assert_refused(run(from_torch.main, checkpoint_file, "file"), "file: is a file")
    assert_refused(run(from_torch.main, checkpoint_file, "file/inside"), "file")
    assert_refused(run(from_torch.main, checkpoint_file, "folder"), "holds other files (notes.txt)")
    assert_refused(run(from_torch.main, checkpoint_file.parent, checkpoint_file.parent), "itself")
    assert files(work) == before


# --- conversion.to_torch -----------------------------------------------------------------------


@pytest.fixture
def folder(run, checkpoint_file, work):
    assert run(from_torch.main, checkpoint_file, "converted")[0] == 0
    return work / "converted"


def test_to_torch_makes_a_published_file(run, folder, checkpoint_file, work):
    code, out, err = run(to_torch.main, folder, "back/tinymu.pt")
    assert (code, err) == (0, "")
    made = ["back/tinymu.pt", "back/tinymu.yaml", "back/tokenizer.json", "back/tinymu.json"]
    *listed, verified = out.splitlines()
    assert listed == [f"-> {name}" for name in made]
    assert verified.endswith("tinymu.pt read again: 58 tensors bit for bit")
    assert files(work / "back") == sorted(Path(name).name for name in made)
    back, original = (read_torch_file(p)["model"] for p in (work / made[0], checkpoint_file))
    assert back.keys() == original.keys()
    assert all(np.array_equal(back[key], original[key]) for key in original)


def test_to_torch_leaves_another_models_tokenizer_alone(run, folder, work):
    (work / "theirs").mkdir()
    tokenizer = work / "theirs" / "tokenizer.json"
    tokenizer.write_text("{}")
    code, _, err = run(to_torch.main, folder, "theirs/tinymu.pt")
    assert code == 2
    assert err == (
        "error: theirs/tokenizer.json: is another model's tokenizer; name another folder\n"
    )
    assert files(work / "theirs") == ["tokenizer.json"]
    tokenizer.unlink()
    assert run(to_torch.main, folder, "theirs/tinymu.pt")[0] == 0
    # An earlier run's own outputs are replaced.
    tokenizer.write_text("{}")
    assert run(to_torch.main, folder, "theirs/tinymu.pt")[0] == 0
    assert tokenizer.read_text() != "{}"


def test_to_torch_makes_an_encoder_file_and_a_decoder_folder(run, encoder, work):
    assert run(from_torch.main, encoder, "matpac")[0] == 0
    assert run(to_torch.main, "matpac", "matpac.pt")[1].startswith("-> matpac.pt\nverified: ")
    assert read_torch_file("matpac.pt").keys() == read_torch_file(encoder).keys()
    oracle.build_llama(**SMALL_DECODER).save_pretrained("theirs")
    assert run(from_torch.main, "theirs", "decoder")[0] == 0
    assert run(to_torch.main, "decoder", "back")[1].startswith("-> back/\nverified: ")
    assert files(work / "back") == ["config.json", "generation_config.json", "model.safetensors"]
    # It can be written again.
    assert run(to_torch.main, "decoder", "back")[0] == 0


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("converted", "is a folder"),
        ("tinymu.bin", "ends in .pt or .safetensors"),
        ("tinymu", "ends in .pt or .safetensors"),
        ("file/tinymu.pt", "file"),
    ],
)
def test_to_torch_refuses_an_output_that_it_cannot_write(run, folder, work, output, named):
    (work / "file").write_text("a file")
    before = files(work)
    assert_refused(run(to_torch.main, folder, output), output.split("/")[0], named)
    assert files(work) == before


def test_to_torch_refuses_a_bad_checkpoint(run, folder, work):
    assert_refused(run(to_torch.main, "nothing", "back/tinymu.pt"), "nothing: no such file")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    outcome = run(to_torch.main, folder, "back/tinymu.pt")
    assert_refused(outcome, weights, "not a whole safetensors file")
    assert not (work / "back").exists()


# --- conversion.verify -------------------------------------------------------------------------


def test_verify_finds_a_round_trip_the_same(run, folder, checkpoint_file, recordings):
    assert run(to_torch.main, folder, "back.pt")[0] == 0
    code, out, err = run(verify.main, checkpoint_file, "back.pt", *recordings)
    assert (code, err) == (0, "")
    first, second, verdict = out.splitlines()
    for line, recording in zip((first, second), recordings, strict=True):
        assert line.startswith(f"{recording}: largest logit difference 0.00e+00, equal tokens ")
    assert verdict == "same: largest logit difference 0.00e+00, equal tokens 100.0 %"


def test_verify_asks_in_words(run, folder, checkpoint_file, recordings):
    options = ("--prompt", PROMPT, "--max-new-tokens", 8)
    code, out, _ = run(verify.main, checkpoint_file, folder, recordings[1], *options)
    assert code == 0
    assert "equal tokens 8 of 8" in out


def test_verify_finds_changed_weights_different(run, checkpoint_file, recordings, work):
    def change(content):
        content["model"]["projector.linear1.weight"] *= 1.5

    changed = change_weights(checkpoint_file, work / "changed.pt", change)
    code, out, err = run(verify.main, checkpoint_file, changed, recordings[1])
    assert (code, err) == (1, "")
    assert out.splitlines()[-1].startswith("DIFFERENT: largest logit difference ")


def test_verify_tolerates_what_it_is_told_to(run, checkpoint_file, recordings, work):
    def change(content):
        content["model"]["projector.linear2.bias"] += 1e-6

    changed = change_weights(checkpoint_file, work / "changed.pt", change)
    arguments = (checkpoint_file, changed, recordings[1], "--max-new-tokens", 4)
    assert run(verify.main, *arguments)[0] == 0
    assert run(verify.main, *arguments, "--tolerance", 0)[0] == 1


def test_verify_refuses_what_cannot_be_compared(run, checkpoint_file, encoder, recordings, work):
    def change(content):
        for key, value in content["model"].items():
            if value.shape[:1] == (512,):
                content["model"][key] = value[:500].clone()

    smaller = change_weights(checkpoint_file, work / "smaller.pt", change)
    sizes = json.loads(smaller.with_suffix(".json").read_text())
    sizes["lm"]["vocab_size"] = 500
    smaller.with_suffix(".json").write_text(json.dumps(sizes))
    for arguments, named in (
        ([checkpoint_file, checkpoint_file], "no recording"),
        ([checkpoint_file, smaller, recordings[1]], "another vocabulary"),
        ([checkpoint_file, encoder, recordings[1]], "is an encoder alone"),
        ([checkpoint_file, "nothing.pt", recordings[1]], "nothing.pt: no such file"),
        ([checkpoint_file, checkpoint_file, "missing.wav"], "missing.wav: no such file"),
        (
            [checkpoint_file, checkpoint_file, recordings[1], "missing.wav"],
            "missing.wav: no such file",
        ),
    ):
        assert_refused(run(verify.main, *arguments), named)


# --- tinymu convert ----------------------------------------------------------------------------


def test_convert_does_what_the_scripts_do(run, checkpoint_file, recordings, work):
    convert = (main_module.main, "convert")
    assert run(from_torch.main, checkpoint_file, "script")[0] == 0
    code, out, err = run(*convert, "from-torch", checkpoint_file, "folder")
    assert (code, err) == (0, "")
    assert out.startswith("TinyMU, 0.15 M numbers -> folder/config.json")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (work / "folder" / name).read_bytes() == (work / "script" / name).read_bytes()
    assert run(to_torch.main, "script", "script.pt")[0] == 0
    assert run(*convert, "to-torch", "folder", "folder.pt")[0] == 0
    assert (work / "folder.pt").read_bytes() == (work / "script.pt").read_bytes()
    code, out, _ = run(*convert, "verify", "script.pt", "folder", recordings[1])
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "same")


def test_convert_reports_a_difference_in_its_exit_code(run, checkpoint_file, recordings, work):
    def change(content):
        content["model"]["projector.linear1.weight"] *= 1.5

    changed = change_weights(checkpoint_file, work / "changed.pt", change)
    arguments = ("convert", "verify", checkpoint_file, changed, recordings[1])
    assert run(main_module.main, *arguments)[0] == 1
    assert_refused(run(main_module.main, "convert", "to-torch", "nothing", "x.pt"), "no such file")


def test_a_name_that_looks_like_a_formula_is_drawn(tinymu, recordings, work):
    shutil.copy(recordings[1], work / "a $_$ b.wav")
    assert tinymu("embed", "a $_$ b.wav", "--plot")[0] == 0
    assert (work / "embeddings" / "a $_$ b.png").stat().st_size > 1000


def test_a_prompt_that_is_no_text_is_refused(tinymu, recordings):
    prompt = os.fsdecode(b"caf\xe9")
    assert_refused(tinymu("ask", recordings[0], "--prompt", prompt), "the prompt is not UTF-8")


def test_a_name_that_is_too_long_is_told(tinymu, recordings):
    name = "x" * 300
    code, out, err = tinymu("ask", name, recordings[1], *COMMANDS["ask"])
    assert code == 2
    assert out.startswith(str(recordings[1]))
    assert err.startswith(f"error: {name}: cannot be accessed (File name too long); check")


def test_answers_come_without_a_stderr(checkpoint_file, recordings):
    code = (
        "import os, sys; os.close(2); sys.stderr = None; from tinymu_jax import load; "
        "print(load(sys.argv[1]).generate_tokens(sys.argv[2], [5, 6], 3))"
    )
    result = run_process("-c", code, str(checkpoint_file), str(recordings[1]))
    assert result.returncode == 0
    assert result.stdout.startswith("[")
