"""`tinymu push`: a checkpoint goes to a server that plays the hub, and comes back by its name."""

import importlib
import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
from helpers import noise, run_cli
from hub_server import TOKEN, serving
from tokenizers import Tokenizer as Fast

import tinymu_jax
from tinymu_jax.checkpoints.checkpoint import (
    Checkpoint,
    init_params,
    read_checkpoint,
    save_checkpoint,
)
from tinymu_jax.checkpoints.model_card import MARK, Origin, write_card
from tinymu_jax.checkpoints.open import NANO_FOLDER
from tinymu_jax.models.config import MatpacConfig, SmolLM2Config

NAME, PROMPT = "someone/little", "What instrument is playing?"
WEIGHTS = ("config.json", "model.safetensors", "tokenizer.json")

pytestmark = pytest.mark.usefixtures("compiled_programs_stay_here", "own_cache")


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as fake:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield fake


@pytest.fixture
def folder(tmp_path):
    """The small model's checkpoint without its card."""
    made = tmp_path / "mine"
    made.mkdir()
    for name in WEIGHTS:
        shutil.copy(NANO_FOLDER / name, made / name)
    return made


@pytest.fixture
def push(capsys, monkeypatch):
    return lambda *arguments: run_cli(capsys, monkeypatch, "push", *arguments)


def refused(outcome, *named):
    """Asserts that a command ended with one line that names what is wrong."""
    code, out, err = outcome
    line = err.splitlines()[-1]
    assert (code, out.count("->")) == (2, 0), outcome
    assert line.startswith("error: ")
    for part in named:
        assert part in line
    return True


# --- there and back ----------------------------------------------------------------------------


def test_what_was_pushed_is_loaded_by_its_name_and_answers_the_same(fake_hub, folder, push):
    code, out, _ = push(folder, NAME)
    assert code == 0
    assert f"-> {fake_hub.address}/{NAME}\n" in out
    sent = fake_hub.files[NAME, "main"]
    assert sorted(sent) == sorted([*WEIGHTS, "README.md"])
    for name in WEIGHTS:
        assert sent[name] == (folder / name).read_bytes()
    mine, reference = tinymu_jax.load(folder), tinymu_jax.load(NAME)
    waveform = noise(32_000)
    for model in (mine, reference):
        model.prompt = model.encode_prompt(PROMPT)
    expected = mine.generate_tokens(waveform, mine.prompt, 12)
    assert expected
    assert reference.generate_tokens(waveform, reference.prompt, 12) == expected


def test_it_goes_on_serving_when_the_hub_is_out_of_reach(fake_hub, folder, push):
    assert push(folder, NAME)[0] == 0
    first = tinymu_jax.load(NAME)
    fake_hub.close()
    again = tinymu_jax.load(NAME)
    assert again.ask(noise(16_000), PROMPT) == first.ask(noise(16_000), PROMPT)


def test_what_is_pushed_again_is_loaded_anew(fake_hub, folder, push):
    assert push(folder, NAME)[0] == 0
    tinymu_jax.load(NAME)
    checkpoint = read_checkpoint(folder)
    changed = checkpoint._replace(source={"epoch": 5})
    save_checkpoint(folder, changed)
    assert push(folder, NAME, "--message", "five epochs")[0] == 0
    assert fake_hub.messages[-1] == "five epochs"
    assert tinymu_jax.checkpoints.open.open_checkpoint(NAME).source == {"epoch": 5}


def test_an_encoder_is_pushed_and_loaded_without_a_tokenizer(fake_hub, tmp_path, push):
    config = MatpacConfig(width=64, depth=1, num_heads=1, num_frames=64)
    made = Checkpoint(config, init_params(config, 0))
    folder = save_checkpoint(tmp_path / "encoder", made)
    assert push(folder, NAME)[0] == 0
    assert "pipeline_tag: feature-extraction" in fake_hub.files[NAME, "main"]["README.md"].decode()
    mine, reference = (tinymu_jax.load(name).embed(noise(16_000)) for name in (folder, NAME))
    np.testing.assert_array_equal(mine, reference)
    fake_hub.close()
    np.testing.assert_array_equal(tinymu_jax.load(NAME).embed(noise(16_000)), mine)


def test_a_decoder_with_its_tokenizer_can_be_pushed(fake_hub, folder, tmp_path, push):
    tokenizer = (folder / "tokenizer.json").read_text()
    size = Fast.from_str(tokenizer).get_vocab_size()
    config = SmolLM2Config(vocab_size=size, width=64, depth=1, num_heads=1, num_kv_heads=1)
    decoder = save_checkpoint(
        tmp_path / "lm", Checkpoint(config, init_params(config, 0), tokenizer)
    )
    assert push(decoder, NAME)[0] == 0
    assert fake_hub.files[NAME, "main"]["tokenizer.json"].decode() == tokenizer


def test_a_branch_is_made_and_loaded(fake_hub, folder, push):
    code, out, _ = push(folder, NAME, "--revision", "v2")
    assert code == 0
    assert f"-> {fake_hub.address}/{NAME}/tree/v2\n" in out
    assert fake_hub.files[NAME, "main"] == {}
    assert "model.safetensors" in fake_hub.files[NAME, "v2"]
    assert tinymu_jax.load(NAME, revision="v2").config.max_seconds == 4


def test_the_model_of_a_run_is_pushed_with_what_the_run_was(fake_hub, folder, tmp_path, push):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    config = {"output": "/home/somebody/run", "init": {"encoder": "someone/encoder", "seed": 3}}
    page = {"format": 1, "config": config, "data": {"train": "abc123", "validation": None}}
    (run / "run.json").write_text(json.dumps(page))
    assert push(run, NAME)[0] == 0
    card = fake_hub.files[NAME, "main"]["README.md"].decode()
    assert "encoder `someone/encoder`" in card
    assert "base_model:\n- someone/encoder\n" in card
    assert "fingerprint `abc123`" in card
    assert '"seed": 3' in card
    assert "/home/somebody" not in card


def test_the_hubs_newer_way_of_uploading_makes_one_commit_too(fake_hub, folder, push, monkeypatch):
    """What is not large goes into the commit itself, whichever store large files have."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(
        fake_hub,
        "upload_mode",
        lambda path: {"path": path, "uploadMode": "regular", "shouldIgnore": False},
    )
    assert push(folder, NAME)[0] == 0
    assert len(fake_hub.messages) == 1
    assert fake_hub.files[NAME, "main"]["config.json"] == (folder / "config.json").read_bytes()


# --- what is sent ------------------------------------------------------------------------------


def test_only_what_belongs_to_a_checkpoint_is_sent(fake_hub, folder, push):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "adam").write_bytes(b"0" * 100)
    (folder / ".netrc").write_text("secret")
    (folder / "clips.array_record").write_bytes(b"0")
    (folder / "LICENSE").write_text("as you like")
    code, out, _ = push(folder, NAME)
    assert code == 0
    assert "skipped: .netrc, checkpoints, clips.array_record\n" in out
    sent = sorted(fake_hub.files[NAME, "main"])
    assert sent == sorted([*WEIGHTS, "LICENSE", "README.md"])


def test_a_dry_run_lists_and_touches_nothing(fake_hub, folder, push, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, out, _ = push(folder, NAME, "--dry-run")
    assert code == 0
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert lines["model.safetensors"] == "5.0 MB"
    assert "README.md" in lines
    assert f"nothing is uploaded to {NAME}" in out
    assert fake_hub.calls == []
    assert sorted(p.name for p in folder.iterdir()) == list(WEIGHTS)


def test_a_card_of_ones_own_is_sent_as_it_is(fake_hub, folder, push):
    (folder / "README.md").write_text("# Mine\n")
    assert push(folder, NAME)[0] == 0
    assert fake_hub.files[NAME, "main"]["README.md"] == b"# Mine\n"
    assert refused(push(folder, NAME, "--license", "mit"), "was written by hand")


def test_a_generated_card_gets_the_name_and_the_licence(fake_hub, folder, push):
    before = write_card(folder, Origin("Of a test."), "someone/before").read_text()
    assert push(folder, NAME, "--license", "apache-2.0")[0] == 0
    assert (folder / "README.md").read_text() == before
    card = fake_hub.files[NAME, "main"]["README.md"].decode()
    assert MARK in card
    assert f'tinymu_jax.load("{NAME}")' in card
    assert "before" not in card
    assert "license: apache-2.0\n" in card
    assert "licence of the weights is unknown" not in card


def test_a_private_repository_is_private(fake_hub, folder, push):
    assert push(folder, NAME, "--private")[0] == 0
    assert fake_hub.private[NAME] is True


def test_a_public_repository_does_not_get_what_is_to_be_private(fake_hub, folder, push):
    assert push(folder, NAME)[0] == 0
    fake_hub.files[NAME, "main"].clear()
    assert refused(push(folder, NAME, "--private"), NAME, "exists already and is public")
    assert fake_hub.files[NAME, "main"] == {}


@pytest.mark.filterwarnings("error::UserWarning")
def test_progress_bars_are_left_as_they_were(fake_hub, folder, push, monkeypatch):
    from huggingface_hub import utils

    assert push(folder, NAME)[0] == 0
    assert not utils.are_progress_bars_disabled()
    with utils.disable_progress_bars():
        assert push(folder, NAME)[0] == 0
        assert utils.are_progress_bars_disabled()
    # As HF_HUB_DISABLE_PROGRESS_BARS=1 and =0 set it: whoever changes them is warned.
    for chosen in (True, False):
        for place in ("constants", "utils.tqdm"):
            # A class has the name of the module `tqdm` in its package.
            module = importlib.import_module(f"huggingface_hub.{place}")
            monkeypatch.setattr(module, "HF_HUB_DISABLE_PROGRESS_BARS", chosen)
        assert push(folder, NAME)[0] == 0


# --- what goes wrong ---------------------------------------------------------------------------


def test_nothing_is_sent_without_a_token(fake_hub, folder, push, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert refused(push(folder, NAME), "`hf auth login`")
    assert fake_hub.calls == []
    assert not (folder / "README.md").exists()


def test_a_token_that_the_hub_does_not_know_is_told(fake_hub, folder, push, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_yesterday")
    assert refused(push(folder, NAME), NAME, "does not know the token", "`hf auth login`")


def test_a_token_without_rights_is_told(fake_hub, folder, push):
    fake_hub.fault = lambda request, method: fake_hub.send(request, 403, b"", {}) or True
    assert refused(push(folder, NAME), NAME, "no write access")


def test_a_hub_that_fails_is_told(fake_hub, folder, push):
    def fail(request, method):
        if request.path.startswith("/store/"):
            fake_hub.send(request, 500, b"", {})
            return True
        return False

    fake_hub.fault = fail
    assert refused(push(folder, NAME), NAME, "try again")
    assert fake_hub.files[NAME, "main"] == {}
    assert not (folder / "README.md").exists()


def test_a_hub_out_of_reach_is_told(fake_hub, folder, push):
    fake_hub.close()
    assert refused(push(folder, NAME), NAME, "cannot be uploaded", "check the network")


@pytest.mark.parametrize("name", ["little", "some one/little", "a/b/c", "someone/--x", "/x", "x/"])
def test_a_bad_name_is_told_first(fake_hub, tmp_path, push, name):
    assert refused(push(tmp_path / "nothing", name), f"{name}: is not a repository name")


def test_a_folder_that_is_not_whole_is_refused(fake_hub, folder, tmp_path, push):
    assert refused(push(tmp_path / "none", NAME), "none: no such folder")
    assert refused(push(folder / "config.json", NAME), "is a file")
    (tmp_path / "empty").mkdir()
    assert refused(push(tmp_path / "empty", NAME), "empty: has no config.json")
    (folder / "tokenizer.json").write_text("{}")
    assert refused(push(folder, NAME), "tokenizer.json")
    (folder / "tokenizer.json").unlink()
    assert refused(push(folder, NAME), "has no tokenizer.json")
    config = json.loads((folder / "config.json").read_text())
    config["config"]["decoder"]["mlp_width"] += 8
    (folder / "config.json").write_text(json.dumps(config))
    assert refused(push(folder, NAME), "model.safetensors: wrong shapes")
    (folder / "model.safetensors").unlink()
    assert refused(push(folder, NAME), "model.safetensors: no such file")
    assert fake_hub.calls == []


def test_a_run_that_goes_on_is_refused(fake_hub, tmp_path, push):
    (tmp_path / "run.json").write_text("{}")
    assert refused(push(tmp_path, NAME), "has not finished", "tinymu export")


def test_the_server_refuses_a_damaged_upload(fake_hub):
    """What the tests above stand on: the server looks at what it gets."""
    url = f"{fake_hub.address}/store/{'0' * 64}"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(url, b"damaged", method="PUT"))
