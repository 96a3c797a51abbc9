"""The hub's variables are named, and a hub that cannot be reached is told within seconds."""

import time
from types import SimpleNamespace

import huggingface_hub
import pytest
from helpers import refusal, run_cli
from hub_server import TOKEN, serving

import tinymu_jax
from tinymu_jax.checkpoints import hub_connection
from tinymu_jax.checkpoints.hub import download, fetch_tokenizer
from tinymu_jax.checkpoints.hub_connection import check_hub_variables
from tinymu_jax.data.remote import local_copy

REPO = "someone/TinyMU-tiny"


@pytest.fixture
def fake_hub(own_cache, tmp_path, monkeypatch):
    for name in (*hub_connection.CHECKS, *hub_connection.OFFLINE, *hub_connection.PROXIES):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path, monkeypatch) as fake:
        fake.files[REPO, "main"] = {"tokenizer.json": b"{}"}
        yield fake


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HF_ENDPOINT", "hub.example.com", "is no URL; write https://..."),
        ("HF_ENDPOINT", "https://", "is no URL; write https://..."),
        ("HF_TOKEN", "hf_é", "holds characters that no token has"),
        ("HF_TOKEN", "hf_a hf_b", "holds characters that no token has"),
        ("HF_HOME", "{file}", "it is a file; name a folder"),
        ("HF_HUB_CACHE", "{file}/hub", "is a file; name a folder"),
        ("XDG_CACHE_HOME", "{file}", "it is a file; name a folder"),
        ("HF_TOKEN_PATH", "{folder}", "cannot be read"),
        ("SSL_CERT_FILE", "{folder}/none.pem", "no such file or folder"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "abc", "is no whole number of seconds"),
        ("HF_HUB_ETAG_TIMEOUT", "-1", "is no whole number of seconds"),
        ("HF_HUB_ETAG_TIMEOUT", "9" * 20, "is no whole number of seconds up to 86400"),
        ("HF_ENDPOINT", "https://[::1", "is no URL; write https://..."),
        ("HF_ENDPOINT", "https://localhost:99999", "is no URL; write https://..."),
        ("HF_ENDPOINT", "https://my hub", "is no URL; write https://..."),
        ("SSL_CERT_FILE", "{folder}", "is no file"),
        ("SSL_CERT_DIR", "{file}", "is no folder"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    name, value, problem, fake_hub, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    value = value.format(file=tmp_path / "file", folder=tmp_path)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path))
    for user in (
        lambda: download(REPO, "tinymu.pt"),
        lambda: tinymu_jax.load(REPO),
        lambda: fetch_tokenizer(REPO),
        lambda: local_copy(f"hf://datasets/{REPO}"),
    ):
        said = refusal(user)
        assert said.startswith(name)
        assert problem in said
        assert "é" not in said
    assert fake_hub.requests == []


def test_certificates_may_be_in_several_folders(fake_hub, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}/none:{tmp_path}")
    check_hub_variables()


def test_a_stored_token_that_cannot_be_sent_is_named(fake_hub, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("hf_é")
    assert "holds characters that no token has" in refusal(check_hub_variables)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    check_hub_variables()


@pytest.mark.parametrize("name", hub_connection.OFFLINE)
def test_being_offline_on_purpose_is_named(name, fake_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv(name, "1")
    for user in (lambda: tinymu_jax.load(REPO), lambda: local_copy(f"hf://datasets/{REPO}")):
        message = refusal(user)
        assert f"out of reach ({name} is set); unset {name}" in message
        assert "network" not in message


def test_a_proxy_is_named_without_its_password(fake_hub, monkeypatch):
    fake_hub.close()
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    said = refusal(tinymu_jax.load, REPO)
    assert "with HTTPS_PROXY set)" in said
    assert "secret" not in said


def test_a_hub_that_never_responds_is_told_in_time(fake_hub, monkeypatch, capsys):
    """As where packets are dropped, or the name server is silent."""
    monkeypatch.setattr(
        huggingface_hub, "get_session", lambda: SimpleNamespace(head=lambda *_, **__: time.sleep(2))
    )
    monkeypatch.setattr(hub_connection, "SECONDS_TO_CONNECT", 0.1)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    began = time.monotonic()
    for user in (
        lambda: tinymu_jax.load(REPO),
        lambda: fetch_tokenizer(REPO),
        lambda: local_copy(f"hf://datasets/{REPO}"),
    ):
        assert "the hub is out of reach (no response within 0.1 s)" in refusal(user)
    code, _, error = run_cli(capsys, monkeypatch, "push", "nano", REPO)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{REPO}: cannot be uploaded, the hub is out of reach" in error
    assert time.monotonic() - began < 2
    assert fake_hub.requests == []


def test_what_was_downloaded_before_is_read_without_the_hub(fake_hub):
    path = download(REPO, "tokenizer.json")
    fake_hub.close()
    began = time.monotonic()
    assert download(REPO, "tokenizer.json") == path
    assert time.monotonic() - began < 2


def test_a_cache_that_cannot_be_written_is_told(fake_hub, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file"))
    said = refusal(download, REPO, "tokenizer.json")
    assert said.startswith(f"{REPO}: tokenizer.json cannot be stored in {tmp_path / 'file'}")
    assert said.endswith("set HF_HOME to another folder")
