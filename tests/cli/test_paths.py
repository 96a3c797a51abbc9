"""Paths in arguments: names that look like options, and the home folder."""

from pathlib import Path

import pytest
import soundfile
from helpers import noise, refusal, run_cli

from tinymu_jax.cli import qa_builder
from tinymu_jax.cli.ask import Ask, Embed
from tinymu_jax.cli.options import Model
from tinymu_jax.cli.paths import check_dashes, expand_home
from tinymu_jax.cli.train import read_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with recordings, one of whose names begins with "-", and a home in it."""
    for name in ("-a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise(8_000), 16_000)
    (tmp_path / "-list.json").write_text("[]")
    (tmp_path / "-folder").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("name", ["-a.wav", "-list.json", "-folder", "--not-here.OPUS"])
def test_a_name_that_begins_with_a_dash_is_explained(name, folder):
    message = refusal(check_dashes, ["ask", name, "b.wav", "--prompt", "What?"])
    suffix = Path(name).suffix
    assert message == (
        f'{name}: begins with "-" and is read as an option; write ./*{suffix} for *{suffix} '
        f"(./{name} for one file), or put -- before the names"
    )
    check_dashes(["ask", "--prompt", "What?", "--", name])
    check_dashes(["ask", f"./{name}", "--data.train=x.wav", "--json", "-h", "-"])


@pytest.mark.parametrize("text", ["-what is it?", "--loud or soft?", "-x"])
def test_a_text_that_begins_with_a_dash_is_explained(text):
    message = refusal(check_dashes, ["ask", "b.wav", "--prompt", text])
    assert message.startswith(f'{text}: begins with "-" and is read as an option; write --prompt=')
    check_dashes(["ask", "b.wav", f"--prompt={text}", "--prompt", "-6 dB?", "--top-p", "-0.5"])


def test_names_after_two_dashes_are_recordings(folder, capsys, monkeypatch):
    arguments = ["--checkpoint", "nano", "--output", "out", "b.wav"]
    code, _, err = run_cli(capsys, monkeypatch, "embed", *arguments, "-a.wav")
    assert (code, err.count("\n")) == (2, 1)
    assert "./*.wav" in err
    code, _, err = run_cli(capsys, monkeypatch, "embed", *arguments, "--", "-a.wav")
    assert code == 0, err
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["-a.npy", "b.npy"]


def test_the_home_folder_stands_for_a_tilde_in_every_path(folder):
    home = str(folder / "home")
    model = Model("~/nano", tokenizer="~/tokenizer.json")
    ask = expand_home(Ask(("~/a.wav", "b~.wav", "./~/c.wav"), prompt="~/ is what?", model=model))
    assert ask.recordings == (f"{home}/a.wav", "b~.wav", "./~/c.wav")
    assert ask.model == Model(f"{home}/nano", tokenizer=f"{home}/tokenizer.json")
    assert ask.prompt == "~/ is what?"
    assert expand_home(Embed(output=Path("~/x"))).output == Path(home, "x")
    build = qa_builder.BuildCommand(Path("~"), test_sets=qa_builder.TestSetFiles(gtzan=Path("~")))
    assert expand_home(build).test_sets.gtzan == expand_home(build).musiccaps == Path(home)
    unchanged = Ask(("a.wav",))
    assert expand_home(unchanged) is unchanged


def test_the_home_folder_stands_for_a_tilde_in_config_files(folder):
    (folder / "home" / "my.py").write_text(
        "from tinymu_jax.training.config import CropsConfig, PretrainConfig\n"
        "config = PretrainConfig(output='~/run', data=CropsConfig('~/music', '~/valid'))\n"
    )
    command = expand_home(read_run("pretrain", ["--config=~/my.py", "--checkpoints=~/steps"]))
    config, home = command.run_config, folder / "home"
    paths = (config.output, config.data.train, config.data.validation, config.checkpoints)
    assert paths == tuple(str(home / name) for name in ("run", "music", "valid", "steps"))


def test_an_output_is_written_to_the_home_folder(folder, capsys, monkeypatch):
    arguments = ["embed", "b.wav", "--checkpoint", "nano", "--output=~/x"]
    code, _, err = run_cli(capsys, monkeypatch, *arguments)
    assert code == 0, err
    assert (folder / "home" / "x" / "b.npy").is_file()
    assert not (folder / "~").exists()
