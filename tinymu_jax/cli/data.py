"""The `tinymu data` commands: synthesize, prepare, stats; build and leaks are in `.cli_build`."""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from tinymu_jax.audio.load import Mono
from tinymu_jax.cli.options import DECODER, showing_progress
from tinymu_jax.cli.qa_builder import BuildCommand, CheckLeaksCommand
from tinymu_jax.data.config import FeatureConfig, PrepareConfig, Resampling, Store, SynthesisConfig
from tinymu_jax.errors import InputError
from tinymu_jax.models.packing import PackingConfig


@dataclass(frozen=True)
class Prepare:
    """Read lists of questions and their recordings into shards for training.

    Without lists the recordings alone are read, as the encoder's pre-training reads them: all of
    each, the mean of its channels, kaiser-best (where the options below do not say otherwise).
    Goes on where an earlier run of the same command stopped.
    """

    lists: tuple[Path, ...] = ()
    """Json files of MusicSkills records; none for pre-training."""
    audio: tuple[Path, ...] = ()
    """Folders of the recordings: one for all lists, or one for each, in their order; without lists
    all recordings of these folders and those below them."""
    output: Path = Path("data/prepared")
    """Folder of the data set."""
    store: Store | None = None
    """waveform (int16, 16 kHz): 320 kB for 10 s, can be augmented; log_mel (float16, the default):
    160 kB; embeddings of the frozen encoder (bfloat16): 480 kB, and no encoder in the training
    step; text: the tokens of a text file in the recording's place, for a decoder that learns from
    words."""
    mono: Mono | None = None
    """The first channel, as TinyMU is trained (the default with lists), or the mean of all, as
    MATPAC is (the default without)."""
    resampler: Resampling | None = None
    """torchaudio's default, as TinyMU is trained (with lists), or kaiser-best, as MATPAC is."""
    max_seconds: float | None = None
    """How much of a recording is kept: 10 s with lists, all of it without."""
    checkpoint: str | None = None
    """Whose encoder makes the embeddings, where those are stored."""
    tokenizer: str = DECODER
    """Of the model that will be trained: tokenizer.json, a checkpoint's folder, `nano`, or the hub
    name of a decoder."""
    max_bad: float = 0.001
    """Share of recordings that may be missing or unusable."""
    clips_per_shard: int = 1024
    """Clips of one file."""
    workers: int = 0
    """Processes; 0 means one per core."""
    json: bool = False
    """The data set's page as json instead of text."""

    def run(self) -> int:
        """Prepares; returns the exit code."""
        from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
        from tinymu_jax.data.dataset import BAD_FILE
        from tinymu_jax.data.prepare import prepare

        if self.clips_per_shard < 1 or self.workers < 0 or not 0 <= self.max_bad <= 1:
            raise InputError(
                "give clips-per-shard of 1 or more, workers of 0 or more, max-bad of 0 to 1"
            )
        text = read_tokenizer(self.tokenizer) if self.lists else None
        encoder = None if self.checkpoint is None else open_checkpoint(self.checkpoint)
        config = PrepareConfig(_features(self), self.clips_per_shard, self.max_bad, self.workers)
        with showing_progress("preparing") as progress:
            page = prepare(self.lists, self.audio, self.output, text, config, encoder, progress)
        if self.json:
            print(json.dumps(page))
            return 0
        print(
            f"{page['records']} clips with {page['questions']} questions in {self.output}; "
            f"{page['bad']} unusable recordings ({BAD_FILE}), {page['repeated_questions']} "
            f"repeated questions left out, {page['cut_prompts']} prompts and "
            f"{page['cut_answers']} answers longer than the published model takes"
        )
        return 0


def _features(prepare: Prepare) -> FeatureConfig:
    """Returns how recordings are read: as TinyMU does or, without lists, as pre-training does.

    What was given is taken as it is.
    """
    from tinymu_jax.data.crops import AS_PUBLISHED

    if not prepare.lists and prepare.store == "text":
        raise InputError("store=text goes with lists of questions; name them, or store log_mel")
    names = [field.name for field in fields(FeatureConfig)]
    given = {name: getattr(prepare, name) for name in names if getattr(prepare, name) is not None}
    return replace(FeatureConfig() if prepare.lists else AS_PUBLISHED, **given)


@dataclass(frozen=True)
class Synthesize:
    """Make clips from known facts, with questions about them: music to learn and test with."""

    output: tyro.conf.Positional[Path]
    """A new or empty folder."""
    synthesis: Annotated[SynthesisConfig, tyro.conf.arg(name="")] = field(
        default_factory=SynthesisConfig
    )

    def run(self) -> int:
        """Synthesises; returns the exit code."""
        from tinymu_jax.data.synthetic.generate import CLIPS, FACTS_FILE, LISTS, synthesize

        with showing_progress("synthesising") as progress:
            synthesize(self.output, self.synthesis, progress)
        paths = (self.output / name for name in LISTS.values())
        lists = " ".join(str(path) for path in paths if path.exists())
        print(
            f"{self.synthesis.clips} clips in {self.output / CLIPS}, their facts in "
            f"{self.output / FACTS_FILE}; prepare them with: tinymu data prepare --lists {lists} "
            f"--audio {self.output / CLIPS} --output DATA (and --tokenizer nano, for nano to learn)"
        )
        return 0


@dataclass(frozen=True)
class Stats:
    """Say what a prepared data set holds, and how full its rows will be."""

    folder: tyro.conf.Positional[str]
    """Of the data set, or its address on a bucket."""
    packing: PackingConfig = field(default_factory=PackingConfig)
    """How questions will be packed."""
    json: bool = False
    """As json instead of text."""

    def run(self) -> int:
        """Prints the figures; returns the exit code."""
        from tinymu_jax.data.dataset import Dataset
        from tinymu_jax.data.remote import local_place
        from tinymu_jax.data.sampler import make_groups, make_plan
        from tinymu_jax.models.config import TinyMUConfig

        dataset, config = Dataset(local_place(self.folder)), TinyMUConfig()
        lengths = dataset.lengths(config)
        groups = make_groups(lengths, self.packing, config)
        plan = make_plan(groups, self.packing, seed=0, epochs=1)
        found: dict[str, Any] = {
            "store": dataset.features.store,
            "clips": len(dataset),
            "questions": len(lengths.prompt),
            "questions a clip": len(lengths.prompt) / max(len(dataset), 1),
            "tokens a prompt": float(lengths.prompt.mean()),
            "tokens an answer": float(lengths.labels.mean()),
            "blocks an epoch": plan.num_blocks,
        }
        found |= {f"{name} used": share for name, share in plan.fill(self.packing).items()}
        if self.json:
            print(json.dumps(found))
            return 0
        for name, value in found.items():
            shown = f"{value:.3f}" if isinstance(value, float) else value
            print(f"{name:18} {shown}")
        return 0


@dataclass(frozen=True)
class Data:
    """Make questions, synthesise clips, prepare data sets for training, and look at them."""

    command: Annotated[
        Annotated[Synthesize, tyro.conf.subcommand("synthesize")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[BuildCommand, tyro.conf.subcommand("build")]
        | Annotated[CheckLeaksCommand, tyro.conf.subcommand("check-leaks")]
        | Annotated[Stats, tyro.conf.subcommand("stats")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Runs the command; returns the exit code."""
        return self.command.run()
