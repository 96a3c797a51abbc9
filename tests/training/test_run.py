"""Training runs in a folder: start, stop, resume, export, and errors."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import lines, refusal, run_process, write_lists
from tokenizer_fixture import tokenizer_text

from tinymu_jax.checkpoints.checkpoint import read_checkpoint, save_checkpoint
from tinymu_jax.data.config import AugmentConfig, FeatureConfig, PrepareConfig
from tinymu_jax.data.prepare import prepare
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import LoraConfig
from tinymu_jax.models.lora import LORA_FROZEN_PARAMS
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.training import checkpointing as checkpoints_module
from tinymu_jax.training import run as runs
from tinymu_jax.training.checkpointing import Checkpoints, complete_steps
from tinymu_jax.training.config import (
    DataConfig,
    InitConfig,
    LoopConfig,
    OptimConfig,
    StepConfig,
    TrainConfig,
)
from tinymu_jax.training.init_weights import open_init
from tinymu_jax.training.optim import make_optimizer
from tinymu_jax.training.run import export
from tinymu_jax.training.train_step import init_state
from tinymu_jax.utils.files import folder_lock
from tinymu_jax.utils.tree import flatten

SECONDS = [3.0, 2.2, 0.7, 4.0, 1.5, 2.0]
PACKING = PackingConfig(row_length=160, rows=2, max_clips=3, max_labels=80, buffer_size=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set of six clips with one to six questions each."""
    recordings = tmp_path_factory.mktemp("recordings")
    path = write_lists(recordings, SECONDS)
    folder = tmp_path_factory.mktemp("prepared")
    options = PrepareConfig(FeatureConfig("log_mel"), workers=1)
    prepare([path], [recordings], folder, tokenizer_text(), options)
    return folder


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer_text())
    return path


@pytest.fixture
def config(data, tokenizer_file, golden_dir, tmp_path, compiled_programs_stay_here):
    """A run of a dozen steps from the golden model."""
    return TrainConfig(
        output=str(tmp_path / "run"),
        init=InitConfig(str(golden_dir / "tinymu_tiny.pt"), tokenizer=str(tokenizer_file)),
        data=DataConfig(str(data), packing=PACKING, epochs=12, threads=2),
        step=StepConfig(remat="none"),
        optim=OptimConfig(learning_rate=1e-3),
        mesh=MeshConfig(1, 1, 1),
        loop=LoopConfig(log_every=1, save_every=4, tensorboard=False),
        steps=12,
    )


def train(config, resume=False):
    return runs.train(config, resume, jax.devices()[:1])


def changed(config, **fields):
    """Returns the config with fields set, nested ones by `part__field`."""
    for name, value in fields.items():
        part, nested, field = name.partition("__")
        if nested:
            value = dataclasses.replace(getattr(config, part), **{field: value})
        config = dataclasses.replace(config, **{part: value})
    return config


# --- the whole way -----------------------------------------------------------------------------


def test_the_final_model_answers_and_converts_to_torch(config, tmp_path, golden_dir):
    import torch

    import tinymu_jax
    from tinymu_jax.checkpoints.pytorch.tinymu import from_published

    trained = train(config)
    assert trained.steps == 12
    losses = lines(trained.folder)
    assert list(losses) == list(range(1, 13))
    assert np.mean([losses[i] for i in (10, 11, 12)]) < losses[1]
    model = tinymu_jax.load(trained.folder)
    assert model.ask(golden_dir / "audio" / "mono_44k_3p2s.wav", "Why?", max_new_tokens=3)
    result = run_process("-m", "conversion.to_torch", trained.model, tmp_path / "back.pt")
    assert result.returncode == 0, result.stderr
    state = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    before = torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"]
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in before.items()}
    changed = {key.split(".")[0] for key in state if not torch.equal(state[key], before[key])}
    assert changed == {"projector", "text_decoder"}
    back = dict(flatten(from_published(tmp_path / "back.pt").params))
    for path, leaf in flatten(read_checkpoint(trained.model).params):
        np.testing.assert_array_equal(back[path], leaf)


def assert_same_model(a, b):
    expected = dict(flatten(read_checkpoint(b).params))
    for path, leaf in flatten(read_checkpoint(a).params):
        np.testing.assert_array_equal(expected[path], leaf)


def test_a_stopped_run_resumes_bit_identically(config, tmp_path):
    whole = train(config)
    cut = changed(config, output=str(tmp_path / "cut"), loop__stop_after=5)
    assert train(cut).model is None
    assert complete_steps(tmp_path / "cut" / "checkpoints") == [4, 5]
    # What a kill leaves behind is no line.
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    on = train(changed(cut, loop__stop_after=None), resume=True)
    assert lines(on.folder) == lines(whole.folder)
    assert_same_model(on.model, whole.model)


def test_a_run_in_float16_resumes_with_its_loss_scale(config, tmp_path, monkeypatch):
    # The scale changes before and after the run is stopped.
    monkeypatch.setattr("tinymu_jax.training.train_step.GROWTH_INTERVAL", 2)
    half = changed(config, step__encoder_dtype="float16", step__decoder_dtype="float16", steps=8)
    whole = train(half)
    scales = lines(whole.folder, "loss_scale")
    assert len({scales[step] for step in range(1, 6)}) > 1 < len({*list(scales.values())[5:]})
    cut = changed(half, output=str(tmp_path / "cut"), loop__stop_after=5)
    train(cut)
    on = train(changed(cut, loop__stop_after=None), resume=True)
    assert lines(on.folder, "loss_scale") == scales
    assert lines(on.folder) == lines(whole.folder)


def test_checkpoints_in_another_folder(config, tmp_path):
    whole = train(changed(config, output=str(tmp_path / "whole"), steps=8))
    place = tmp_path / "elsewhere"
    config = changed(config, checkpoints=f"file://{place}", steps=8, loop__stop_after=5)
    train(config)
    assert complete_steps(place) == complete_steps(f"file://{place}") == [4, 5]
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert "saved at step 5; continue it with --resume" in refusal(train, config)
    on = changed(config, loop__stop_after=None)
    assert "checkpoints (was" in refusal(train, changed(on, checkpoints=None), True)
    trained = train(on, resume=True)
    assert_same_model(trained.model, whole.model)
    assert export(trained.folder, tmp_path / "latest", "latest") == 8
    said = refusal(train, changed(on, output=str(tmp_path / "other")))
    other = tmp_path / "other"
    assert said.startswith(f"file://{place}: has checkpoints, but {other} has no run.json")
    assert said.endswith("name another --checkpoints")


def test_an_unreachable_bucket_is_an_error(monkeypatch):
    class Away:
        def glob(self, pattern):
            raise OSError("no route to host")

    monkeypatch.setattr(checkpoints_module, "checkpoint_path", lambda folder: Away())
    said = refusal(complete_steps, "gs://bucket/run")
    assert said.startswith("gs://bucket/run: cannot be listed (no route to host); check the")


def test_complete_checkpoints_on_a_bucket_are_marked(tmp_path, monkeypatch):
    for step in (4, 5):
        (tmp_path / str(step)).mkdir()
    (tmp_path / "4" / "commit_success.txt").touch()
    assert complete_steps(tmp_path) == [4, 5]

    class Bucket(type(tmp_path)):
        def __str__(self):
            return "gs://bucket/run"

    monkeypatch.setattr(checkpoints_module, "checkpoint_path", lambda folder: Bucket(tmp_path))
    monkeypatch.setattr(Bucket, "glob", lambda self, pattern: tmp_path.glob(pattern))
    assert complete_steps("gs://bucket/run") == [4]


def test_checkpoints_on_other_buckets_are_an_error():
    assert "s3://b/run: checkpoints go to a folder or to gs://" in refusal(
        complete_steps, "s3://b/run"
    )


def test_best_and_latest_checkpoints_are_kept(tmp_path):
    optimiser = make_optimizer(OptimConfig(), 10)
    state = init_state({"a": {"kernel": np.ones((2, 3), np.float32)}}, optimiser)
    checkpoints = Checkpoints(tmp_path / "checkpoints", max_to_keep=2)
    measured = {2: 3.0, 3: 2.0, 5: 2.5}
    for step in range(1, 8):
        loss = {"validation_loss": measured[step]} if step in measured else {}
        checkpoints.save(state._replace(step=jnp.int32(step)), step, loss)
    checkpoints.close()
    assert complete_steps(tmp_path / "checkpoints") == [3, 6, 7]
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert (checkpoints.best(), checkpoints.latest()) == (3, 7)
    assert checkpoints.restore(3, jax.device_put(state)).step == 3
    checkpoints.close()


def test_the_best_model_is_final_and_others_can_be_exported(config, data):
    config = changed(config, data__validation=str(data), loop__validate_every=5)
    trained = train(config)
    actual = lines(trained.folder, "validation_loss")
    assert list(actual) == [5, 10, 12]
    best = min(actual, key=actual.get)
    folder = trained.folder.parent
    assert export(trained.folder, folder / "best") == best
    assert_same_model(folder / "best", trained.model)
    assert export(trained.folder, folder / "latest", "latest") == 12
    message = refusal(export, trained.folder, folder / "other", "5")
    assert "has no checkpoint '5'; there are latest, best, " in message


def test_validation_is_the_loss_of_all_questions(config, data):
    """On its own training set, before anything is learnt, it is the mean of the losses."""
    config = changed(
        config,
        optim__learning_rate=0.0,
        data__validation=str(data),
        data__epochs=1,
        steps=0,
        loop__validate_every=1,
    )
    trained = train(config)
    losses, tokens = lines(trained.folder), lines(trained.folder, "tokens")
    mean = sum(losses[step] * tokens[step] for step in losses) / sum(tokens.values())
    (actual,) = set(lines(trained.folder, "validation_loss").values())
    assert actual == pytest.approx(mean, rel=1e-6)


def test_one_batch_can_be_overfitted(config, golden_dir):
    config = changed(
        config, steps=150, overfit_batch=True, loop__save_every=1000, optim__learning_rate=1e-2
    )
    losses = lines(train(config).folder)
    assert losses[150] < 0.05 < 3 < losses[1]


def test_lora_is_merged_into_the_model_at_the_end(config, tmp_path, golden_checkpoint):
    config = changed(
        config, lora=LoraConfig(rank=4, alpha=8.0), optim__frozen_params=LORA_FROZEN_PARAMS
    )
    trained = train(config)
    model = read_checkpoint(trained.model)
    assert model.config == golden_checkpoint.config
    before = dict(flatten(golden_checkpoint.params))
    learnt = {path for path, x in flatten(model.params) if not np.array_equal(x, before[path])}
    layers = "decoder/body/layers/attn/qkv"
    projector = {path for path in before if path.startswith("projector")}
    assert learnt == {f"{layers}/q_proj/kernel", f"{layers}/v_proj/kernel"} | projector


@pytest.mark.parametrize("of_a_whole", [False, True])
def test_pretrained_parts_are_joined_with_random_ones(
    config, tmp_path, golden_checkpoint, of_a_whole
):
    from tinymu_jax.checkpoints.checkpoint import Checkpoint, save_checkpoint

    whole = golden_checkpoint.config
    for name in ("encoder", "decoder"):
        part = Checkpoint(getattr(whole, name), golden_checkpoint.params[name])
        save_checkpoint(tmp_path / name, golden_checkpoint if of_a_whole else part)
    parts = {"checkpoint": None, "encoder": str(tmp_path / "encoder")}
    parts["decoder"] = str(tmp_path / "decoder")
    start = dataclasses.replace(config.init, **parts)
    begun = open_init(changed(config, init=start))
    projector = begun.params.pop("projector")
    assert projector["linear1"]["kernel"].shape == (whole.encoder.output_width, 2048)
    for path, leaf in flatten(begun.params):
        np.testing.assert_array_equal(dict(flatten(golden_checkpoint.params))[path], leaf)


# --- what is refused ---------------------------------------------------------------------------


def test_a_nan_loss_stops_the_run(config):
    config = changed(
        config, optim__learning_rate=1e38, loop__save_every=1, optim__warmup_fraction=0.0
    )
    message = refusal(train, config)
    step = int(message.split(":")[0].removeprefix("step "))
    fault = json.loads((Path(config.output) / "not_finite.json").read_text())
    assert fault["step"] == step
    assert fault["last_good_checkpoint"] == step - 1
    assert f"last good checkpoint: {step - 1}; its clips: " in message
    assert fault["clips"]
    assert all(clip.endswith(".wav") for clip in fault["clips"])
    assert complete_steps(Path(config.output) / "checkpoints")[-1] == step - 1


def test_starting_over_in_a_run_folder_is_an_error(config):
    train(changed(config, loop__stop_after=4))
    assert "holds a run, saved at step 4; continue it with --resume" in refusal(train, config)


def test_resuming_with_another_config_is_an_error(config):
    train(changed(config, loop__stop_after=4))
    other = changed(config, optim__learning_rate=2e-3, data__epochs=13, lora=LoraConfig())
    message = refusal(train, other, resume=True)
    assert "data.epochs (was 12, is 13)" in message
    assert "optim.learning_rate (was 0.001, is 0.002)" in message
    assert "lora.rank (was None, is 32)" in message
    free = changed(config, loop__log_every=3, data__threads=1)
    assert train(free, resume=True).steps == 12


def test_resuming_with_other_data_is_an_error(config, data, tmp_path):
    import shutil

    train(changed(config, loop__stop_after=4))
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    assert train(changed(config, data__train=str(moved), loop__stop_after=5), True).steps == 5
    page = json.loads((moved / "dataset.json").read_text())
    (moved / "dataset.json").write_text(json.dumps(page | {"bad": 1}))
    message = refusal(train, changed(config, data__train=str(moved)), resume=True)
    assert "contents of data.train" in message


def test_checkpoints_without_run_json_are_an_error(config):
    folder = train(changed(config, loop__stop_after=4)).folder
    (folder / "run.json").unlink()
    assert f"has checkpoints, but {folder} has no run.json" in refusal(train, config, resume=True)


def test_validation_clips_longer_than_crops_are_an_error(config, data, tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    path = write_lists(recordings, [2.0, 3.0])
    features = FeatureConfig("waveform", max_seconds=20.0)
    options = PrepareConfig(features, workers=1)
    prepare([path], [recordings], tmp_path / "long", tokenizer_text(), options)
    config = changed(
        config,
        data__train=str(tmp_path / "long"),
        data__validation=str(tmp_path / "long"),
        data__augment=AugmentConfig(enabled=True),
        data__epochs=60,
    )
    assert "prepare it with --max-seconds 10" in refusal(train, config)
    assert train(changed(config, data__validation=None)).steps == 12


def test_two_runs_in_one_folder_are_an_error(config):
    Path(config.output).mkdir()
    with folder_lock(Path(config.output)):
        assert "another process is writing it" in refusal(train, config)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"output": ""}, "no output"),
        ({"data__train": ""}, "no data.train"),
        ({"data__train": "nowhere"}, "nowhere: is no prepared data set"),
        ({"data__validation": "nowhere"}, "nowhere: is no prepared data set"),
        ({"steps": 10_000}, "the data gives"),
        (
            {"step__blocks": 3, "step__grad_accum_steps": 2},
            "not a multiple of step.grad-accum-steps",
        ),
        ({"mesh__fsdp": 2}, "does not fit 1 devices"),
        ({"optim__warmup_fraction": 1.5}, "optim.warmup-fraction is 1.5"),
        (
            {"optim__warmup_fraction": 0.5, "optim__hold_fraction": 0.5},
            "are all of the run; lower one of them",
        ),
        ({"data__epochs": 0, "steps": 0}, "data.epochs is 0; give 1 or more"),
        ({"overfit_batch": True, "steps": 0}, "give --steps"),
        ({"init__encoder": "matpac.pt"}, "leave init.encoder and init.decoder out"),
        ({"init__tokenizer": "nowhere.json"}, "nowhere.json: no such file"),
        ({"init__checkpoint": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"loop__wandb": "music"}, "pip install wandb"),
        ({"loop__stop_after": 0}, "loop.stop-after is 0; give 1 or more"),
        ({"data__seed": -1}, "data.seed is -1"),
        ({"optim__max_grad_norm": 0.0}, "optim.max-grad-norm is 0.0"),
        ({"model__ignore_pad_labels": False}, "are set by step.*"),
        ({"init__tokenizer": "nano"}, "has 577 tokens, the decoder 512"),
        ({"optim__frozen_params": ".*"}, "freezes everything"),
        ({"optim__frozen_params": "("}, "is no regular expression"),
        ({"optim__muon_params": ".*/scale"}, "optim.muon-params"),
        ({"lora": LoraConfig(targets=("nope",))}, "nope"),
        ({"data__labels": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"data__packing": PackingConfig(row_length=8)}, "rows have 8"),
        ({"checkpoints": "s3://bucket/run"}, "checkpoints go to a folder or to gs://"),
        ({"checkpoints": "/proc/none/run"}, "/proc/none/run: cannot be created"),
    ],
)
def test_bad_configs_are_errors_that_leave_nothing(config, fields, named, tmp_path):
    if fields.get("output") != "":
        fields = {"output": str(tmp_path / "new" / "run")} | fields
    before = sorted(tmp_path.rglob("*"))
    assert named in refusal(train, changed(config, **fields))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"steps": 10_000}, "the data gives"),
        ({"init__tokenizer": "nano"}, "has 577 tokens, the decoder 512"),
    ],
)
def test_a_run_is_refused_before_weights_are_read(
    config, fields, named, tmp_path, golden_checkpoint, monkeypatch
):
    text = tokenizer_text()
    save_checkpoint(tmp_path / "init", golden_checkpoint._replace(tokenizer=text))
    config = changed(config, init__checkpoint=str(tmp_path / "init"))

    def read(*_):
        raise AssertionError("reads weights")

    for name in ("read_safetensors", "map_safetensors"):
        monkeypatch.setattr(f"tinymu_jax.checkpoints.safetensors.{name}", read)
    monkeypatch.setattr("tinymu_jax.checkpoints.checkpoint.map_safetensors", read)
    assert named in refusal(train, changed(config, **fields))
    with pytest.raises(AssertionError, match="reads weights"):
        train(config)
    assert not Path(config.output).exists()


def test_data_of_another_tokenizer_of_the_same_size_are_refused(config, tmp_path):
    content = json.loads(tokenizer_text())
    vocabulary = content["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    other = changed(config, init__tokenizer=str(tmp_path / "tokenizer.json"))
    assert "its tokens come from another tokenizer" in refusal(train, other)
    assert not Path(config.output).exists()


def test_a_folder_that_was_there_stays(config):
    Path(config.output).mkdir()
    refusal(train, changed(config, steps=10_000))
    assert list(Path(config.output).iterdir()) == []


def test_a_checkpoint_of_another_model_is_an_error(config, tmp_path, golden_checkpoint):
    from tinymu_jax.checkpoints.checkpoint import Checkpoint, save_checkpoint

    encoder = Checkpoint(golden_checkpoint.config.encoder, golden_checkpoint.params["encoder"])
    save_checkpoint(tmp_path / "encoder", encoder)
    config = changed(config, init__checkpoint=str(tmp_path / "encoder"))
    assert "is another model; name a whole TinyMU there" in refusal(train, config)


def test_sizes_beside_a_whole_checkpoint_are_an_error(config):
    config = changed(config, model__pooling=2)
    assert "decides the sizes; leave model.* out" in refusal(train, config)
