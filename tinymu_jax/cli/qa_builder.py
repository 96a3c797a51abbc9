"""The `tinymu data build` and `tinymu data leaks` commands."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli.options import DECODER, showing_progress
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.config import BuildConfig

SOURCES = (
    "musiccaps",
    "magnatagatune",
    "fma",
    "audioset",
    "jamendo",
    "song_describer",
    "table",
    "folder",
)

UNCHECKED = "none"


@dataclass(frozen=True)
class TestSets:
    """What must not be trained on, by the files that say what it is."""

    musiccaps: Path | None = None
    """musiccaps-public.csv: its balanced rows, which MuChoMusic asks about, and those of AudioSet's
    evaluation set."""
    muchomusic: Path | None = None
    """Its csv, or a jsonl of its questions."""
    audioset_eval: Path | None = None
    """eval_segments.csv."""
    song_describer: Path | None = None
    """song_describer.csv."""
    gtzan: Path | None = None
    """Its folder, or a csv of file, artist and title."""

    def read(self) -> list[Any]:
        """Reads those that are named."""
        from tinymu_jax.qa_builder.contamination.test_sets import read_test_set

        return read_test_set(**vars(self))


@dataclass(frozen=True)
class LeaksCommand:
    """Look for test material in lists of questions: by recording, by text, by artist.

    Ends with exit code 1 where there is some.
    """

    lists: tyro.conf.Positional[tuple[Path, ...]]
    """Json files of MusicSkills records."""
    test_sets: TestSets = field(default_factory=TestSets)
    """What is looked for."""
    output: Path = Path("leak_report.json")
    """File for the report."""

    def run(self) -> int:
        """Checks; returns the exit code."""
        from tinymu_jax.qa_builder.contamination.check import check_leaks, read_records
        from tinymu_jax.utils.files import write_json

        held_out = self.test_sets.read()
        if not held_out:
            raise InputError(
                "no test set: name files to look for, as --test-sets.musiccaps musiccaps-public.csv"
            )
        report = check_leaks(read_records(self.lists), held_out)
        write_json(self.output, report.to_dict())
        print(report.summary())
        print(f"the report is in {self.output}", file=sys.stderr)
        return 1 if report.hits else 0


@dataclass(frozen=True)
class BuildCommand:
    """Make questions with answers from tags and captions, in MusicSkills' format.

    Name one or more sources. What the sources say belongs to test sets is left out, and what is
    built is checked against the test sets named: a hit is an error.
    """

    musiccaps: Path | None = None
    """musiccaps-public.csv."""
    magnatagatune: Path | None = None
    """Folder with annotations_final.csv (and clip_info_final.csv for the artists)."""
    fma: Path | None = None
    """Folder with tracks.csv and genres.csv."""
    audioset: Path | None = None
    """A csv of segments, with --ontology."""
    ontology: Path | None = None
    """ontology.json of AudioSet."""
    jamendo: Path | None = None
    """A tsv of MTG-Jamendo."""
    song_describer: Path | None = None
    """song_describer.csv; a test set, asked about with --keep-held-out alone."""
    table: Path | None = None
    """A csv of your own: file, and any of caption, tags, not, instrument, genre, mood, tempo,
    voice, rhythm, production, function, clip, start, end, artist, licence, exhaustive."""
    folder: Path | None = None
    """Recordings of your own, of which the ID3 tags are read."""
    output: Path = Path("data/built")
    """Folder for lists, stats.md, data_card.md and leak_report.json."""
    build: Annotated[BuildConfig, tyro.conf.arg(name="")] = field(default_factory=BuildConfig)
    vocabulary: Path | None = None
    """A csv of category, name, parents, synonyms, to add to the project's own."""
    tokenizer: str = DECODER
    """tokenizer.json or hub name of the decoder, for lengths; none: they are not checked."""
    test_sets: TestSets = field(default_factory=TestSets)
    """What is checked against; MusicCaps' own csv is, where it is a source."""
    keep_held_out: bool = False
    """Also ask about clips that their source says are for tests."""
    leaks: Literal["refuse", "leave-out", "allow"] = "refuse"
    """What becomes of questions that hit a test set."""
    llm_url: str | None = None
    """A server that speaks OpenAI's protocol (http://localhost:8000/v1) and writes more captions
    and questions, which are checked against tags and captions."""
    llm_model: str | None = None
    """Its model; default the first that it names."""
    tfds: bool = False
    """Also write the lists as a TensorFlow data set (array_record) into OUTPUT/tfds."""
    beam: bool = False
    """Build with Apache Beam (pip install -e '.[beam]')."""
    beam_options: tuple[str, ...] = ()
    """Its own, without dashes: --beam-options runner=DataflowRunner project=P region=R
    temp_location=gs://B/tmp."""

    def run(self) -> int:
        """Builds; returns the exit code."""
        from tinymu_jax.qa_builder.build import leave_out
        from tinymu_jax.qa_builder.contamination.check import check_leaks
        from tinymu_jax.qa_builder.output import LEAKS, STATS, write_set
        from tinymu_jax.qa_builder.questions.balance import TASKS
        from tinymu_jax.utils.files import make_folder, write_json

        self.build.check()
        self._refuse_idle()
        held_out = self._held_out()
        make_folder(self.output)
        built = self._built()
        leaks = check_leaks((item.record() for item in built.items), held_out)
        if leaks.hits and self.leaks == "refuse":
            write_json(self.output / LEAKS, leaks.to_dict())
            raise InputError(
                f"{leaks.hits} of {len(built.items)} questions hit a test set "
                f"({self.output / LEAKS} names them); nothing was built: take them out of the "
                "sources, or give --leaks leave-out or --leaks allow"
            )
        if self.leaks == "leave-out":
            built = leave_out(built, leaks.numbers)
        paths = write_set(self.output, built, leaks, self._settings())
        if self.tfds:
            from tinymu_jax.qa_builder.tfds import write_tfds

            write_tfds(paths, self.output / "tfds")
        print((self.output / STATS).read_text("utf-8").split("\n##")[0].strip())
        print(leaks.summary())
        none = [task for task in TASKS if not any(item.task == task for item in built.items)]
        if none:
            print(f"note: of {', '.join(none)} no question could be made", file=sys.stderr)
        print(
            f"\n{len(built.items)} questions in {self.output}; prepare them with: tinymu data "
            f"prepare --lists {' '.join(map(str, paths))} --audio FOLDER ... --output DATA"
        )
        return 0

    def _refuse_idle(self) -> None:
        """Refuses options that nothing would come of."""
        for idle, name, wanted in (
            (self.ontology and not self.audioset, "ontology", "audioset"),
            (self.llm_model and not self.llm_url, "llm-model", "llm-url"),
            (self.beam_options and not self.beam, "beam-options", "beam"),
        ):
            if idle:
                raise InputError(f"--{name}: does nothing without --{wanted}; give both, or none")

    def _held_out(self) -> list[Any]:
        sets = self.test_sets
        return replace(
            sets,
            musiccaps=sets.musiccaps or self.musiccaps,
            song_describer=sets.song_describer or self.song_describer,
        ).read()

    def _sources(self) -> list[Any]:
        from tinymu_jax.data.annotations.registry import read_source
        from tinymu_jax.qa_builder.output import list_name

        named = {name: getattr(self, name) for name in SOURCES}
        named = {name: path for name, path in named.items() if path is not None}
        if not named:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in SOURCES)
            raise InputError(f"no source: name one or more of {flags}")
        found = [read_source(name, path, self.ontology) for name, path in named.items()]
        lists = Counter(list_name(source.name) for source in found)
        for source in found:
            if lists[list_name(source.name)] > 1:
                raise InputError(
                    f"source {source.name!r}: another one would have the same list; rename the "
                    "file or folder of one of them"
                )
        return found

    def _built(self) -> Any:
        from tinymu_jax.qa_builder.build import BuildContext, build
        from tinymu_jax.qa_builder.questions.templates import read_wordings
        from tinymu_jax.qa_builder.tags.vocabulary import read_vocabulary

        vocabulary, wordings = read_vocabulary(self.vocabulary), read_wordings()
        tools = BuildContext(vocabulary, wordings, self._counting(), self.build)
        sources = self._sources()
        if self.beam:
            from tinymu_jax.qa_builder.beam import build_with_beam

            if self.llm_url is not None:
                raise InputError("--beam and --llm-url: build with one of them")
            options = [f"--{option}" for option in self.beam_options]
            return build_with_beam(sources, tools, self.output, options, self.keep_held_out)
        with showing_progress("asking") as progress:
            return build(sources, tools, self.keep_held_out, self._writer(tools), progress)

    def _counting(self) -> Callable[[str], int] | None:
        """Returns what counts a text's tokens."""
        if self.tokenizer == UNCHECKED:
            return None
        from tinymu_jax.checkpoints.open import read_tokenizer
        from tinymu_jax.tokenizer import Tokenizer

        try:
            tokenizer = Tokenizer(read_tokenizer(self.tokenizer))
        except InputError as error:
            advice = "or give --tokenizer none, and no length is checked"
            raise InputError(f"{error}; {advice}") from error
        return lambda text: len(tokenizer.encode(text))

    def _writer(self, tools: Any) -> Callable[[Sequence[Any]], Sequence[Any]]:
        """Returns what gives a language model's questions; none without a server."""
        if self.llm_url is None:
            return lambda clips: ()
        from tinymu_jax.qa_builder.llm.writer import WriterConfig, write_items
        from tinymu_jax.qa_builder.questions.seeded_choice import hash_choice

        config = WriterConfig(self.llm_url, self.llm_model, seed=self.build.seed)

        def prompt(clip: Any, number: int) -> str:
            return hash_choice(
                tools.wordings.of("caption"), config.seed, clip.source, clip.clip, number
            )

        def write(clips: Sequence[Any]) -> Sequence[Any]:
            cache = self.output / "llm.jsonl"
            with showing_progress("writing") as progress:
                items, report = write_items(
                    clips, tools.vocabulary, config, cache, prompt, progress
                )
            refused = ", ".join(f"{why}: {n}" for why, n in sorted(report.refused.items()))
            print(
                f"{report.model} wrote {report.captions} captions and {report.questions} questions "
                f"({report.cached} clips from {cache}); refused: {refused or 'none'}; "
                f"{len(report.skipped)} clips skipped",
                file=sys.stderr,
            )
            return items

        return write

    def _settings(self) -> dict[str, Any]:
        """Returns what the lists depend on; no path, so that equal builds are equal files."""
        sources = {name: getattr(self, name) for name in SOURCES}
        return {
            **json.loads(json.dumps(self.build.to_dict())),
            "sources": {name: path.name for name, path in sources.items() if path is not None},
            "vocabulary": self.vocabulary.name if self.vocabulary else "own",
            "tokenizer": self.tokenizer,
            "keep_held_out": self.keep_held_out,
            "leaks": self.leaks,
            "llm_model": self.llm_model if self.llm_url else None,
        }
