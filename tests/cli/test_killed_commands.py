"""Commands that are killed twenty times, and give the same files as without; training is apart."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys

import pytest
import soundfile
from helpers import ROOT, noise, write_lists
from tokenizer_fixture import tokenizer_text

from tinymu_jax.checkpoints.checkpoint import Checkpoint, init_params, save_checkpoint
from tinymu_jax.models.config import HeadConfig, MatpacConfig

pytestmark = pytest.mark.slow

KILLS = 20
# Counts what is written to a folder, and kills all processes of the command some time after the
# n-th time, or says at the end how often it was.
START = """
import atexit, os, signal, sys, threading
folder, left, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sys.argv[:4] = ["tinymu"]
seen = 0
def count(event, args):
    global seen
    if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(args[0]).startswith(folder):
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        seen += 1
        if seen == left:
            if delay == 0:
                os.killpg(0, signal.SIGKILL)
            threading.Timer(delay, os.killpg, (0, signal.SIGKILL)).start()
sys.addaudithook(count)
atexit.register(lambda: print("written", seen, file=sys.stderr))
from tinymu_jax.evaluation import responses
responses.RECORDINGS_PER_WRITE = 1
from tinymu_jax.cli.main import main
main()
"""


def run(arguments, folder, cache, kill_at=0, delay=0.0):
    """Run a command, kill it at its n-th write to a folder; return exit code and stderr."""
    command = [sys.executable, "-c", START, folder, kill_at, delay, *arguments]
    process = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"PYTHONPATH": str(ROOT), "TINYMU_CACHE": str(cache), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    return process.returncode, process.stderr


def contents(folder):
    """Return every file; of logs the sorted lines, and of pages all but the recordings.

    A log goes on where it was, and ogg files get a serial number by the clock.
    """
    return {
        path.name: sorted(path.read_bytes().splitlines())
        if path.suffix == ".jsonl"
        else re.sub(rb"data:audio/ogg;base64,[^\"]*", b"", path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".partial"
    }


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Ten recordings, a list of questions about them, a table, and an encoder with a head."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "clips").mkdir()
    write_lists(folder / "clips", [0.5] * 10)
    asked = folder / "clips" / "list.json"
    asked.write_text(asked.read_text().replace('"!', '"A tune'))
    (folder / "tokenizer.json").write_text(tokenizer_text())
    rows = ["file,genre,instrument,caption"]
    rows += [f"{n}.wav,{g},{i},A {g} tune number {n} with {i}." for n, (g, i) in enumerate(PAIRS)]
    (folder / "mine.csv").write_text("\n".join(rows) + "\n")
    config = MatpacConfig(width=32, depth=1, num_heads=2, num_frames=48)
    config = MatpacConfig.from_dict(
        config.to_dict() | {"head": HeadConfig(num_classes=3).to_dict()}
    )
    model = Checkpoint(config, init_params(config, 0), source={"labels": ["a", "b", "c"]})
    save_checkpoint(folder / "tagger", model)
    soundfile.write(folder / "clips" / "long.wav", noise(40_000), 16_000)
    return folder


PAIRS = [(g, i) for g in ("jazz", "blues", "rock", "folk") for i in ("piano", "flute", "cello")]
COMMANDS = {
    "prepare": [
        *("data", "prepare", "--lists", "{sounds}/clips/list.json", "--audio", "{sounds}/clips"),
        *("--tokenizer", "{sounds}/tokenizer.json", "--clips-per-shard", 1, "--workers", 1),
        *("--output", "{output}"),
    ],
    "build": [
        *("data", "build", "--user-table", "{sounds}/mine.csv", "--tokenizer", "none"),
        *("--output", "{output}"),
    ],
    "evaluate": [
        *("evaluate", "questions", "{sounds}/clips/list.json", "--audio", "{sounds}/clips"),
        *("--checkpoint", "nano", "--max-new-tokens", 4, "--output", "{output}"),
    ],
    "tag": [
        *("tag", "{sounds}/clips", "--checkpoint", "{sounds}/tagger", "--window", 0.5),
        *("--output", "{output}/tags.csv"),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_killed_gives_the_same_files(command, sounds, tmp_path, capsys):
    output, cache = tmp_path / "output", tmp_path / "cache"
    arguments = [str(one).format(sounds=sounds, output=output) for one in COMMANDS[command]]
    code, said = run(arguments, output, cache)
    assert code == 0, said
    writes = int(said.split()[-1])
    expected = contents(output)
    shutil.rmtree(output)
    draw, kills = random.Random(command), 0
    while kills < KILLS:
        kill_at, delay = draw.randint(1, max(3, writes // 8)), draw.choice((0.0, draw.random() / 5))
        code, said = run(arguments, output, cache, kill_at, delay)
        assert code in (0, -signal.SIGKILL), said
        kills += code != 0
        if code == 0:  # it was done before: from the beginning
            assert contents(output) == expected
            shutil.rmtree(output)
    code, said = run(arguments, output, cache)
    assert code == 0, said
    assert contents(output) == expected
    with capsys.disabled():
        print(f"\n{command}: killed {kills} times at one of {writes} writes, the same files")
