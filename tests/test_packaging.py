"""The wheel: one package, with the files that it reads at run time."""

import subprocess
import sys
import zipfile
from pathlib import PurePosixPath

import pytest
from helpers import ROOT

READ_AT_RUN_TIME = [
    *(f"checkpoints/nano/{name}" for name in ("config.json", "model.safetensors", "README.md")),
    "checkpoints/nano/tokenizer.json",
    "evaluation/report/report.css",
    "qa_builder/questions/templates.csv",
    "qa_builder/tags/tags.csv",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that is built from the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    # The copy keeps setuptools' build folder out of the clone.
    source = folder / "source"
    names = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT)
    for name in map(PurePosixPath, names.decode().splitlines()):
        if name.parts[0] in ("tinymu_jax", "configs") or len(name.parts) == 1:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--wheel-dir", folder, source], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(*folder.glob("*.whl")) as archive:
        return set(archive.namelist())


def test_it_installs_one_package(wheel):
    top = {name.partition("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tinymu_jax"}


def test_it_has_every_module_and_config(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "tinymu_jax").rglob("*.py")}
    configs = {f"tinymu_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert modules | configs == {name for name in wheel if name.endswith(".py")}


@pytest.mark.parametrize("name", READ_AT_RUN_TIME)
def test_it_has_the_files_that_are_read_at_run_time(wheel, name):
    assert f"tinymu_jax/{name}" in wheel
