"""Entry point of the `tinymu` command line."""

import codecs
import io
import json
import sys
from importlib import import_module
from typing import Any

import tyro

from tinymu_jax.cli.paths import check_dashes, expand_home
from tinymu_jax.errors import one_line_errors
from tinymu_jax.utils.backend import explain_jax_errors, ignore_variables
from tinymu_jax.utils.malloc import keep_heap

COMMANDS = {
    "ask": "ask.Ask",
    "score": "ask.ScoreCommand",
    "embed": "ask.Embed",
    "caption": "caption.CaptionCommand",
    "data": "data.Data",
    "train": "train.Train",
    "pretrain": "train.Pretrain",
    "train-tagger": "train.TrainTagger",
    "export": "train.Export",
    "push": "push.Push",
    "convert": "convert.Convert",
    "tag": "tag.TagCommand",
    "index": "search.IndexCommand",
    "similar": "search.Similar",
    "duplicates": "search.Duplicates",
    "find": "search.Find",
    "serve": "serve.Serve",
    "evaluate": "evaluate.Evaluate",
    "quickstart": "quickstart.Quickstart",
    "ablate": "quickstart.Ablate",
}
"""Name of each command -> its module in `tinymu_jax.cli` and its class."""
CONFIG_FILE_COMMANDS = ("train", "pretrain", "train-tagger")
"""Commands whose default options come from the file that --config names."""


def main() -> None:
    """Run the command in `sys.argv`; bad input prints one line and exits with code 2."""
    _print_any_text()
    name = "".join(sys.argv[1:2])
    if name in (*CONFIG_FILE_COMMANDS, "quickstart", "ablate"):
        keep_heap()
    ignore_variables()
    with one_line_errors(), explain_jax_errors():
        check_dashes(sys.argv[1:])
        if name in CONFIG_FILE_COMMANDS:
            from tinymu_jax.cli.train import read_run

            command = read_run(name, sys.argv[2:])
        else:
            command = tyro.extras.subcommand_cli_from_dict(
                _command_classes(name),
                prog="tinymu",
                description="Music question answering with TinyMU.",
            )
        raise SystemExit(expand_home(command).run())


def _print_any_text() -> None:
    """Make stdout and stderr print characters outside their encoding as JSON escapes.

    Such characters are in file names that are not UTF-8. In some locales (`LC_ALL=C`), all
    characters but ASCII are outside the encoding.
    """

    def escape(error: UnicodeError) -> tuple[str, int]:
        return json.dumps(error.object[error.start : error.end])[1:-1], error.end

    codecs.register_error("json_escape", escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json_escape")


def _command_classes(name: str) -> dict[str, Any]:
    """Return the class of a command, or of every command if the name is unknown.

    Imports only the modules of the returned classes, so that a command starts quickly.
    """
    names = (name,) if name in COMMANDS else tuple(COMMANDS)
    classes = {}
    for command in names:
        module, _, attribute = COMMANDS[command].partition(".")
        classes[command] = getattr(import_module(f"tinymu_jax.cli.{module}"), attribute)
    return classes
