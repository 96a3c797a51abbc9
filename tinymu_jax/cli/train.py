"""The `tinymu train`, `pretrain`, `train-tagger` and `export` commands."""

import runpy
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from tinymu_jax.errors import InputError
from tinymu_jax.training.config import PretrainConfig, RunConfig, TagConfig, TrainConfig
from tinymu_jax.utils.files import exists


@dataclass(frozen=True)
class _Run:
    """What the commands share that run a config file."""

    config: Path | None = None
    """A python file with a `config`, such as those in configs/."""
    resume: bool = False
    """Go on with what is in the output folder, if there is anything."""
    coordinator: str | None = None
    """host:port of process 0; detected under SLURM and on TPU pods."""
    num_processes: int | None = None
    """Processes in all; detected likewise."""
    process_id: int | None = None
    """Index of this process, from 0; detected likewise."""
    join_timeout: float = 300.0
    """Seconds in which all processes must join."""

    def run(self) -> int:
        """Runs it; returns the exit code."""
        from tinymu_jax.training.distributed import facts_of, join_processes

        facts = facts_of(self.run_config, self.resume)
        join_processes(
            self.coordinator, self.num_processes, self.process_id, self.join_timeout, facts
        )
        import jax

        from tinymu_jax.training.run import train

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
            f"{trained.steps} steps done; the model is {trained.model}: "
            f"{self.NEXT.format(model=trained.model)}",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class Train(_Run):
    """Fine-tune TinyMU as a config file says; every field of it can be given here anew.

    The same command with --resume goes on after a kill, on as many devices as there are then.
    """

    run_config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    NEXT: ClassVar[str] = (
        "ask it with `tinymu ask song.mp3 --checkpoint {model} --prompt ...`, hand it to PyTorch "
        "with `python -m conversion.to_torch {model} tinymu.pt`"
    )


@dataclass(frozen=True)
class Pretrain(_Run):
    """Pre-train an encoder on recordings alone (MATPAC, MATPAC++), as a config file says.

    Every field of it can be given here anew. The same command with --resume goes on after a kill,
    on as many devices as there are then.
    """

    run_config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=PretrainConfig
    )

    NEXT: ClassVar[str] = (
        "its encoder gives vectors with `tinymu embed song.mp3 --checkpoint {model}`, goes under "
        "a TinyMU with `tinymu train --init.encoder {model}`, and to PyTorch with "
        "`python -m conversion.to_torch {model} matpac.pt`"
    )


@dataclass(frozen=True)
class Export:
    """Write the model of one of a run's checkpoints as a checkpoint folder."""

    run_folder: tyro.conf.Positional[Path]
    """Of the run; it may still be going on."""
    output: tyro.conf.Positional[Path]
    """A new or empty folder, or a checkpoint's; a card of your own in it stays."""
    step: str = "best"
    """best (by validation, else the latest), latest, or the number of a step that was kept."""
    dtype: Literal["float32", "float16"] = "float32"
    """float16 halves the size and keeps three digits instead of seven."""

    def run(self) -> int:
        """Exports; returns the exit code."""
        from tinymu_jax.checkpoints.model_card import made_from_run, write_card
        from tinymu_jax.training.run import export

        _quieten()
        step = export(self.run_folder, self.output, self.step, self.dtype)
        card = write_card(self.output, made_from_run(self.run_folder, step))
        print(f"the model after step {step} is {self.output}, described in {card}")
        return 0


@dataclass(frozen=True)
class TrainTagger(_Run):
    """Teach an encoder to tag, as a config file says; every field of it can be given here anew.

    It stands between pre-training and the encoder of TinyMU. The same command with --resume goes
    on after a kill, on as many devices as there are then.
    """

    run_config: Annotated[TagConfig, tyro.conf.arg(name="")] = field(default_factory=TagConfig)

    NEXT: ClassVar[str] = (
        "it tags with `tinymu tag song.mp3 --checkpoint {model}`, goes under a TinyMU with "
        "`tinymu train --init.encoder {model}`, and to PyTorch with "
        "`python -m conversion.to_torch {model} matpac.pt`"
    )


RUNS: dict[str, tuple[type[Any], type[RunConfig]]] = {
    "train": (Train, TrainConfig),
    "pretrain": (Pretrain, PretrainConfig),
    "train-tagger": (TrainTagger, TagConfig),
}
"""Commands whose options' defaults are in a file that one of them names."""


def read_run(name: str, arguments: Sequence[str]) -> Train | Pretrain | TrainTagger:
    """Reads the options of such a command over the config file that they name.

    Raises:
        InputError: the file is not there, or has no `config` of its kind.
    """
    path, (command, kind) = _config_file(arguments), RUNS[name]
    start = kind() if path is None else read_config_file(path, kind)
    default = command(config=path, run_config=start)
    return tyro.cli(
        command,
        prog=f"tinymu {name}",
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


def read_config_file(path: Path, kind: type[RunConfig] = TrainConfig) -> RunConfig:
    """Runs a config file and returns its `config`, which is to be of a kind.

    Raises:
        InputError: it is not there, fails, or has none.
    """
    if not exists(path) or path.is_dir():
        raise InputError(
            f"{path}: no such file (in {Path.cwd()}); name a config such as configs/sft_tinymu.py "
            "of the clone"
        )
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
    if not isinstance(config, kind):
        raise InputError(
            f"{path}: has no `config` that is a {kind.__name__}; see those in configs/"
        )
    return config


def _quieten() -> None:
    """Leaves out the notes of the libraries that save; what goes wrong is told in our words."""
    import logging

    logging.getLogger("absl").setLevel(logging.ERROR)
