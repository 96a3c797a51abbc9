"""The `tinymu data` commands; `build` and `check-leaks` are in `tinymu_jax.cli.qa_builder`."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from tinymu_jax.audio.load import Mono
from tinymu_jax.cli.options import DECODER
from tinymu_jax.cli.qa_builder import BuildCommand, CheckLeaksCommand
from tinymu_jax.data.config import (
    FeatureConfig,
    FeatureKind,
    PrepareConfig,
    RenderConfig,
    Resampling,
    SynthesisConfig,
)
from tinymu_jax.errors import InputError
from tinymu_jax.models.packing import PackingConfig
from tinymu_jax.utils.progress import show_progress


@dataclass(frozen=True)
class Prepare:
    """Turn question lists and their recordings into a data set for training.

    Without lists, recordings alone are prepared for pre-training the encoder. After an
    interruption, run the command again to continue.
    """

    lists: tuple[Path, ...] = ()
    """JSON or JSONL files of questions in MusicSkills' format; none for pre-training."""
    audio: tuple[Path, ...] = ()
    """Folders of the recordings: one for all lists, or one per list in the same order. Without
    lists, all recordings below these folders are prepared."""
    output: Path = Path("data/prepared")
    """Folder for the prepared data set."""
    features: FeatureKind | None = None
    """What to store. log_mel (float16, the default): 160 kB for 10 s; waveform (int16, 16 kHz): 320
    kB, can be augmented; embeddings (bfloat16): 480 kB, training then skips the frozen encoder;
    text: token ids of text files in place of audio, for text-only training."""
    mono: Mono | None = None
    """Channel to use: the first, as in TinyMU's training (default with lists), or the mean of all,
    as in MATPAC's training (default without lists)."""
    resampler: Resampling | None = None
    """Resampling filter: torchaudio's default, as in TinyMU's training (default with lists), or
    kaiser-best, as in MATPAC's training (default without lists)."""
    max_seconds: float | None = None
    """Cut recordings to this length; default: 10 s with lists, no limit without lists."""
    keep_damaged: bool = False
    """Store what can be read of a damaged recording, instead of refusing it."""
    checkpoint: str | None = None
    """Checkpoint whose encoder computes the embeddings, for --features embeddings."""
    tokenizer: str = DECODER
    """Tokenizer of the model to train: tokenizer.json, a checkpoint folder, a decoder's hub name,
    or `nano` (the model in the package)."""
    max_bad_fraction: float = 0.001
    """Largest fraction of recordings that may be missing or unusable."""
    clips_per_shard: int = 1024
    """Number of clips in one file of the data set."""
    workers: int = 0
    """Number of processes; 0 means one per CPU core."""
    json: bool = False
    """Print the data set's manifest (dataset.json) instead of text."""

    def run(self) -> int:
        """Prepare the data set and print its size; return the exit code."""
        from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
        from tinymu_jax.data.dataset import BAD_FILE
        from tinymu_jax.data.musicskills import read_lists
        from tinymu_jax.data.prepare import check_encoder, prepare
        from tinymu_jax.utils.files import check_folder

        if self.clips_per_shard < 1 or self.workers < 0 or not 0 <= self.max_bad_fraction <= 1:
            raise InputError(
                "give clips-per-shard of 1 or more, workers of 0 or more, max-bad-fraction of 0 "
                "to 1"
            )
        features = self._feature_config()
        check_encoder(features, self.checkpoint)
        check_folder(self.output)
        tokenizer = read_tokenizer(self.tokenizer) if self.lists else None
        if self.checkpoint is not None and self.lists:
            read_lists(self.lists, self.audio)  # errors in them are reported before it is opened
        encoder = None if self.checkpoint is None else open_checkpoint(self.checkpoint)
        config = PrepareConfig(features, self.clips_per_shard, self.max_bad_fraction, self.workers)
        with show_progress("preparing") as progress:
            manifest = prepare(
                self.lists, self.audio, self.output, tokenizer, config, encoder, progress
            )
        if self.json:
            print(json.dumps(manifest))
            return 0
        print(
            f"{manifest['records']} clips with {manifest['questions']} questions in {self.output}; "
            f"{manifest['bad']} unusable recordings ({BAD_FILE}), "
            f"{manifest['repeated_questions']} repeated questions skipped, "
            f"{manifest['cut_prompts']} prompts and {manifest['cut_answers']} answers truncated "
            "to the published model's limit"
        )
        return 0

    def _feature_config(self) -> FeatureConfig:
        """Return TinyMU's published config (MATPAC's without lists), overridden by the options."""
        from tinymu_jax.data.crops import MATPAC_FEATURES

        if not self.lists and self.features == "text":
            raise InputError(
                "--features text needs question lists (--lists); name them, or use log_mel"
            )
        options = {
            "kind": self.features,
            "mono": self.mono,
            "resampler": self.resampler,
            "max_seconds": self.max_seconds,
            "keep_damaged": self.keep_damaged,
        }
        overrides = {name: value for name, value in options.items() if value is not None}
        return replace(FeatureConfig() if self.lists else MATPAC_FEATURES, **overrides)


@dataclass(frozen=True)
class Synthesize:
    """Synthesise music clips with known properties, and questions about them."""

    output: tyro.conf.Positional[Path]
    """New or empty folder to write."""
    synthesis: Annotated[SynthesisConfig, tyro.conf.arg(name="")] = field(
        default_factory=SynthesisConfig
    )

    def run(self) -> int:
        """Write clips and questions, and print the next command; return the exit code."""
        from tinymu_jax.data.synthetic.generate import CLIPS, FACTS_FILE, LISTS, synthesize

        with show_progress("synthesising") as progress:
            synthesize(self.output, self.synthesis, progress)
        paths = (self.output / name for name in LISTS.values())
        lists = " ".join(str(path) for path in paths if path.exists())
        print(
            f"{self.synthesis.clips} clips in {self.output / CLIPS}, their facts in "
            f"{self.output / FACTS_FILE}; prepare them with: tinymu data prepare --lists {lists} "
            f"--audio {self.output / CLIPS} --output DATA (add --tokenizer nano to train nano)"
        )
        return 0


@dataclass(frozen=True)
class Render:
    """Render labelled clips of music from free recordings and soundfonts.

    After an interruption, run the command again to continue.
    """

    output: tyro.conf.Positional[Path]
    """New or empty folder to write."""
    render: Annotated[RenderConfig, tyro.conf.arg(name="")] = field(default_factory=RenderConfig)

    def run(self) -> int:
        """Write clips and labels, and print the next commands; return the exit code."""
        from tinymu_jax.data.real_music.generate import CLIPS, LABELS_FILE, render_clips

        with show_progress("rendering") as progress:
            render_clips(self.output, self.render, progress)
        labels = self.output / LABELS_FILE
        print(
            f"{self.render.clips} clips in {self.output / CLIPS}, their labels in {labels}; train "
            f"an encoder with: tinymu data prepare --audio {self.output / CLIPS} "
            f"--features waveform --output DATA; tinymu train-tagger "
            f"--config tag_music --data.train DATA --data.labels {labels}"
        )
        return 0


@dataclass(frozen=True)
class TrainTokenizer:
    """Train the tokenizer of a small decoder on the texts of question lists."""

    lists: tyro.conf.Positional[tuple[Path, ...]]
    """JSON or JSONL files of questions in MusicSkills' format."""
    output: Path = Path("tokenizer.json")
    """File to write."""
    size: int = 1024
    """Maximum number of tokens, at least 300: all bytes, special tokens and what was learnt."""

    def run(self) -> int:
        """Write the tokenizer; return the exit code."""
        from tinymu_jax.data.musicskills import read_list
        from tinymu_jax.tokenizer import train_tokenizer
        from tinymu_jax.utils.files import exists, write_text

        if not self.lists:
            raise InputError("no list: name one or more json files with questions")
        if exists(self.output):
            raise InputError(f"{self.output}: exists already; name another file, or remove it")
        if self.size < 300:
            raise InputError(f"size is {self.size}: give 300 or more, since each byte is a token")
        records = (record for path in self.lists for _, record in read_list(path))
        texts = (record[name] for record in records for name in ("input_text", "target_text"))
        write_text(self.output, train_tokenizer(texts, self.size))
        print(f"{self.output}: name it with --tokenizer, or --init.tokenizer")
        return 0


@dataclass(frozen=True)
class Stats:
    """Print the size of a prepared data set, and how well its questions fill training batches."""

    folder: tyro.conf.Positional[str]
    """Folder of the data set, or its URL on a bucket."""
    packing: PackingConfig = field(default_factory=PackingConfig)
    """How training will pack questions into the rows of a batch."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """Print the statistics of the data set; return the exit code."""
        from tinymu_jax.data.dataset import Dataset
        from tinymu_jax.data.remote import local_path
        from tinymu_jax.data.sampler import make_groups, make_plan
        from tinymu_jax.models.config import TinyMUConfig

        dataset, config = Dataset(local_path(self.folder)), TinyMUConfig()
        lengths = dataset.lengths(config)
        groups = make_groups(lengths, self.packing, config)
        plan = make_plan(groups, self.packing, seed=0, epochs=1)
        stats: dict[str, Any] = {
            "features": dataset.features.kind,
            "clips": len(dataset),
            "questions": len(lengths.prompt),
            "questions a clip": len(lengths.prompt) / max(len(dataset), 1),
            "tokens a prompt": float(lengths.prompt.mean()),
            "tokens an answer": float(lengths.labels.mean()),
            "blocks an epoch": plan.num_blocks,
        }
        stats |= {f"{name} used": share for name, share in plan.fill(self.packing).items()}
        if self.json:
            print(json.dumps(stats))
            return 0
        for name, value in stats.items():
            print(f"{name:18} {f'{value:.3f}' if isinstance(value, float) else value}")
        return 0


@dataclass(frozen=True)
class Data:
    """Build questions, synthesise or render clips, prepare data sets, and inspect data sets."""

    command: Annotated[
        Annotated[Synthesize, tyro.conf.subcommand("synthesize")]
        | Annotated[Render, tyro.conf.subcommand("render")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[BuildCommand, tyro.conf.subcommand("build")]
        | Annotated[CheckLeaksCommand, tyro.conf.subcommand("check-leaks")]
        | Annotated[TrainTokenizer, tyro.conf.subcommand("train-tokenizer")]
        | Annotated[Stats, tyro.conf.subcommand("stats")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Run the chosen subcommand; return its exit code."""
        return self.command.run()
