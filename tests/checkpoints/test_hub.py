"""A hub name is downloaded and converted once; a server on this machine plays the hub."""

import io

import numpy as np
import pytest
import torch
import yaml
from helpers import SMALL_DECODER, SMALL_ENCODER, noise, published_config, refusal
from hub_server import serving
from oracles import torch_modules as oracle
from tokenizer_fixture import tokenizer_text

import tinymu_jax
import tinymu_jax.checkpoints.pytorch.tinymu
from tinymu_jax.checkpoints import hub
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.models.config import SMOLLM2_PRESETS, SmolLM2Config
from tinymu_jax.utils.compilation_cache import cache_folder

REPO, DECODER = "someone/TinyMU-tiny", "HuggingFaceTB/SmolLM2-tiny"
PROMPT = "What is the main instrument?"
# All sizes follow from the weights and from the decoder's name, as in the published repository.
SIZES = {
    "encoder": SMALL_ENCODER | {"depth": 1},
    "lm": SMALL_DECODER | {"num_hidden_layers": 1, "vocab_size": 512},
    "projector": {"d_in": 320, "d_h": 24, "d_out": 32},
}
PRESET = SmolLM2Config(512, 32, 1, 4, 2, 8, 48)

pytestmark = pytest.mark.usefixtures("compiled_programs_stay_here")


def close_connection(request):
    request.close_connection = True
    return True


@pytest.fixture(scope="module")
def original(port):
    return port.randomise(oracle.build_tinymu(SIZES))


@pytest.fixture(scope="module")
def description():
    return published_config(textdec_name=DECODER, freeze=False)


@pytest.fixture(scope="module")
def published(original, description):
    """The content of the files of the repository."""

    def weights(epoch):
        file = io.BytesIO()
        content = {"model": original.state_dict(), "optimizer": {}, "epoch": epoch}
        torch.save(content, file)
        return file.getvalue()

    beside = yaml.safe_dump(description).encode()
    return {
        "main": {"tinymu.pt": weights(3), "tinymu.yaml": beside},
        "v2": {"tinymu.pt": weights(4), "tinymu.yaml": beside},
    }


@pytest.fixture
def cache(own_cache):
    return own_cache / "hub"


@pytest.fixture
def fake_hub(published, cache, tmp_path, monkeypatch):
    """The hub that huggingface_hub asks while the test runs."""
    monkeypatch.setitem(SMOLLM2_PRESETS, "SmolLM2-tiny", PRESET)
    with serving(tmp_path, monkeypatch) as fake:
        for revision, files in published.items():
            fake.files[REPO, revision] = dict(files)
        fake.files[DECODER, "main"] = {"tokenizer.json": tokenizer_text().encode()}
        yield fake


@pytest.fixture(scope="module")
def waveform():
    return noise(16_000)


def written(folder):
    """Returns all files below a folder, if there is one."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- what is downloaded ------------------------------------------------------------------------


def test_a_name_is_downloaded_converted_and_answers(fake_hub, original, waveform):
    model = tinymu_jax.load(REPO)
    ids = model.tokenizer.encode(PROMPT)
    tokens = original.generate_cached(torch.from_numpy(waveform), ids, 6)
    assert model.generate_tokens(waveform, ids, max_new_tokens=6) == tokens
    assert model.ask(waveform, PROMPT, max_new_tokens=6) == model.tokenizer.decode(tokens)
    assert sorted(fake_hub.downloads()) == [
        (DECODER, "main", "tokenizer.json"),
        (REPO, "main", "tinymu.pt"),
        (REPO, "main", "tinymu.yaml"),
    ]


def test_the_converted_checkpoint_is_kept_with_its_tokenizer(fake_hub, cache, description):
    tinymu_jax.load(REPO)
    folder = cache / "someone--TinyMU-tiny@main"
    assert written(cache) == [
        f"{folder.name}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")
    ]
    assert (folder / "tokenizer.json").read_text() == tokenizer_text()
    checkpoint = tinymu_jax.checkpoints.checkpoint.read_checkpoint(folder)
    assert checkpoint.source == {"config": description, "epoch": 3}


def test_the_second_load_asks_nobody_and_converts_nothing(
    fake_hub, monkeypatch, waveform, original
):
    tinymu_jax.load(REPO)
    fake_hub.requests.clear()
    monkeypatch.setattr(tinymu_jax.checkpoints.pytorch.tinymu, "from_published", None)
    model = tinymu_jax.load(REPO)
    ids = model.tokenizer.encode(PROMPT)
    tokens = original.generate_cached(torch.from_numpy(waveform), ids, 6)
    assert model.generate_tokens(waveform, ids, max_new_tokens=6) == tokens
    assert fake_hub.requests == []


def test_a_revision_is_passed_on_and_kept_apart(fake_hub, cache):
    tinymu_jax.load(REPO)
    tinymu_jax.load(REPO, revision="v2")
    asked = {(repo, revision) for repo, revision, _ in fake_hub.downloads()}
    assert asked == {(REPO, "main"), (REPO, "v2"), (DECODER, "main")}
    epochs = {
        name: tinymu_jax.checkpoints.checkpoint.read_config(cache / f"someone--TinyMU-tiny@{name}")[
            1
        ]["epoch"]
        for name in ("main", "v2")
    }
    assert epochs == {"main": 3, "v2": 4}


def test_what_was_downloaded_before_serves_when_the_hub_is_out_of_reach(fake_hub):
    for repo, name in ((REPO, "tinymu.pt"), (REPO, "tinymu.yaml"), (DECODER, "tokenizer.json")):
        hub.download(repo, name)
    fake_hub.close()
    assert tinymu_jax.load(REPO).tokenizer.encode("!!") == [17, 17]


def test_a_conversion_that_broke_off_is_made_again(fake_hub, cache):
    folder = cache / "someone--TinyMU-tiny@main"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half of it")
    assert tinymu_jax.load(REPO).tokenizer.encode("!") == [17]


def test_a_conversion_that_was_killed_while_writing_is_made_again(fake_hub, cache):
    folder = cache / "someone--TinyMU-tiny@main"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.partial").write_bytes(b"half of it")
    assert tinymu_jax.load(REPO).tokenizer.encode("!") == [17]


def test_a_tokenizer_can_be_named_by_its_repository(fake_hub, published, tmp_path):
    (tmp_path / "tinymu.pt").write_bytes(published["main"]["tinymu.pt"])
    (tmp_path / "tinymu.yaml").write_bytes(published["main"]["tinymu.yaml"])
    model = tinymu_jax.load(tmp_path / "tinymu.pt", tokenizer=DECODER)
    assert fake_hub.requests == []
    assert model.tokenizer.encode("!!") == [17, 17]
    assert fake_hub.downloads() == [(DECODER, "main", "tokenizer.json")]


def test_a_file_without_a_tokenizer_takes_that_of_its_decoder(fake_hub, published, tmp_path):
    for name, content in published["main"].items():
        (tmp_path / name).write_bytes(content)
    model = tinymu_jax.load(tmp_path / "tinymu.pt")
    assert fake_hub.requests == []
    assert model.tokenizer.encode("!!") == [17, 17]
    assert fake_hub.downloads() == [(DECODER, "main", "tokenizer.json")]


def test_a_file_whose_tokenizer_cannot_be_had_says_what_to_do(fake_hub, published, tmp_path):
    for name, content in published["main"].items():
        (tmp_path / name).write_bytes(content)
    del fake_hub.files[DECODER, "main"]
    model = tinymu_jax.load(tmp_path / "tinymu.pt")
    message = refusal(model.encode_prompt, PROMPT)
    assert message.startswith(f"{tmp_path / 'tinymu.pt'}: has no tokenizer, and {DECODER}: ")
    assert "put the decoder's tokenizer.json beside it" in message


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_repository_that_does_not_exist_is_named(fake_hub, cache):
    message = refusal(tinymu_jax.load, "someone/Nothing")
    assert message.startswith("someone/Nothing: the hub has no such repository")
    assert "check the name" in message
    assert written(cache) == []


@pytest.mark.parametrize(("status", "code"), [(401, "RepoNotFound"), (403, "GatedRepo")])
def test_a_private_repository_asks_to_log_in(fake_hub, cache, status, code):
    def forbid(request, method):
        fake_hub.send(request, status, b"", {"X-Error-Code": code})
        return True

    fake_hub.fault = forbid
    message = refusal(tinymu_jax.load, REPO)
    assert message.startswith(f"{REPO}: ")
    assert "log in with `hf auth login`" in message
    assert written(cache) == []


@pytest.mark.parametrize("name", ["tinymu.yaml", "tinymu.pt"])
def test_a_file_that_the_repository_lacks_is_named(fake_hub, cache, name):
    del fake_hub.files[REPO, "main"][name]
    assert refusal(tinymu_jax.load, REPO) == f"{REPO}: has no {name}; name a TinyMU repository"
    assert written(cache) == []


def test_a_revision_that_does_not_exist_is_named(fake_hub, cache):
    message = refusal(tinymu_jax.load, REPO, revision="v9")
    assert message == f"{REPO}: has no revision 'v9'; check its name"
    assert written(cache) == []


def test_a_tokenizer_that_cannot_be_had_is_missed_when_text_comes_in(fake_hub, cache):
    """Who gives token ids, or a tokenizer of their own, needs none."""
    files = fake_hub.files[DECODER, "main"]
    remaining = dict(files)
    files.clear()
    model = tinymu_jax.load(REPO)
    message = refusal(lambda: model.tokenizer)
    assert message.startswith(f"{REPO}: has no tokenizer, and {DECODER}: has no tokenizer.json; ")
    files.update(remaining)
    assert tinymu_jax.load(REPO).tokenizer.encode("!!") == [17, 17]


def test_a_checkpoint_that_cannot_be_kept_leaves_nothing_behind(fake_hub, cache, monkeypatch):
    def full(*_, **__):
        from tinymu_jax.errors import InputError

        raise InputError("no space left")

    monkeypatch.setattr("tinymu_jax.checkpoints.hub.save_checkpoint", full)
    assert refusal(tinymu_jax.load, REPO) == "no space left"
    assert written(cache) == []


def test_a_hub_that_is_down_is_told(fake_hub, cache):
    fake_hub.close()
    message = refusal(tinymu_jax.load, REPO)
    assert message.startswith(f"{REPO}: tinymu.yaml cannot be downloaded, the hub is out of reach")
    assert "check the network, give the path of a checkpoint (tinymu.pt) that you have" in message
    assert message.endswith("or use nano, the small model that comes with the package")
    assert written(cache) == []


def test_being_offline_on_purpose_is_told(fake_hub, cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be downloaded, the hub is out of reach" in refusal(tinymu_jax.load, REPO)
    assert fake_hub.requests == []
    assert written(cache) == []


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_hub_that_refuses_is_told(fake_hub, cache, status):
    def refuse(request, method):
        fake_hub.send(request, status, b"", {})
        return True

    fake_hub.fault = refuse
    assert refusal(tinymu_jax.load, REPO).startswith(f"{REPO}: tinymu.yaml cannot be downloaded")
    assert written(cache) == []


def test_a_hub_that_hangs_up_is_told(fake_hub, cache):
    fake_hub.fault = lambda request, method: close_connection(request)
    assert refusal(tinymu_jax.load, REPO).startswith(f"{REPO}: tinymu.yaml cannot be downloaded")
    assert written(cache) == []


def test_a_download_that_breaks_off_is_told_and_nothing_is_kept(fake_hub, cache, published):
    content = published["main"]["tinymu.pt"]
    sent = []

    def break_off(request, method):
        if method == "HEAD" or not request.path.endswith("tinymu.pt"):
            return False
        if not sent:
            sent.append(True)
            request.send_response(200)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content[: len(content) // 2])
        return close_connection(request)

    fake_hub.fault = break_off
    assert refusal(tinymu_jax.load, REPO).startswith(f"{REPO}: tinymu.pt cannot be downloaded")
    assert written(cache) == []


def test_a_broken_proxy_is_told(fake_hub, cache, monkeypatch):
    from huggingface_hub.utils import close_session

    # The server does not know CONNECT.
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "https://hub.invalid/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setenv("HTTPS_PROXY", fake_hub.address)
    close_session()
    assert refusal(tinymu_jax.load, REPO).startswith(f"{REPO}: tinymu.yaml cannot be downloaded")
    assert written(cache) == []


def test_a_file_that_is_no_checkpoint_is_named_and_nothing_is_kept(fake_hub, cache):
    fake_hub.files[REPO, "main"]["tinymu.pt"] = b"<html>sign in to the network</html>"
    assert "tinymu.pt: " in refusal(tinymu_jax.load, REPO)
    assert written(cache) == []


@pytest.mark.parametrize("name", ["some one/Tiny MU", "owner/--name", "owner/name.git"])
def test_a_name_that_the_hub_does_not_allow_is_told(fake_hub, cache, name):
    assert refusal(tinymu_jax.load, name).startswith(f"{name}: tinymu.yaml cannot be downloaded (")
    assert written(cache) == []


# --- names and folders -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AndreasXi/TinyMU", "a/b", "HuggingFaceTB/SmolLM2-1.7B"])
def test_names_of_the_hub_are_known(name):
    assert hub.is_hub_name(name)


def test_a_decoder_on_the_hub_is_read_with_its_tokenizer(fake_hub, original, tmp_path):
    llama = original.text_decoder.lm
    llama.save_pretrained(tmp_path / "theirs")
    for name in ("config.json", "model.safetensors"):
        fake_hub.files[DECODER, "main"][name] = (tmp_path / "theirs" / name).read_bytes()
    opened = open_checkpoint(DECODER)
    assert isinstance(opened.config, SmolLM2Config)
    assert opened.tokenizer == tokenizer_text()
    table = llama.model.embed_tokens.weight.detach().numpy()
    np.testing.assert_array_equal(opened.params["embed_tokens"]["embedding"], table)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tinymu",
        "/",
        "owner/",
        "/name",
        "./folder",
        "../folder",
        "~/folder",
        "/abs/path",
        "a/b/c",
        "folder/tinymu.pt",
        "folder/decoder.safetensors",
        "folder/tokenizer.json",
    ],
)
def test_paths_are_not_taken_for_names(name):
    assert not hub.is_hub_name(name)


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TINYMU_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "tinymu_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tinymu_jax"
    monkeypatch.setenv("TINYMU_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
