"""Preparing a data set: exact contents, resuming after a kill, reported errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import grain
import ml_dtypes
import numpy as np
import pytest
import soundfile
from helpers import ROOT, noise, refusal, run_cli
from tokenizer_fixture import tokenizer_text

from tinymu_jax.audio.load import load_audio
from tinymu_jax.audio.log_mel import log_mel
from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.dataset import BAD_FILE, DATASET_FILE, Dataset
from tinymu_jax.data.prepare import prepare
from tinymu_jax.data.records import StoredQuestion, as_packed_question, decode_record, encode_record
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.process_pool import worker_pool

HOLD = f"""
import sys, time; from pathlib import Path; sys.path.insert(0, {str(ROOT)!r})
from tinymu_jax.utils.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
QUESTIONS = {
    "long.wav": [("What is it?", "A trumpet!"), ("Is it fast?", "Yes.")],
    "stereo.flac": [("Which key?", "F minor")],
    "short.wav": [("Describe the music you hear.", "word " * 200), ("a " * 200, "no")],
    "high.wav": [("Is there a voice?", "No.")],
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A list and the folder of its recordings: 11 s, two channels, 0.6 s, 48 kHz."""
    folder = tmp_path_factory.mktemp("recordings")
    soundfile.write(folder / "long.wav", noise(11 * 16_000), 16_000, subtype="PCM_16")
    soundfile.write(
        folder / "stereo.flac", np.stack([noise(40_000), noise(40_000)[::-1]], 1), 22_050
    )
    soundfile.write(folder / "short.wav", noise(9_600), 16_000, subtype="FLOAT")
    soundfile.write(folder / "high.wav", noise(100_000), 48_000)
    records = [
        {
            "file_name": name,
            "input_text": prompt,
            "target_text": answer,
            "dataset": "Made",
            "task": "QA",
        }
        for name, pairs in QUESTIONS.items()
        for prompt, answer in pairs
    ]
    (folder / "list.json").write_text(json.dumps(records))
    return folder


def make(recordings, output, store="log_mel", encoder=None, **options):
    features = FeatureConfig(kind=store, **options.pop("features", {}))
    config = PrepareConfig(features, **({"clips_per_shard": 3, "workers": 1} | options))
    text = tokenizer_text()
    return prepare([recordings / "list.json"], [recordings], output, text, config, encoder)


@pytest.fixture(scope="module")
def prepared(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    return Dataset(folder) if make(recordings, folder) else None


def test_records_hold_the_log_mel_and_all_questions(prepared, recordings):
    tokenizer = Tokenizer(tokenizer_text())
    assert len(prepared) == 4
    for number, (name, pairs) in enumerate(QUESTIONS.items()):
        record = prepared[number]
        assert record.clip == str(recordings / name)
        assert record.dataset == "Made"
        expected = np.asarray(log_mel(load_audio(recordings / name)))
        assert record.features.dtype == np.float16
        assert record.features.shape == expected.shape
        np.testing.assert_allclose(record.features, expected, atol=4e-3)
        assert [(q.prompt, q.answer) for q in record.questions] == pairs
        for question in record.questions:
            assert question.prompt_ids.tolist() == tokenizer.encode(question.prompt)
            assert question.answer_ids.tolist() == tokenizer.encode(question.answer)


def test_manifest_and_index(prepared, golden_checkpoint):
    page, config = prepared.manifest, golden_checkpoint.config
    assert (page["records"], page["questions"], page["bad"]) == (4, 6, 0)
    assert (page["cut_prompts"], page["cut_answers"]) == (1, 1)
    assert [shard["records"] for shard in page["shards"]] == [3, 1]
    index = prepared.index
    assert index.first.tolist() == [0, 2, 3, 5, 6]
    assert index.columns.tolist() == [63, 12, 4, 13]
    lengths = index.lengths(config)
    stored = [q for number in range(4) for q in prepared[number].questions]
    questions = [as_packed_question(q, config) for q in stored]
    assert lengths.prompt.tolist() == [len(q.prompt) for q in questions]
    assert lengths.labels.tolist() == [len(q.labels) for q in questions]
    assert max(lengths.prompt) == max(lengths.labels) == 129


def test_a_16_bit_waveform_is_stored_exactly(recordings, tmp_path):
    make(recordings, tmp_path / "out", "waveform")
    dataset = Dataset(tmp_path / "out")
    expected, _ = soundfile.read(recordings / "long.wav", dtype="int16")
    np.testing.assert_array_equal(dataset[0].features, expected[:160_000])
    assert dataset[0].features.dtype == np.int16
    assert dataset.index.columns.tolist() == [63, 12, 4, 13]


def test_embeddings_are_the_encoders(recordings, tmp_path, golden_checkpoint, assistant):
    make(recordings, tmp_path / "out", "embeddings", golden_checkpoint)
    dataset = Dataset(tmp_path / "out")
    for number, name in enumerate(QUESTIONS):
        features = dataset[number].features
        assert features.dtype == ml_dtypes.bfloat16
        expected = assistant.embed(recordings / name).astype(ml_dtypes.bfloat16)
        difference = np.abs(features.astype(np.float32) - expected.astype(np.float32))
        assert difference.max() < 0.02
    assert dataset.index.columns.tolist() == [63, 12, 4, 13]


@pytest.mark.parametrize("store", ["embeddings", "log_mel"])
def test_embeddings_need_an_encoder(recordings, tmp_path, golden_checkpoint, store):
    encoder = None if store == "embeddings" else golden_checkpoint
    message = refusal(make, recordings, tmp_path / "out", store, encoder)
    assert "--checkpoint" in message


def test_reading_options_are_stored(recordings, tmp_path, prepared):
    features = {"mono": "mean", "resampler": "kaiser-best", "max_seconds": 5.0}
    make(recordings, tmp_path / "out", features=features)
    dataset = Dataset(tmp_path / "out")
    assert dataset.features == FeatureConfig("log_mel", "mean", "kaiser-best", 5.0)
    assert dataset.index.columns.tolist() == [32, 12, 4, 13]
    one, two = dataset[1].features, prepared[1].features
    assert np.abs(one.astype(np.float32) - two.astype(np.float32)).max() > 0.1


def test_grain_reads_it(prepared):
    source = grain.MapDataset.source(prepared).map(lambda record: len(record.questions))
    assert list(source) == [2, 1, 2, 1]


def test_a_record_round_trips():
    from tinymu_jax.data.records import Record

    ids = np.arange(5, dtype=np.int32)
    for features in (np.zeros((3, 80), np.float16), np.ones((2, 7), ml_dtypes.bfloat16)):
        record = Record("a ü.wav", "MC", features, (StoredQuestion("a", "b", "QA", ids, ids[:2]),))
        again = decode_record(encode_record(record))
        assert again[:2] == record[:2]
        assert again.features.dtype == features.dtype
        np.testing.assert_array_equal(again.features, features)
        assert again.questions[0][:3] == ("a", "b", "QA")
        assert again.questions[0].answer_ids.tolist() == [0, 1]


# --- bad recordings ----------------------------------------------------------------------------


@pytest.fixture
def with_bad(recordings, tmp_path):
    """The recordings, one of them missing and one cut in its header."""
    folder = tmp_path / "bad"
    shutil.copytree(recordings, folder)
    (folder / "stereo.flac").unlink()
    (folder / "high.wav").write_bytes((folder / "high.wav").read_bytes()[:20])
    return folder


def test_bad_recordings_are_listed_and_too_many_are_an_error(with_bad, tmp_path):
    output = tmp_path / "out"
    message = refusal(make, with_bad, output)
    assert "recordings cannot be used, more than 0.1 %" in message
    assert "--max-bad-fraction" in message
    assert not (output / DATASET_FILE).exists()
    # So it is again where every shard is there: nothing is let through by asking twice.
    message = refusal(make, with_bad, output)
    assert message.startswith("2 of 4 recordings")
    assert refusal(make, with_bad, output) == message
    # Allowing more goes on with what is there.
    page = make(with_bad, output, max_bad_fraction=0.5)
    assert (page["records"], page["bad"], page["questions"]) == (2, 2, 4)
    faults = [json.loads(line) for line in (output / BAD_FILE).read_text().splitlines()]
    assert [fault["clip"] for fault in faults] == [
        str(with_bad / name) for name in ("stereo.flac", "high.wav")
    ]
    assert "no such file" in faults[0]["reason"]
    assert "cannot be decoded" in faults[1]["reason"]
    assert [record.clip for record in map(Dataset(output).__getitem__, range(2))] == [
        str(with_bad / name) for name in ("long.wav", "short.wav")
    ]


# --- stopping and going on ---------------------------------------------------------------------


def test_a_kill_loses_unfinished_shards_only(recordings, tmp_path, prepared):
    output = tmp_path / "out"
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(tokenizer_text())
    arguments = ["--lists", recordings / "list.json", "--audio", recordings, "--output", output]
    arguments += ["--tokenizer", tokenizer, "--clips-per-shard", "1", "--workers", "1"]
    command = [sys.executable, "-m", "tinymu_jax", "data", "prepare", *arguments]
    command = list(map(str, command))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    first = output / "shard-00000.json"
    while not first.exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {path.name: path.stat().st_mtime_ns for path in output.glob("shard-*.json")}
    assert "shard-00000.json" in made
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"4 clips with 6 questions in {output}; 0 unusable")
    for name, when in made.items():
        assert (output / name).stat().st_mtime_ns == when
    dataset = Dataset(output)
    for number in range(4):
        one, two = dataset[number], prepared[number]
        np.testing.assert_array_equal(one.features, two.features)
        assert one.questions[0].prompt == two.questions[0].prompt
    assert not list(output.glob("*.partial"))


def test_a_folder_with_another_data_set_is_rejected(recordings, tmp_path):
    make(recordings, tmp_path / "out")
    message = refusal(make, recordings, tmp_path / "out", "waveform")
    assert message.startswith(f"{tmp_path / 'out'}: holds a data set with other features; ")
    message = refusal(make, recordings, tmp_path / "out", clips_per_shard=2)
    assert "other clips_per_shard" in message
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a note")
    assert "holds other files (a.txt)" in refusal(make, recordings, tmp_path / "notes")


def test_a_folder_is_locked_while_it_is_written(recordings, tmp_path):
    (tmp_path / "out").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    message = refusal(make, recordings, tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'out'}: another process is writing it; ")
    holder.kill()
    holder.wait()
    assert make(recordings, tmp_path / "out")["records"] == 4


def test_complete_shards_are_not_written_again(recordings, tmp_path, monkeypatch):
    page = make(recordings, tmp_path / "out")
    monkeypatch.setattr("tinymu_jax.data.prepare.make_shards", lambda work, *_: (x for x in work))
    assert make(recordings, tmp_path / "out") == page


# --- broken data sets --------------------------------------------------------------------------


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared.folder, tmp_path / "copy")


@pytest.mark.parametrize("remaining", [0, 1000, -1])
def test_a_truncated_shard_is_named_and_repaired(copy, recordings, remaining):
    shard = copy / "shard-00001.array_record"
    shard.write_bytes(shard.read_bytes()[:remaining])
    message = refusal(Dataset, copy)
    assert message.startswith(f"{shard}: has ")
    assert "run `tinymu data prepare` again" in message
    make(recordings, copy)
    assert len(Dataset(copy)[3].questions) == 1


def test_a_missing_shard_or_manifest_is_named(copy):
    (copy / "shard-00000.array_record").unlink()
    assert refusal(Dataset, copy).startswith(f"{copy / 'shard-00000.array_record'}: has 0 bytes")
    (copy / DATASET_FILE).unlink()
    assert refusal(Dataset, copy).startswith(f"{copy}: has no dataset.json; ")


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_a_damaged_index_is_named_and_repaired(copy, recordings, content):
    (copy / "index.npz").write_bytes(content)
    assert refusal(Dataset, copy).startswith(f"{copy / 'index.npz'}: is damaged (")
    make(recordings, copy)
    assert len(Dataset(copy)) == 4


ELSEWHERE = [[{"name": name, "bytes": 1, "records": 1}] for name in ("/etc/passwd", "../x", 3)]


@pytest.mark.parametrize(
    "shards", [None, [{}], ["x"], [{"name": "x", "bytes": [], "records": 1}], *ELSEWHERE]
)
def test_a_damaged_manifest_is_named(copy, shards):
    page = json.loads((copy / DATASET_FILE).read_text())
    (copy / DATASET_FILE).write_text(json.dumps(page | {"shards": shards}))
    assert refusal(Dataset, copy).startswith(f"{copy / DATASET_FILE}: is damaged (")
    (copy / DATASET_FILE).write_text(json.dumps(page | {"shards": page["shards"][:1]}))
    assert "4 clips instead of" in refusal(Dataset, copy)


def test_a_kill_while_the_inputs_are_stored_is_gone_on_with(recordings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "started.json.1.partial").write_text("{")
    assert make(recordings, tmp_path / "out")["records"] == 4
    assert not list((tmp_path / "out").glob("*.partial"))


def test_another_format_or_field_is_named(copy):
    page = json.loads((copy / DATASET_FILE).read_text())
    (copy / DATASET_FILE).write_text(json.dumps(page | {"format": 3}))
    assert "format 3, this version reads 2" in refusal(Dataset, copy)
    (copy / DATASET_FILE).write_text(json.dumps(page | {"features": {"stores": 1}}))
    assert "unknown key 'stores'" in refusal(Dataset, copy)


def test_another_tokenizer_is_rejected(prepared):
    prepared.check_model(tokenizer_text(), {})
    message = refusal(prepared.check_model, "another", {})
    assert "its tokens come from another tokenizer" in message


# --- the commands ------------------------------------------------------------------------------


def test_stats_print_how_full_rows_are(prepared, capsys, monkeypatch):
    arguments = ("stats", prepared.folder, "--packing.rows", 1, "--json")
    code, out, _ = run_cli(capsys, monkeypatch, "data", *arguments)
    result = json.loads(out)
    assert (code, result["clips"], result["questions"]) == (0, 4, 6)
    assert 0.2 < result["slots used"] <= 1
    code, out, _ = run_cli(capsys, monkeypatch, "data", *arguments[:-1])
    assert "questions a clip   1.500" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["prepare"], "nothing to prepare: name lists of questions, or folders"),
        (["prepare", "--clips-per-shard", "0"], "clips-per-shard of 1 or more"),
        (["stats", "nowhere"], "nowhere: has no dataset.json"),
    ],
)
def test_bad_commands_end_with_one_line(arguments, named, tmp_path, capsys, monkeypatch):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(tokenizer_text())
    options = ["--tokenizer", tokenizer] if arguments[0] == "prepare" else []
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli(capsys, monkeypatch, "data", *arguments, *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert named in err


def test_the_end_of_a_worker_is_one_sentence():
    def work():
        with worker_pool(1) as pool:
            pool.submit(os._exit, 1).result()

    assert "a worker process died" in refusal(work)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ("log_mel", "mean", "kaiser-best", 86_400.0)),
        (["--max-seconds", "10", "--mono", "first"], ("log_mel", "first", "kaiser-best", 10.0)),
    ],
)
def test_recordings_without_lists_are_read_as_in_pre_training(
    options, expected, tmp_path, capsys, monkeypatch
):
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", noise(16_000), 16_000)
    arguments = ["prepare", "--audio", tmp_path / "music", "--output", tmp_path / "data", *options]
    code, _, err = run_cli(capsys, monkeypatch, "data", *arguments)
    assert code == 0, err
    features = Dataset(tmp_path / "data").features
    result = (features.kind, features.mono, features.resampler, features.max_seconds)
    assert result == expected
