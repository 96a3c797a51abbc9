"""Pre-training runs: equality with PyTorch, meshes, resuming, export, use of the encoder."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from helpers import lines, logged, noise, refusal, with_part

import tinymu_jax
from tinymu_jax.checkpoints.checkpoint import read_checkpoint, save_checkpoint, to_float16
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.cli.convert import FromTorch, ToTorch
from tinymu_jax.data.crops import CropBatches, open_corpus
from tinymu_jax.data.prepare import prepare
from tinymu_jax.errors import InputError
from tinymu_jax.mesh import MeshConfig
from tinymu_jax.models.config import (
    MatpacConfig,
    PredictorConfig,
    ProjectorConfig,
    SelfSupervisedConfig,
    TinyMUConfig,
)
from tinymu_jax.models.matpac_ssl.losses import random_patch_orders
from tinymu_jax.models.positions import sincos_positions
from tinymu_jax.training import run as runs
from tinymu_jax.training.checkpointing import Checkpoints
from tinymu_jax.training.config import (
    PRETRAINING,
    ComputeConfig,
    CropsConfig,
    InitConfig,
    LoopConfig,
    PretrainConfig,
    PretrainInitConfig,
    TrainConfig,
)
from tinymu_jax.training.init_weights import open_init
from tinymu_jax.training.tasks import pretrain
from tinymu_jax.utils.tree import flatten

FRAMES, CLIPS, STEPS, WARMUP, SEED = 208, 2, 20, 5, 3


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder of nine recordings, one of them too short for a crop."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, seconds in enumerate([2.2, 3.0, 2.5, 2.1, 0.7, 4.0, 2.3, 2.8, 3.5]):
        soundfile.write(folder / f"{number}.wav", noise(int(seconds * 16_000)), 16_000)
    return folder


@pytest.fixture(scope="module", params=["mcl", "single"])
def published(request, golden_dir, tmp_path_factory):
    """A training checkpoint of the authors' code, its json beside it."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(golden_dir / f"matpac_ssl_{request.param}_tiny.pt", folder / "model.pt")
    heads = {"encoder": {"num_heads": 2}, "predictor": {"num_heads": 4}}
    (folder / "model.json").write_text(json.dumps(heads))
    return folder / "model.pt"


@pytest.fixture
def config(published, recordings, tmp_path, compiled_programs_stay_here):
    """A run of twenty steps from a published checkpoint."""
    return PretrainConfig(
        output=str(tmp_path / "run"),
        init=PretrainInitConfig(checkpoint=str(published)),
        data=CropsConfig(str(recordings), clips=CLIPS, seed=SEED, threads=2),
        step=ComputeConfig(blocks=2),
        optim=dataclasses.replace(PRETRAINING, warmup_fraction=WARMUP / STEPS),
        mesh=MeshConfig(1, 1, 1),
        loop=LoopConfig(log_every=1, save_every=6, tensorboard=False),
        steps=STEPS,
    )


def train(config, resume=False, devices=1):
    return runs.train(config, resume, jax.devices()[:devices])


# --- the numbers -------------------------------------------------------------------------------


def crops_and_orders(config, patches=65):
    """Yields each step's crops (C, 80, frames) and orders of patches, of both blocks."""
    corpus = open_corpus(config.data.train, FRAMES, 16)
    batches = CropBatches(corpus, FRAMES, CLIPS, 2, [0, 1], 0, STEPS, SEED)
    for step in range(STEPS):
        batch = batches[step]
        keys = [jax.random.fold_in(jax.random.key(SEED), number) for number in batch.number]
        orders = np.concatenate([random_patch_orders(key, CLIPS, patches) for key in keys])
        crops = batch.log_mel.reshape(-1, FRAMES, 80).astype(np.float32)
        yield crops.swapaxes(1, 2), orders


def test_twenty_steps_equal_pytorch(config, published):
    torch = pytest.importorskip("torch")
    from oracles import matpac_ssl as ssl_oracle

    train(config)
    content = read_torch_file(published)["model"]
    heads = sum("mcl_heads" in key and "weight" in key for key in content)
    part = open_checkpoint(published).config
    made = ssl_oracle.SelfSupervised(
        {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 4},
        {"decoder_embed_dim": 24, "decoder_depth": 1, "decoder_num_heads": 4, "mlp_ratio": 4},
        {"head_dim_out": 64, "hidden_dim": 40, "bottleneck_dim": 256},
        max(heads, 1),
        FRAMES,
    )
    assert part.predictor.hypotheses == max(heads, 1)
    made.load_published(as_tensors(content, torch))
    optimiser = ssl_oracle.make_optimizer(made)
    predictions, sorted_as = (
        list(lines(Path(config.output), name).values())
        for name in ("prediction_loss", "class_loss")
    )
    for step, (image, order) in enumerate(crops_and_orders(config)):
        # The rate of a step, counted from one: published code counts from nought.
        optimiser.param_groups[0]["lr"] = ssl_oracle.published_rate(step + 1, STEPS + 1, WARMUP)
        if step >= WARMUP:
            optimiser.param_groups[0]["lr"] = ssl_oracle.published_rate(step, STEPS, WARMUP)
        inputs = torch.from_numpy(image), torch.from_numpy(order.astype(np.int64))
        prediction, classes = ssl_oracle.train_step(made, optimiser, *inputs, step, STEPS)
        assert predictions[step] == pytest.approx(prediction, abs=1e-4)
        assert sorted_as[step] == pytest.approx(classes, abs=1e-3)
    # What teaches has followed alike.
    last = read_checkpoint(Path(config.output) / "model").params
    centre = made.cls_head_loss.center.numpy().reshape(-1)
    np.testing.assert_allclose(last["centre"], centre, atol=1e-6)
    bias = dict(made.teacher.named_parameters())["blocks.1.mlp.fc2.bias"].numpy()
    taught = last["teacher"]["encoder"]["transformer"]["blocks"]["mlp"]["fc2"]["bias"][1]
    np.testing.assert_allclose(taught, bias, atol=1e-6)


def as_tensors(content, torch):
    return {
        key: as_tensors(value, torch) if isinstance(value, dict) else torch.from_numpy(value.copy())
        for key, value in content.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_losses_do_not_depend_on_mesh_or_accumulation(config, tmp_path):
    base = with_part(dataclasses.replace(config, steps=4), "step", blocks=4)
    base = with_part(base, "data", clips=1)
    train(base)
    ways = {
        "parted": ({"mesh": MeshConfig(2, 2, 2)}, 8),
        "in_turn": ({"step": ComputeConfig(blocks=4, grad_accum_steps=2)}, 1),
    }
    for name, (fields, devices) in ways.items():
        other = dataclasses.replace(base, output=str(tmp_path / name), **fields)
        train(other, devices=devices)
        np.testing.assert_allclose(logged(other), logged(base), rtol=2e-5, err_msg=name)


# --- the whole way -----------------------------------------------------------------------------


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_resumed_runs_are_bit_identical_including_the_teacher(config, tmp_path):
    train(config)
    parted = dataclasses.replace(config, output=str(tmp_path / "parted"))
    assert train(with_part(parted, "loop", stop_after=7)).model is None
    train(parted, resume=True)
    assert logged(parted) == logged(config)
    whole, again = (read_checkpoint(Path(c.output) / "model") for c in (config, parted))
    expected = dict(flatten(whole.params))
    assert {"teacher/class_head/fc1/bias", "centre"} <= set(expected)
    for path, leaf in flatten(again.params):
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_the_final_model_round_trips_through_pytorch(config, tmp_path):
    train(dataclasses.replace(config, steps=2))
    run = Path(config.output)
    ToTorch(str(run), tmp_path / "out" / "ours.pt").run()
    FromTorch(tmp_path / "out" / "ours.pt", tmp_path / "back").run()
    mine, back = read_checkpoint(run / "model"), read_checkpoint(tmp_path / "back")
    expected = dict(flatten(mine.params))
    assert set(expected) == {path for path, _ in flatten(back.params)}
    for path, leaf in flatten(back.params):
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
    assert back.config == SelfSupervisedConfig(
        back.config.encoder, back.config.predictor, back.config.class_head
    )
    assert (back.config.encoder, back.config.predictor) == (
        mine.config.encoder,
        mine.config.predictor,
    )
    # The encoder alone, as encoders are published.
    ToTorch(str(run), tmp_path / "out" / "enconly.pt", encoder=True).run()
    encoder = open_checkpoint(tmp_path / "out" / "enconly.pt")
    assert isinstance(encoder.config, MatpacConfig)
    for path, leaf in flatten(encoder.params):
        np.testing.assert_array_equal(leaf, expected[f"encoder/{path}"], err_msg=path)
    message = refusal(ToTorch(str(run), tmp_path / "out" / "x.safetensors").run)
    assert "name a .pt, or write the encoder alone (--encoder)" in message


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_the_final_encoder_embeds_and_starts_a_fine_tuning(config, tmp_path):
    train(dataclasses.replace(config, steps=2))
    listener = tinymu_jax.load(config.output)
    assert listener.embed(noise(32_000)).shape == (13, 160)
    part = read_checkpoint(Path(config.output) / "model").params["encoder"]
    sizes = TinyMUConfig(
        encoder=MatpacConfig(num_frames=320), projector=ProjectorConfig(hidden_width=8)
    )
    tokenizer = tmp_path / "tokenizer.json"
    from tokenizer_fixture import tokenizer_text

    tokenizer.write_text(tokenizer_text())
    start = InitConfig(encoder=config.output, tokenizer=str(tokenizer))
    sizes = dataclasses.replace(
        sizes, decoder=dataclasses.replace(sizes.decoder, width=64, depth=1, mlp_width=32)
    )
    opened = open_init(TrainConfig(output="x", init=start, model=sizes))
    assert opened.config.encoder.num_frames == 320
    assert (opened.config.encoder.width, opened.config.projector.input_width) == (32, 160)
    # Positions of columns that it has not seen are those of the formula.
    np.testing.assert_allclose(
        opened.params["encoder"]["pos_embed"], sincos_positions(5, 20, 32), atol=1e-6
    )
    np.testing.assert_array_equal(
        opened.params["encoder"]["patch_embed"]["kernel"], part["patch_embed"]["kernel"]
    )


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_student_and_teacher_start_from_an_encoder(config, golden_dir):
    sizes = SelfSupervisedConfig(
        encoder=MatpacConfig(num_frames=FRAMES),
        predictor=PredictorConfig(width=24, depth=1, num_heads=4),
    )
    start = PretrainInitConfig(encoder=str(golden_dir / "tinymu_tiny.pt"))
    begun = open_init(dataclasses.replace(config, init=start, model=sizes))
    expected = open_checkpoint(golden_dir / "tinymu_tiny.pt").params["encoder"]["transformer"]
    for tree in (begun.params["encoder"], begun.params["teacher"]["encoder"]):
        for (path, leaf), (_, other) in zip(
            flatten(tree["transformer"]), flatten(expected), strict=True
        ):
            np.testing.assert_array_equal(leaf, other, err_msg=path)
    assert begun.config.encoder.num_frames == FRAMES


# --- bad input ---------------------------------------------------------------------------------


@pytest.fixture
def with_bad(recordings, tmp_path):
    """Four recordings that can be used, a short one, and four that are none."""
    folder = tmp_path / "with_bad"
    folder.mkdir()
    for number in (1, 3, 4, 5, 6):
        shutil.copy(recordings / f"{number}.wav", folder)
    (folder / "empty.flac").write_bytes(b"")
    (folder / "text.mp3").write_text("no sound")
    soundfile.write(folder / "zero.wav", np.zeros(0), 16_000)
    (folder / "gone.ogg").symlink_to("nowhere.ogg")
    return folder


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_too_many_unusable_recordings_end_a_run_before_it_begins(config, with_bad):
    run = with_part(config, "data", train=str(with_bad))
    message = refusal(train, run)
    first = with_bad / "empty.flac"
    assert message.startswith(
        f"4 of 9 recordings cannot be used, more than 0.1 %; the first: {first}: is empty"
    )
    assert "allow more with --max-bad-fraction" in message
    assert not Path(config.output).exists()
    bad = with_part(run, "data", max_bad_fraction=1.1)
    assert "data.max-bad-fraction is 1.1; give 0 to 1" in refusal(train, bad)


def refuse(message, *_):
    raise InputError(message)


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_a_run_in_a_new_folder_lists_unusable_recordings_once(config, with_bad, monkeypatch, capfd):
    opened = []
    monkeypatch.setattr(
        pretrain,
        "open_corpus",
        lambda folder, *rest: opened.append(folder) or open_corpus(folder, *rest),
    )
    monkeypatch.setattr(runs, "save_checkpoint", partial(refuse, "begun"))
    run = with_part(config, "data", train=str(with_bad), max_bad_fraction=0.45)
    assert refusal(train, run) == "begun"
    assert opened == [str(with_bad)]
    listing = Path(config.output) / "bad.jsonl"
    assert capfd.readouterr().err.count(f"4 cannot be used (listed in {listing})") == 1
    entries = [json.loads(line) for line in listing.read_text().splitlines()]
    names = ["empty.flac", "gone.ogg", "text.mp3", "zero.wav"]
    assert [Path(entry["clip"]).name for entry in entries] == names
    assert ["is empty" in entries[0]["reason"], "no such file" in entries[1]["reason"]] == [1, 1]


def test_unusable_recordings_are_counted_and_listed(with_bad, tmp_path, capfd):
    corpus = open_corpus(with_bad, FRAMES, 16)
    assert (len(corpus), corpus.num_short, len(corpus.bad), corpus.total) == (4, 1, 4, 9)
    pretrain.report_skipped(corpus, tmp_path / "bad.jsonl")
    assert capfd.readouterr().err == (
        f"note: {with_bad}: of 9 recordings, 4 cannot be used (listed in {tmp_path}/bad.jsonl), "
        "and 1 are shorter than a crop\n"
    )
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 4


def test_the_option_has_the_name_that_prepare_gives_it():
    from tinymu_jax.cli.train import read_run

    for name in ("--max-bad-fraction", "--data.max-bad-fraction"):
        assert read_run("pretrain", [name, "0.5"]).run_config.data.max_bad_fraction == 0.5


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_bad_pretraining_configs_are_errors(config, golden_dir, recordings, tmp_path):
    start = partial(with_part, config, "init")
    message = refusal(train, start(checkpoint=str(golden_dir / "tinymu_tiny.pt")))
    assert "is another model; name a checkpoint of pre-training" in message
    sized = dataclasses.replace(config, model=SelfSupervisedConfig(predictor=PredictorConfig(24)))
    assert "predictor: width must be a multiple of num_heads" in refusal(train, sized)
    sized = dataclasses.replace(
        config, model=SelfSupervisedConfig(predictor=PredictorConfig(depth=2))
    )
    assert "decides the sizes; leave model.encoder" in refusal(train, sized)
    message = refusal(train, with_part(config, "data", clips=5))
    assert "has 8 clips that can be used, and a step takes 10" in message
    message = refusal(train, with_part(config, "data", train=str(tmp_path)))
    assert "has no recordings" in message
    frozen = with_part(config, "optim", frozen_params="encoder/.*|predictor/pos_embed")
    message = refusal(train, frozen)
    assert "of which the teacher is a moving average; narrow it" in message
    both = start(encoder="x")
    assert "init.checkpoint is a whole model; leave init.encoder out" in refusal(train, both)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("published", ["mcl"], indirect=True)
def test_resuming_with_other_recordings_is_an_error(config, recordings, tmp_path):
    other = shutil.copytree(recordings, tmp_path / "other")
    train(dataclasses.replace(config, steps=2))
    moved = with_part(dataclasses.replace(config, steps=2), "data", train=str(other))
    assert train(moved, resume=True).steps == 2
    (other / "0.wav").unlink()
    assert "its run has another config: contents of data.train" in refusal(train, moved, True)


@pytest.mark.parametrize("published", ["single"], indirect=True)
def test_pretraining_on_a_prepared_data_set(config, recordings, tmp_path):
    from tinymu_jax.data.config import PrepareConfig
    from tinymu_jax.data.crops import MATPAC_FEATURES

    options = PrepareConfig(MATPAC_FEATURES, workers=1)
    page = prepare([], [recordings], tmp_path / "data", None, options)
    assert (page["records"], page["questions"], page["tokenizer"]) == (9, 0, None)
    short = dataclasses.replace(config, steps=3)
    train(short)
    stored = dataclasses.replace(short, output=str(tmp_path / "stored"))
    train(with_part(stored, "data", train=str(tmp_path / "data")))
    np.testing.assert_allclose(logged(stored), logged(short), rtol=1e-6)


@pytest.mark.parametrize("published", ["single"], indirect=True)
def test_sizes_equal_to_the_checkpoints_are_accepted(config, published):
    part = open_checkpoint(published).config
    model = dataclasses.replace(SelfSupervisedConfig(), predictor=part.predictor)
    begun = open_init(dataclasses.replace(config, model=model))
    assert begun.config.predictor == part.predictor


@pytest.mark.parametrize("published", ["single"], indirect=True)
def test_pretraining_exports_its_last_step_despite_validation(config, recordings):
    """Losses against a teacher that changes cannot be compared."""
    short = with_part(dataclasses.replace(config, steps=4), "data", validation=str(recordings))
    train(with_part(short, "loop", validate_every=1, save_every=1, max_to_keep=4))
    result = lines(Path(config.output), "validation_loss")
    assert list(result) == [1, 2, 3, 4]
    remaining = Checkpoints(Path(config.output) / "checkpoints", read_only=True)
    last = remaining.restore_params(4)["encoder"]["patch_embed"]["kernel"]
    made = read_checkpoint(Path(config.output) / "model").params["encoder"]["patch_embed"]["kernel"]
    np.testing.assert_array_equal(made, last)
    assert not np.array_equal(remaining.restore_params(1)["encoder"]["patch_embed"]["kernel"], last)


def test_half_precision_keeps_the_centre_in_float32(published):
    result = to_float16(open_checkpoint(published)).params
    assert result["centre"].dtype == np.float32
    assert result["predictor"]["pos_embed"].dtype == np.float32
    assert result["teacher"]["class_head"]["fc1"]["bias"].dtype == np.float16


def test_a_checkpoint_folder_round_trips_student_and_teacher(published, tmp_path):
    opened = open_checkpoint(published)
    save_checkpoint(tmp_path / "kept", opened)
    back = read_checkpoint(tmp_path / "kept")
    assert back.config == opened.config
    assert {path for path, _ in flatten(back.params)} == {p for p, _ in flatten(opened.params)}
