"""Damaged recordings are refused; with --keep-damaged, a note says that they are used in part."""

from types import SimpleNamespace

import pytest
import soundfile
from helpers import noise, refusal, run_cli

from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import synthesize
from tinymu_jax.inference.tagging import tag_windows


@pytest.mark.parametrize(
    "command",
    [
        "convert verify nano nano {damaged} --max-new-tokens 1",
        "evaluate synthetic music --output scores",
    ],
)
def test_the_part_of_a_damaged_recording_that_is_used_is_noted_once(
    command, tmp_path, capsys, monkeypatch, own_cache, compiled_programs_stay_here
):
    monkeypatch.chdir(tmp_path)
    synthesize(tmp_path / "music", SynthesisConfig(1, open=1, choice=0, binary=0, workers=1))
    (damaged,) = (tmp_path / "music" / "clips").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:64_044])  # 2 s
    arguments = command.format(damaged=damaged).split()
    code, _, error = run_cli(capsys, monkeypatch, *arguments)
    assert code == 2
    assert "or use what can be read with --keep-damaged" in error
    code, _, error = run_cli(capsys, monkeypatch, *arguments, "--keep-damaged")
    assert code == 0, error
    end = ": damaged after 2.0 s of 4.0 s; what can be read is used\n"
    assert error.count("note: ") == error.count(f"{damaged.name}{end}") == 1


def test_tags_of_a_part_are_noted_once(tmp_path, capsys):
    path = tmp_path / "cut.wav"
    soundfile.write(path, noise(32_000), 16_000)
    path.write_bytes(path.read_bytes()[:32_044])
    model = SimpleNamespace(
        max_seconds=None, keep_damaged=True, tag_all=lambda clips, top: [[] for _ in clips]
    )
    for _ in range(2):
        assert [window.end for window in tag_windows(model, path, 0.5, 0.5, 1)] == [0.5, 1.0]
    end = "damaged after 1.0 s of 2.0 s"
    assert capsys.readouterr().err == f"note: {path}: {end}; what can be read is used\n"
    model.keep_damaged = False
    assert end in refusal(tag_windows, model, path, 0.5, 0.5, 1)
