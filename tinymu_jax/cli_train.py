"""The `tinymu train` and `tinymu export` commands."""

import runpy
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from tinymu_jax.errors import InputError
from tinymu_jax.files import exists
from tinymu_jax.training.config import TrainConfig


@dataclass(frozen=True)
class Train:
    """Fine-tune TinyMU as a config file says; every field of it can be given here anew.

    The same command with --resume goes on after a kill, on as many devices as there are then.
    """

    config: Path | None = None
    """A python file with a `config`, such as configs/sft_tinymu.py."""
    resume: bool = False
    """Go on with what is in the output folder, if there is anything."""
    coordinator: str | None = None
    """host:port of the first process, where neither SLURM nor a TPU pod says it."""
    processes: int | None = None
    """How many processes there are."""
    process: int | None = None
    """Which of them this is, from 0."""
    run_config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def run(self) -> int:
        """Trains; returns the exit code."""
        from tinymu_jax.distributed import join_processes

        join_processes(self.coordinator, self.processes, self.process)
        import jax

        from tinymu_jax.runs import train

        _quieten()
        trained = train(self.run_config, self.resume)
        if jax.process_index() == 0:
            self._tell(trained)
        return 0

    def _tell(self, trained: object) -> None:
        """Says what came of the run, and what to do next."""
        if trained.model is None:
            again = _without(sys.argv[1:], "--resume", "--loop.stop-after")
            print(
                f"stopped after step {trained.steps}, saved in {trained.folder}; resume with: "
                f"tinymu {shlex.join([*again, '--resume'])}",
                file=sys.stderr,
            )
            return
        print(
            f"{trained.steps} steps done; the model is {trained.model}: ask it with "
            f"`tinymu ask song.mp3 --checkpoint {trained.model} --prompt ...`, hand it to PyTorch "
            f"with `python -m conversion.to_torch {trained.model} tinymu.pt`",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class Export:
    """Write the model of one of a run's checkpoints as a checkpoint folder."""

    run_folder: tyro.conf.Positional[Path]
    """Of the run; it may still be going on."""
    output: tyro.conf.Positional[Path]
    """A new or empty folder."""
    step: str = "best"
    """best (by validation, else the latest), latest, or the number of a step that was kept."""
    half: bool = False
    """Round the weights to float16: half the size, three digits instead of seven."""

    def run(self) -> int:
        """Exports; returns the exit code."""
        from tinymu_jax.runs import export

        _quieten()
        step = export(self.run_folder, self.output, self.step, self.half)
        print(f"the model after step {step} is {self.output}")
        return 0


def read_train(arguments: Sequence[str]) -> Train:
    """Reads the options of `tinymu train` over the config file that they name.

    Raises:
        InputError: the file is not there, or has no `config`.
    """
    path = _config_file(arguments)
    start = TrainConfig() if path is None else read_config_file(path)
    default = Train(config=path, run_config=start)
    return tyro.cli(
        Train,
        prog="tinymu train",
        args=list(arguments),
        default=default,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _without(arguments: Sequence[str], flag: str, option: str) -> list[str]:
    """Returns arguments without a flag, and without an option and its value."""
    kept, skipped = [], False
    for argument in arguments:
        if not skipped and argument != flag and argument.partition("=")[0] != option:
            kept.append(argument)
        skipped = argument == option
    return kept


def _config_file(arguments: Sequence[str]) -> Path | None:
    """Finds --config before the other options can be read, since it says their defaults."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            if equals:
                return Path(value)
            if number + 1 < len(arguments):
                return Path(arguments[number + 1])
    return None


def read_config_file(path: Path) -> TrainConfig:
    """Runs a config file and returns its `config`.

    Raises:
        InputError: it is not there, fails, or has none.
    """
    if not exists(path) or path.is_dir():
        raise InputError(f"{path}: no such file; name a config such as configs/sft_tinymu.py")
    # A config may build on another one beside it, as those in configs/ do.
    beside = [str(path.resolve().parent.parent), str(path.resolve().parent)]
    sys.path[:0] = beside
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise InputError(
            f"{path}: cannot be run ({type(error).__name__}: {error}); correct it"
        ) from error
    finally:
        for folder in beside:
            sys.path.remove(folder)
    if not isinstance(config, TrainConfig):
        raise InputError(f"{path}: has no `config` that is a TrainConfig; see configs/tiny.py")
    return config


def _quieten() -> None:
    """Leaves out the notes of the libraries that save; what goes wrong is told in our words."""
    import logging

    logging.getLogger("absl").setLevel(logging.ERROR)
