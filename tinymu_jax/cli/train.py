"""The `tinymu train`, `pretrain`, `train-tagger` and `export` commands."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from tinymu_jax.training.config import PretrainConfig, RunConfig, TagConfig, TrainConfig
from tinymu_jax.training.config_files import load_config


@dataclass(frozen=True)
class _RunCommand:
    """Options of all training commands."""

    config: str | None = None
    """Name of a config in the package, such as sft_lora, or a Python file that defines `config`."""
    resume: bool = False
    """Continue the training run in the output folder, if there is one."""
    coordinator: str | None = None
    """host:port of process 0; detected under SLURM and on TPU pods."""
    num_processes: int | None = None
    """Total number of processes; detected under SLURM and on TPU pods."""
    process_id: int | None = None
    """Index of this process, from 0; detected under SLURM and on TPU pods."""
    join_timeout: float = 300.0
    """Seconds within which all processes must join."""

    def run(self) -> int:
        """Join the other processes and train the model; return the exit code."""
        from tinymu_jax.training.distributed import facts_of, join_processes

        facts = facts_of(self.run_config, self.resume)
        join_processes(
            self.coordinator, self.num_processes, self.process_id, self.join_timeout, facts
        )
        import jax

        from tinymu_jax.training.run import train

        _silence_libraries()
        trained = train(self.run_config, self.resume)
        if jax.process_index() == 0:
            self._report(trained)
        return 0

    def _report(self, trained: Any) -> None:
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
class Train(_RunCommand):
    """Fine-tune TinyMU. Options override the fields of the config.

    If the run was stopped, the same command with --resume continues it, on any number of devices.
    """

    run_config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    NEXT: ClassVar[str] = (
        "ask it with `tinymu ask song.mp3 --checkpoint {model} --prompt ...`, convert it to "
        "PyTorch with `tinymu convert to-torch {model} tinymu.pt`"
    )


@dataclass(frozen=True)
class Pretrain(_RunCommand):
    """Pre-train an encoder on recordings without labels (MATPAC, MATPAC++).

    Options override the fields of the config. If the run was stopped, the same command with
    --resume continues it, on any number of devices.
    """

    run_config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=PretrainConfig
    )

    NEXT: ClassVar[str] = (
        "embed with `tinymu embed song.mp3 --checkpoint {model}`, fine-tune a TinyMU on it with "
        "`tinymu train --init.encoder {model}`, convert it to PyTorch with "
        "`tinymu convert to-torch {model} matpac.pt`"
    )


@dataclass(frozen=True)
class Export:
    """Write the model of a training run, as it was at one of its steps, to a checkpoint folder."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of the training run, which may still be in progress."""
    output: tyro.conf.Positional[Path]
    """Folder to write: new, empty, or with a checkpoint. A model card that you wrote is kept."""
    step: str = "best"
    """Checkpoint to export: best (by validation, else the latest), latest, or its step number."""
    dtype: Literal["float32", "float16"] = "float32"
    """Precision of the weights; float16 halves the size and keeps three digits, not seven."""

    def run(self) -> int:
        """Write the model and its model card; return the exit code."""
        from tinymu_jax.checkpoints.model_card import origin_of_run, write_card
        from tinymu_jax.training.run import export

        _silence_libraries()
        step = export(self.run_folder, self.output, self.step, self.dtype)
        card = write_card(self.output, origin_of_run(self.run_folder, step))
        print(f"the model after step {step} is {self.output}, described in {card}")
        return 0


@dataclass(frozen=True)
class TrainTagger(_RunCommand):
    """Train an encoder to tag recordings, between pre-training and fine-tuning.

    Options override the fields of the config. If the run was stopped, the same command with
    --resume continues it, on any number of devices.
    """

    run_config: Annotated[TagConfig, tyro.conf.arg(name="")] = field(default_factory=TagConfig)

    NEXT: ClassVar[str] = (
        "tag with `tinymu tag song.mp3 --checkpoint {model}`, fine-tune a TinyMU on it with "
        "`tinymu train --init.encoder {model}`, convert it to PyTorch with "
        "`tinymu convert to-torch {model} matpac.pt`"
    )


RUNS: dict[str, tuple[type[Any], type[RunConfig]]] = {
    "train": (Train, TrainConfig),
    "pretrain": (Pretrain, PretrainConfig),
    "train-tagger": (TrainTagger, TagConfig),
}
"""Name of each training command -> its class and the class of its config."""


def read_run(name: str, arguments: Sequence[str]) -> Train | Pretrain | TrainTagger:
    """Parse the arguments of a training command; defaults come from the file of --config.

    Raises:
        InputError: the config does not exist, or belongs to another command.
    """
    config, (command, kind) = _config_option(arguments), RUNS[name]
    start = kind() if config is None else load_config(config, kind)
    default = command(config=config, run_config=start)
    return tyro.cli(
        command,
        prog=f"tinymu {name}",
        args=list(arguments),
        default=default,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _without(arguments: Sequence[str], flag: str, option: str) -> list[str]:
    """Remove `flag`, and `option` together with its value, from a command's arguments."""
    rest, skipped = [], False
    for argument in arguments:
        if not skipped and argument != flag and argument.partition("=")[0] != option:
            rest.append(argument)
        skipped = argument == option
    return rest


def _config_option(arguments: Sequence[str]) -> str | None:
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config":
            if equals:
                return value
            if number + 1 < len(arguments):
                return arguments[number + 1]
    return None


def _silence_libraries() -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
