"""Learning to tag: PyTorch's BatchNorm and loss, rates by layer, tags by window, gone on with."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from helpers import logged, noise, refusal, run_cli, with_part

import tinymu_jax
from tinymu_jax.checkpoints.checkpoint import (
    Checkpoint,
    init_params,
    read_checkpoint,
    save_checkpoint,
)
from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.label_batches import LabelBatch
from tinymu_jax.data.prepare import prepare
from tinymu_jax.inference.tagging import TagFile, Window, tag_windows
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import HeadConfig, MatpacConfig
from tinymu_jax.training import run as runs
from tinymu_jax.training.config import (
    TAGGING,
    LoopConfig,
    OptimConfig,
    TagConfig,
    TagDataConfig,
    TagInitConfig,
    TagStepConfig,
)
from tinymu_jax.training.init_weights import open_init
from tinymu_jax.training.optim import make_optimizer
from tinymu_jax.training.tasks.tagger import TagTask, mixup, read_class_names, read_targets
from tinymu_jax.utils.tree import flatten

ENCODER = MatpacConfig(width=32, depth=2, num_heads=2, num_frames=96)
TAGS = ["drums;fast", "drums", "", "fast;loud", "loud", "drums;loud"]
CLIPS = 3


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Six prepared clips with their tags, and an encoder of shorter chunks."""
    folder = tmp_path_factory.mktemp("sounds")
    for number, seconds in enumerate([1.0, 0.6, 0.9, 1.0, 0.8, 0.7]):
        soundfile.write(folder / f"{number}.wav", noise(int(16_000 * seconds)), 16_000)
    options = PrepareConfig(FeatureConfig("log_mel", "mean", "kaiser-best", 30.0), workers=1)
    prepare([], [folder], folder / "data", None, options)
    with (folder / "tags.csv").open("w", newline="") as file:
        rows = [[f"{number}.wav", tags] for number, tags in enumerate(TAGS)]
        csv.writer(file).writerows([["file", "labels"], *rows])
    save_checkpoint(folder / "encoder", Checkpoint(ENCODER, init_params(ENCODER, 3)))
    return folder


@pytest.fixture
def config(sounds, tmp_path, compiled_programs_stay_here):
    """A run of six steps without mixup."""
    return TagConfig(
        output=str(tmp_path / "run"),
        init=TagInitConfig(encoder=str(sounds / "encoder")),
        model=MatpacConfig(num_frames=96),
        data=TagDataConfig(
            str(sounds / "data"),
            labels=str(sounds / "tags.csv"),
            clips=CLIPS,
            seconds=1.0,
            threads=1,
        ),
        step=TagStepConfig(blocks=2, mixup=0.0),
        optim=dataclasses.replace(TAGGING, learning_rate=1e-3),
        mesh=MeshConfig(1, 1, 1),
        loop=LoopConfig(log_every=1, save_every=3, tensorboard=False),
        steps=6,
    )


def train(config, resume=False, devices=1):
    return runs.train(config, resume, jax.devices()[:devices])


def endless(config):
    return with_part(config, "data", epochs=0)


# --- the numbers -------------------------------------------------------------------------------


def test_head_loss_and_statistics_are_those_of_pytorch(config, sounds):
    """The encoder stays as it is: its vectors go through torch's BatchNorm and linear layer."""
    torch = pytest.importorskip("torch")
    frozen = "(?!head/linear).*"
    config = endless(
        with_part(config, "optim", frozen_params=frozen, layer_decay=1.0, weight_decay=0.0)
    )
    begun = open_init(config).params
    train(config)
    norm = torch.nn.BatchNorm1d(32, affine=False)
    linear = torch.nn.Linear(32, 3)
    kernel, bias = (np.array(begun["head"]["linear"][name]) for name in ("kernel", "bias"))
    linear.load_state_dict(
        {"weight": torch.from_numpy(kernel.T.copy()), "bias": torch.from_numpy(bias)}
    )
    optimiser = torch.optim.Adam(linear.parameters())
    listener = tinymu_jax.load(sounds / "encoder")
    # All six clips are in every step: their order does not matter.
    paths = [sounds / f"{number}.wav" for number in range(6)]
    encoded = [listener.embed(str(path)).reshape(-1, 5, 32).mean((0, 1)) for path in paths]
    x = torch.from_numpy(np.stack(encoded))
    names = ["drums", "fast", "loud"]
    expected = torch.tensor([[float(name in tags.split(";")) for name in names] for tags in TAGS])
    for step, result in enumerate(logged(config)):
        scores = linear(norm(x))
        lost = torch.nn.functional.binary_cross_entropy_with_logits(scores, expected)
        assert result == pytest.approx(lost.item(), abs=2e-3)
        # A rise of int(0.1 * 6) steps is none: half a cosine from the first step on.
        optimiser.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * step / 6))
        optimiser.zero_grad()
        lost.backward()
        optimiser.step()
    last = read_checkpoint(Path(config.output) / "model").params["head"]
    np.testing.assert_allclose(last["norm"]["mean"], norm.running_mean, atol=1e-3)
    np.testing.assert_allclose(last["norm"]["variance"], norm.running_var, rtol=2e-2)
    assert int(last["norm"]["count"]) == 6
    np.testing.assert_allclose(last["linear"]["kernel"].T, linear.weight.detach(), atol=2e-4)


def test_lower_layers_learn_more_slowly():
    params = {
        "patch_embed": {"kernel": jnp.ones((4, 4))},
        "transformer": {
            "blocks": {"fc": {"kernel": jnp.ones((3, 4, 4))}},
            "norm": {"b": jnp.ones(4)},
        },
        "head": {"linear": {"kernel": jnp.ones((4, 2))}},
    }
    config = OptimConfig(learning_rate=1.0, warmup_fraction=0.0, layer_decay=0.5)
    optimiser = make_optimizer(config, 10)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    # Adam's first step is as long as the rate.
    result = {path: -leaf for path, leaf in flatten(updates)}
    np.testing.assert_allclose(result["patch_embed/kernel"], 0.5**4, rtol=1e-5)
    for layer, factor in enumerate([0.5**3, 0.5**2, 0.5]):
        np.testing.assert_allclose(result["transformer/blocks/fc/kernel"][layer], factor, rtol=1e-5)
    np.testing.assert_allclose(result["transformer/norm/b"], 1, rtol=1e-5)
    np.testing.assert_allclose(result["head/linear/kernel"], 1, rtol=1e-5)


def test_mixed_clips_have_both_clips_labels_in_their_shares():
    rng = np.random.default_rng(0)
    batch = LabelBatch(
        rng.normal(size=(2, 3, 5, 4)).astype(np.float16),
        np.array([[5, 3, 4], [2, 5, 1]]),
        np.eye(3, dtype=np.int32)[None].repeat(2, 0),
        np.array([8, 9]),
    )
    result = mixup(batch, 0.5, jax.random.key(0))
    shares = np.array(result.labels)
    for block in range(2):
        for clip in range(3):
            local, other = shares[block, clip, clip], shares[block, clip, clip - 1]
            assert local + other == pytest.approx(1)
            assert local >= 0.5
            expected = local * batch.features[block, clip].astype(np.float32)
            expected += other * batch.features[block, clip - 1].astype(np.float32)
            np.testing.assert_allclose(result.features[block, clip], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.lengths, [[5, 5, 4], [2, 5, 5]])
    assert len(np.unique(shares)) > 6
    # The same block has the same shares wherever it is computed.
    alone = mixup(jax.tree.map(lambda x: x[1:], batch), 0.5, jax.random.key(0))
    np.testing.assert_array_equal(alone.labels[0], result.labels[1])


@pytest.mark.slow
def test_no_mesh_changes_a_loss_and_a_run_goes_on(config, tmp_path):
    base = with_part(endless(config), "step", mixup=0.5)
    train(base)
    parted = dataclasses.replace(base, output=str(tmp_path / "parted"), mesh=MeshConfig(2, 1, 2))
    train(parted, devices=4)
    np.testing.assert_allclose(logged(parted), logged(base), rtol=2e-5)
    again = dataclasses.replace(base, output=str(tmp_path / "again"))
    assert train(with_part(again, "loop", stop_after=2)).model is None
    train(again, resume=True)
    assert logged(again) == logged(base)
    first, second = (
        dict(flatten(read_checkpoint(Path(c.output) / "model").params)) for c in (base, again)
    )
    for path, leaf in first.items():
        np.testing.assert_array_equal(second[path], leaf, err_msg=path)


# --- classes and checkpoints -------------------------------------------------------------------


def test_outputs_follow_the_list_of_classes(config, sounds, tmp_path):
    assert read_class_names(config) == ["drums", "fast", "loud"]
    rows = "index,mid,display_name\n0,/m/z,drums\n1,/m/a,loud\n2,/m/k,fast\n3,/m/b,never\n"
    (tmp_path / "classes.csv").write_text(rows)
    local = with_part(config, "data", classes=str(tmp_path / "classes.csv"))
    assert read_class_names(local) == ["loud", "never", "fast", "drums"]  # by mid
    np.testing.assert_array_equal(read_targets(local)["0.wav"], [0, 0, 1, 1])
    (tmp_path / "mids.csv").write_text("file,labels\n0.wav,/m/z;/m/a\n")
    by_mid = with_part(local, "data", labels=str(tmp_path / "mids.csv"))
    np.testing.assert_array_equal(read_targets(by_mid)["0.wav"], [1, 0, 0, 1])
    (tmp_path / "few.csv").write_text("index,mid,display_name\n0,/m/z,drums\n1,/m/a,loud\n")
    (tmp_path / "twice.txt").write_text("drums\nloud\ndrums\n")
    message = refusal(
        read_class_names, with_part(local, "data", classes=str(tmp_path / "twice.txt"))
    )
    assert "names a class twice" in message
    message = refusal(train, with_part(local, "data", classes=str(tmp_path / "few.csv")))
    assert "0.wav is 'fast', which is no class of" in message


@pytest.mark.parametrize(("first", "second"), [("a/7.mp3", "b/7.mp3"), ("7.mp3", "7.low.mp3")])
def test_two_recordings_of_one_name_are_an_error(first, second, tmp_path):
    table = tmp_path / "tags.csv"
    table.write_text(f"file,labels\n{first},drums\n{second},loud\n")
    message = refusal(read_targets, TagConfig(data=TagDataConfig(labels=str(table))))
    assert message.startswith(f"{table}: {first} and {second} have the same name, ")


@pytest.mark.parametrize("second", ["\u00e9.wav", "e\u0301.wav", "./\u00e9.wav"])
def test_rows_of_one_recording_are_merged(second, tmp_path):
    table = tmp_path / "tags.csv"
    table.write_text(f"file,labels\n\u00e9.wav,drums\n{second},loud\n")
    (targets,) = read_targets(TagConfig(data=TagDataConfig(labels=str(table)))).values()
    np.testing.assert_array_equal(targets, [1, 1])


def test_unknown_tags_are_neither_there_nor_absent(tmp_path):
    table = tmp_path / "tags.csv"
    rows = "a.wav,drums,fast\n./a.wav,,loud\nb.wav,loud;fast,\n"
    table.write_text("file,labels,unknown\n" + rows)
    targets = read_targets(TagConfig(data=TagDataConfig(labels=str(table))))
    np.testing.assert_array_equal(targets["a.wav"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(targets["b.wav"], [0, 1, 1])
    (tmp_path / "classes.txt").write_text("drums\nloud\n")
    data = TagDataConfig(labels=str(table), classes=str(tmp_path / "classes.txt"))
    assert "a.wav is 'fast', which is no class" in refusal(read_targets, TagConfig(data=data))


def test_unknown_tags_do_not_train():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((4, 8)).astype(np.float32)
    kernel = rng.standard_normal((8, 3)).astype(np.float32)
    labels = np.array([[1, 0, np.nan], [0, 1, np.nan], [1, 1, np.nan], [0, 0, np.nan]])

    def loss(kernel, labels):
        linear = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(kernel.shape[1])}
        return TagTask.head_loss(
            None, {"head": {"linear": linear}}, jnp.asarray(means), jnp.asarray(labels), None
        ).loss_sum

    value, gradient = jax.value_and_grad(loss)(kernel, labels)
    expected, known = jax.value_and_grad(loss)(kernel[:, :2], labels[:, :2])
    # The mean is over all classes, so that a clip of few known tags does not weigh more.
    np.testing.assert_allclose(value, expected * 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :2], known * 2 / 3, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gradient[:, 2], 0)


def test_it_tags_goes_to_pytorch_and_back(config, tmp_path):
    from tinymu_jax.cli.convert import FromTorch, ToTorch

    train(dataclasses.replace(endless(config), steps=2))
    listener = tinymu_jax.load(config.output)
    assert listener.labels == ["drums", "fast", "loud"]
    ToTorch(config.output, tmp_path / "out" / "tagger.pt").run()
    FromTorch(tmp_path / "out" / "tagger.pt", tmp_path / "back").run()
    expected = dict(flatten(read_checkpoint(Path(config.output) / "model").params))
    back = read_checkpoint(tmp_path / "back")
    assert back.config.head == HeadConfig("audioset", 3, "sigmoid")
    assert back.source["labels"] == ["drums", "fast", "loud"]
    for path, leaf in flatten(back.params):
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("data", {"labels": ""}, "no data.labels: name a csv"),
        ("data", {"clips": 1}, "data.clips is 1; give 2 or more"),
        ("step", {"grad_accum_steps": 2}, "the head's normalisation needs a whole batch; give 1"),
        ("step", {"mixup": -1.0}, "step.mixup is -1.0"),
        (
            "optim",
            {"frozen_params": "pos_embed"},
            "optim.frozen-params trains log_mel or head/norm",
        ),
        ("optim", {"frozen_params": "pos_embed|log_mel/.*|head/.*"}, "freezes the head"),
        ("model", {"compute_dtype": "bfloat16"}, "set by step.*, not by model.*"),
        ("model", {"remat": "full"}, "set by step.*, not by model.*"),
        ("data", {"clips": 4}, "has 6 clips that can be used, and a step takes 8"),
        ("init", {"encoder": "nowhere"}, "init.encoder nowhere: nowhere: no such file"),
        ("model", {"num_frames": 100}, "num_frames must be one of patch_size"),
    ],
)
def test_what_cannot_be_learnt_is_refused(config, part, fields, message):
    assert message in refusal(train, with_part(endless(config), part, **fields))
    assert not Path(config.output).exists()


def test_clips_are_heard_as_long_as_asked(config, sounds):
    params = open_init(config)
    short = with_part(endless(config), "data", seconds=0.5)
    task = TagTask(short, params.config, params.params, jax.devices()[:1])
    batch = task.batches[0]
    # 0.5 s are 48 frames: three columns of sixteen.
    assert batch.features.shape == (2, CLIPS, 48, 80)
    assert batch.lengths.max() == 48


# --- tags by window ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tagger(sounds):
    """An encoder with a head at random."""
    config = dataclasses.replace(ENCODER, head=HeadConfig("audioset", 4, "sigmoid"))
    params = init_params(config, 5)
    names = {"labels": ["hum", "hiss", "tone", "click"]}
    save_checkpoint(sounds / "tagger", Checkpoint(config, params, source=names))
    soundfile.write(sounds / "long.wav", noise(int(2.7 * 16_000)), 16_000)
    return sounds / "tagger"


def test_windows_are_tagged_as_clips_of_their_own(tagger, sounds):
    model = tinymu_jax.load(tagger)
    result = tag_windows(model, sounds / "long.wav", 1.0, 1.0, 4)
    assert [(w.start, w.end) for w in result] == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.7)]
    samples = tinymu_jax.audio.load.read_clip(sounds / "long.wav", None).samples
    for window in result:
        start, end = (round(16_000 * x) for x in (window.start, window.end))
        local = dict(model.tag(samples[start:end], 4))
        assert dict(window.tags) == pytest.approx(local, abs=1e-5)
    # What is left over is too short to be told.
    assert len(tag_windows(model, sounds / "long.wav", 1.25, 1.25, 2)) == 2


def test_several_classes_can_be_probable_at_once(tagger, sounds):
    shares = [share for _, share in tinymu_jax.load(tagger).tag(str(sounds / "0.wav"), None)]
    assert sum(shares) > 1.2


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_a_folder_is_tagged_into_a_file_and_gone_on_with(
    name, tagger, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}, a.wav", noise(24_000 + number), 16_000)
    (folder / "3.wav").write_bytes(b"no sound")
    file = tmp_path / name
    arguments = ["tag", folder, "--checkpoint", tagger, "--window", "1", "--top", "2"]
    arguments += ["--output", file]
    code, _, err = run_cli(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "3.wav" in err
    whole = file.read_text()
    if name.endswith("jsonl"):
        rows = [json.loads(line) for line in whole.splitlines()]
        assert [(row["start"], row["end"]) for row in rows[:2]] == [(0.0, 1.0), (1.0, 1.5)]
        assert all(len(row["tags"]) == 2 for row in rows)
    else:
        rows = list(csv.DictReader(whole.splitlines()))
        assert len(rows) == 12
        assert set(rows[0]) == {"file", "start", "end", "tag", "probability"}
    # Killed in the middle of a line: the last recording is done again, the others are not.
    file.write_text(whole[:-9])
    assert len(TagFile(file).done) == 2
    run_cli(capsys, monkeypatch, *arguments)
    assert sorted(file.read_text().splitlines()) == sorted(whole.splitlines())


def test_a_file_of_something_else_is_not_written_to(tmp_path):
    for name, text in (
        ("a.csv", "x,y\n1,2\n"),
        ("a.jsonl", '{"other": 1}\n'),
        ("b.csv", "no line"),
        ("b.jsonl", "no line"),
        ("c.csv", "file,start,end,tag,probability\nx\n"),
    ):
        (tmp_path / name).write_text(text)
        assert "holds something else than tags" in refusal(TagFile, tmp_path / name)
        assert (tmp_path / name).read_text() == text
    assert "ends in .csv or .jsonl" in refusal(TagFile, tmp_path / "tags.txt")
    file = TagFile(tmp_path / "new" / "b.csv")
    file.write("x.wav", [Window(0.0, 1.0, [("hum", 0.5)])])
    assert (tmp_path / "new" / "b.csv").read_text().endswith("x.wav,0.0,1.0,hum,0.500000\n")


WINDOWS = [Window(0.0, 1.0, [("hum", 0.5), ("a, b", 0.25)]), Window(1.0, 2.0, [("hum", 0.75)])]
NAMES = ["a.wav", "x\u2028y\x85.wav", "new\nline.wav", "cr\rcr.wav", "caf\udce9.wav", 'q"u,o.wav']


def recordings_in(path):
    """Returns the recordings in a file of tags, in the order of the rows."""
    text = path.read_bytes().decode()
    if path.suffix == ".jsonl":
        return [json.loads(line)["file"] for line in text.split("\n")[:-1]]
    # Csv has no escapes: bytes that are no UTF-8 are stored as text.
    rows = list(csv.reader(io.StringIO(text, newline="")))
    return [row[0].replace("\\udce9", "\udce9") for row in rows[1:]]


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_tags_of_any_names_are_written_once_wherever_a_run_was_killed(name, tmp_path):
    path = tmp_path / name
    file = TagFile(path)
    for recording in NAMES:
        file.write(recording, WINDOWS)
    whole = path.read_bytes()
    assert list(dict.fromkeys(recordings_in(path))) == NAMES
    for cut in (*range(0, len(whole), 13), whole.index(b"\n", 90) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        file = TagFile(path)
        for recording in NAMES:
            if file.key(recording) not in file.done:
                file.write(recording, WINDOWS)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_tags_of_other_recordings_are_kept(name, tmp_path):
    path = tmp_path / name
    TagFile(path).write("a.wav", WINDOWS)
    file = TagFile(path)
    file.write("b.wav", WINDOWS)
    file.write("./a.wav", WINDOWS)
    assert file.done == {"a.wav", "b.wav"}
    file = TagFile(path)
    assert list(dict.fromkeys(recordings_in(path))) == ["b.wav", "./a.wav"]
    file.write("c.wav", WINDOWS)
    assert TagFile(path).done == {"b.wav", "a.wav"}
    # The writing of d is cut in its first row, that of c in its second.
    whole = path.read_bytes()
    file = TagFile(path)
    file.write("d.wav", WINDOWS)
    written = path.read_bytes()
    path.write_bytes(written[: len(whole) + 12])
    TagFile(path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-12])
    TagFile(path)
    assert list(dict.fromkeys(recordings_in(path))) == ["b.wav", "./a.wav"]


def test_text_and_json_of_single_recordings(tagger, sounds, capsys, monkeypatch):
    arguments = ["tag", sounds / "long.wav", "--checkpoint", tagger, "--window", "2"]
    code, out, _ = run_cli(capsys, monkeypatch, *arguments, "--top", "1")
    assert code == 0
    assert out.splitlines()[1].startswith("    0.0 - 2.0 s  ")
    code, out, _ = run_cli(capsys, monkeypatch, *arguments, "--json")
    assert [json.loads(line)["end"] for line in out.splitlines()] == [2.0, 2.7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "0.1"], "window is 0.1; give 0.5 seconds or more"),
        (["--top", "0"], "top is 0"),
        (["--labels", "few.txt"], "names 2 classes, the checkpoint has 4"),
        (["--checkpoint", "encoder"], "has no head to tag with"),
    ],
)
def test_wrong_commands_end_with_one_line(options, message, tagger, sounds, capsys, monkeypatch):
    monkeypatch.chdir(sounds)
    (sounds / "few.txt").write_text("one\ntwo\n")
    arguments = ["tag", "0.wav", "--checkpoint", "tagger", *options]
    code, out, err = run_cli(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_needs_an_output(tagger, sounds, capsys, monkeypatch):
    code, _, err = run_cli(capsys, monkeypatch, "tag", sounds, "--checkpoint", tagger)
    assert code == 2
    assert "name a file for its tags with --output" in err
