"""What several test files need: small models and lists as published, refusals, processes."""

import contextlib
import dataclasses
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tinymu_jax.errors import InputError
from tinymu_jax.utils.tree import flatten

ROOT = Path(__file__).parents[1]

SMALL_ENCODER = {"embed_dim": 64, "depth": 2, "num_heads": 1, "mlp_ratio": 4, "n_t": 64}
"""One head of 64: as in published files, the number of heads follows from the width."""
SMALL_DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "head_dim": 8,
}


def published_config(kind="linearprojector", **decoder):
    """Returns what a published TinyMU says of itself, for a small projector of a kind."""
    projector = {"proj_name": kind, "d_in": 320, "d_h": 24, "d_out": 32}
    return {
        "data": {"max_length": 10},
        "model": {
            "encoder": {"audioenc_name": "MATPAC", "freeze": True, "ds_rate": 1},
            "projector": projector,
            "decoder": {"textdec_name": "small-decoder", "max_text_token_len": 129} | decoder,
            "model_type": "m2t",
        },
    }


def published_encoder(module):
    """Returns the weights of an oracle's encoder as published, i.e. without the front end."""
    state = module.state_dict().items()
    return {key: value for key, value in state if not key.startswith("log_mel.")}


def noise(samples):
    """Returns a quiet waveform, the same each time."""
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(samples)).astype(np.float32)


WORDS = ["the", "trumpet", "plays", "a", "slow", "tune", "in", "minor", "with", "drums", "and", "!"]


def write_m4a(path, samples, rate):
    """Writes samples of one channel as AAC."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def write_lists(folder, seconds):
    """Writes recordings of some lengths and a list with one question more for each than the last.

    Some answers have a "!". Returns the list's path.
    """
    rng, records = np.random.default_rng(0), []
    for number, length in enumerate(seconds):
        soundfile.write(folder / f"{number}.wav", noise(int(length * 16_000)), 16_000)
        records += [
            {
                "file_name": f"{number}.wav",
                "input_text": f"Question {question}: " + " ".join(rng.choice(WORDS, 3)),
                "target_text": " ".join(rng.choice(WORDS, rng.integers(1, 6))),
                "dataset": "Made",
                "task": "QA",
            }
            for question in range(number + 1)
        ]
    path = folder / "list.json"
    path.write_text(json.dumps(records))
    return path


def lines(folder, field="loss"):
    """Returns a number of every logged step."""
    text = (folder / "metrics.jsonl").read_text()
    actual = map(json.loads, text.splitlines())
    return {line["step"]: line[field] for line in actual if field in line}


def refusal(function, *arguments, **options):
    """Returns the message of the InputError that a call ends with, which is one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_part(config, part, **fields):
    """Returns a run's config with fields of one of its parts set."""
    local = dataclasses.replace(getattr(config, part), **fields)
    return dataclasses.replace(config, **{part: local})


def logged(config):
    """Returns the loss of each logged step of a config's run."""
    return list(lines(Path(config.output)).values())


def run_cli(capsys, monkeypatch, *arguments):
    """Runs a command of `tinymu` in this process; returns exit code, stdout and stderr."""
    from tinymu_jax.cli.main import main

    monkeypatch.setattr(sys, "argv", ["tinymu", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


def run_process(*arguments):
    """Runs python with this repository's packages in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def run_python(code, *arguments):
    """Runs code in a process of its own and returns what it prints."""
    result = run_process("-c", code, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def free_port():
    """Returns a port that nothing listens at, below those that the system hands out by itself."""
    draws = random.SystemRandom()
    while True:
        port = draws.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("localhost", port))
            return port


def music_tree(ontology):
    """Returns the parents of every class of AudioSet below Music, by its name in small letters."""
    from tinymu_jax.data.annotations.audioset import MUSIC, read_ontology

    names, children, _ = read_ontology(ontology)
    below = [name for name in names if name in children and name != MUSIC]
    return {
        names[name]: tuple(names[other] for other in below if name in children[other])
        for name in below
    }


def check_axes(params, table):
    """Asserts that every weight has exactly one row in a table of axes, with its rank."""
    ranks = {path: leaf.ndim for path, leaf in flatten(params)}
    assert {path: len(axes) for path, axes in table.items()} == ranks
