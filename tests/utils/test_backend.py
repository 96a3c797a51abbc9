"""Environment variables with which jax cannot work: ignored, or named in one line."""

import json
import os
import sys
import types

import jax
import pytest
from helpers import ROOT, refusal, run_process

from tinymu_jax.cli import main as main_module
from tinymu_jax.utils import compilation_cache
from tinymu_jax.utils.backend import explain_jax_errors, start_backend
from tinymu_jax.utils.compilation_cache import cache_folder, enable_compilation_cache

RECORDING = ROOT / "tests" / "golden" / "audio" / "mono_44k_3p2s.wav"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("JAX_PLATFORMS", "cdua", "Unable to initialize backend 'cdua'"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "abc", 'Invalid value "abc"'),
    ],
)
def test_a_command_names_the_variable_in_one_line(name, value, reason, monkeypatch):
    monkeypatch.setenv(name, value)
    result = run_process(
        *("-m", "tinymu_jax", "ask", RECORDING, "--prompt", "Why?", "--checkpoint", "nano")
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"error: {name}={value}: jax cannot start with it ({reason}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"JAX_PLATFORMS": "cuda"}, AssertionError(), "JAX_PLATFORMS=cuda: "),
        (
            {"JAX_PLATFORM_NAME": "gpu"},
            RuntimeError("Unknown backend: 'gpu' (set JAX_PLATFORMS='')"),
            "JAX_PLATFORM_NAME=gpu: ",
        ),
        (
            {"JAX_NUM_CPU_DEVICES": "abc", "JAX_PLATFORMS": "cpu"},
            ValueError('Invalid value "abc" for JAX flag jax_num_cpu_devices'),
            "JAX_NUM_CPU_DEVICES=abc: ",
        ),
        ({}, RuntimeError("no libtpu"), "jax cannot start (no libtpu); set JAX_PLATFORMS=cpu"),
    ],
)
def test_a_backend_that_does_not_start_names_the_variable(settings, error, named, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_", "TPU_"))]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    assert refusal(start_backend).startswith(named)

    def compute():
        with explain_jax_errors():
            raise error

    assert refusal(compute).startswith(named)


def test_errors_that_are_not_jaxs_start_pass():
    with pytest.raises(KeyError), explain_jax_errors():
        raise KeyError("a bug")


def test_64_bits_are_refused_by_name():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        assert "unset JAX_ENABLE_X64" in refusal(start_backend)
    finally:
        jax.config.update("jax_enable_x64", before)


def test_commands_ignore_variables_of_types_and_windows(monkeypatch):
    ignored = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_RANK_PROMOTION": "raise", "MPLBACKEND": "nope"}
    for name, value in ignored.items():
        monkeypatch.setenv(name, value)
    seen = []

    def command():
        seen.append(ignored.keys() & os.environ.keys())
        return 0

    classes = {"ask": types.SimpleNamespace(run=command)}
    monkeypatch.setattr(main_module, "_command_classes", lambda name: classes)
    monkeypatch.setattr(
        main_module.tyro.extras, "subcommand_cli_from_dict", lambda known, **_: known["ask"]
    )
    monkeypatch.setattr(sys, "argv", ["tinymu", "ask"])
    with pytest.raises(SystemExit) as ended:
        main_module.main()
    assert (ended.value.code, seen) == (0, [set()])


def test_json_stays_json_where_the_terminal_has_only_ascii(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code = (
        "import json; from tinymu_jax.cli.main import _print_any_text as use; use();"
        "print(json.dumps({'é': '\U0001f600'}, ensure_ascii=False))"
    )
    result = run_process("-c", code)
    assert result.stdout == '{"\\u00e9": "\\ud83d\\ude00"}\n'
    assert json.loads(result.stdout) == {"é": "\U0001f600"}


@pytest.fixture
def jax_cache():
    """Sets jax's folder for compiled programs until the test ends."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path, jax_cache):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYMU_CACHE", str(tmp_path / "file"))
    jax_cache(None)
    said = refusal(enable_compilation_cache)
    assert said.startswith(f"{tmp_path / 'file' / 'compiled'}: cannot be created")
    assert said.endswith("set TINYMU_CACHE to a folder that can be written")


def test_a_jax_cache_that_cannot_be_written_is_noted(monkeypatch, tmp_path, jax_cache, capsys):
    (tmp_path / "file").touch()
    jax_cache(str(tmp_path / "file"))
    with monkeypatch.context() as patch:
        patch.setattr(compilation_cache.warnings, "filterwarnings", lambda *_: None)
        enable_compilation_cache()
    note = f"note: JAX_COMPILATION_CACHE_DIR={tmp_path / 'file'}: cannot be written"
    assert capsys.readouterr().err.startswith(note)
    jax_cache(str(tmp_path / "new"))
    enable_compilation_cache()
    assert capsys.readouterr().err == ""


def test_the_cache_may_be_named_by_its_place_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TINYMU_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "cache"
