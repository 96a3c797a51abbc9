"""The `tinymu` command line."""

import io
import sys

import tyro

from tinymu_jax.cli.ask import Ask, Embed, Score
from tinymu_jax.cli.convert import Convert
from tinymu_jax.cli.data import Data
from tinymu_jax.cli.evaluate import Evaluate
from tinymu_jax.cli.push import Push
from tinymu_jax.cli.quickstart import Ablate, Quickstart
from tinymu_jax.cli.tag import Tag
from tinymu_jax.cli.train import RUNS, Export, read_run
from tinymu_jax.errors import one_line_errors
from tinymu_jax.utils.malloc import keep_heap


def main() -> None:
    """Runs the command line; bad input ends with one line and code 2."""
    # File names may hold bytes that are not text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    name = "".join(sys.argv[1:2])
    if name in (*RUNS, "quickstart", "ablate"):
        keep_heap()
    with one_line_errors():
        if name in RUNS:
            # The defaults of these commands' options are in the file that --config names.
            raise SystemExit(read_run(name, sys.argv[2:]).run())
        command = tyro.extras.subcommand_cli_from_dict(
            {
                "ask": Ask,
                "score": Score,
                "embed": Embed,
                "data": Data,
                **{name: command for name, (command, _) in RUNS.items()},
                "export": Export,
                "push": Push,
                "convert": Convert,
                "tag": Tag,
                "evaluate": Evaluate,
                "quickstart": Quickstart,
                "ablate": Ablate,
            },
            prog="tinymu",
            description="Music question answering with TinyMU.",
        )
        raise SystemExit(command.run())
