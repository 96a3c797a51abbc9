"""The `tinymu data build` and `tinymu data check-leaks` commands."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli.options import DECODER
from tinymu_jax.errors import InputError
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.utils.progress import show_progress

NO_TOKENIZER = "none"


@dataclass(frozen=True)
class TestSetFiles:
    """Files that list the recordings, texts and artists of test sets."""

    musiccaps: Path | None = None
    """musiccaps-public.csv. Test clips: the balanced subset, which MuChoMusic uses, and the clips
    from AudioSet's evaluation set."""
    muchomusic: Path | None = None
    """MuChoMusic's csv file, or a jsonl file of its questions."""
    audioset_eval: Path | None = None
    """AudioSet's eval_segments.csv."""
    song_describer: Path | None = None
    """Song Describer's song_describer.csv."""
    gtzan: Path | None = None
    """GTZAN's folder, or a csv file with the columns file, artist and title."""

    def read(self) -> list[Any]:
        """Return the test sets whose files are given."""
        from tinymu_jax.qa_builder.contamination.test_sets import read_test_sets

        return read_test_sets(**vars(self))


@dataclass(frozen=True)
class CheckLeaksCommand:
    """Check lists of questions for recordings, texts and artists of test sets.

    Exits with code 1 if a question leaks from a test set.
    """

    lists: tyro.conf.Positional[tuple[Path, ...]]
    """Lists to check: JSON or JSONL files of questions in MusicSkills' format."""
    test_sets: TestSetFiles = field(default_factory=TestSetFiles)
    """Test sets to check the lists against."""
    output: Path = Path("leak_report.json")
    """JSON file to write the report to."""

    def run(self) -> int:
        """Print and write the report on the lists; return the exit code, 1 for leaks."""
        from tinymu_jax.qa_builder.contamination.check import check_leaks, read_records
        from tinymu_jax.utils.files import write_json

        test_sets = self.test_sets.read()
        if not test_sets:
            raise InputError(
                "no test set: give one or more, as --test-sets.musiccaps musiccaps-public.csv"
            )
        report = check_leaks(read_records(self.lists), test_sets)
        write_json(self.output, report.to_dict())
        print(report.summary())
        print(f"report written to {self.output}", file=sys.stderr)
        return 1 if report.leaks else 0


@dataclass(frozen=True)
class BuildCommand:
    """Build questions and answers from tags and captions, in the MusicSkills format.

    Give one or more sources. Clips that a source marks as test material are left out. The questions
    are then checked against the given test sets.
    """

    musiccaps: Path | None = None
    """MusicCaps: musiccaps-public.csv."""
    magnatagatune: Path | None = None
    """MagnaTagATune: folder with annotations_final.csv and, for artists, clip_info_final.csv."""
    fma: Path | None = None
    """FMA: folder with tracks.csv and genres.csv."""
    audioset: Path | None = None
    """AudioSet: csv file of segments; needs --ontology."""
    ontology: Path | None = None
    """AudioSet's ontology.json, for --audioset."""
    jamendo: Path | None = None
    """MTG-Jamendo: tsv file of tracks and their tags."""
    song_describer: Path | None = None
    """Song Describer: song_describer.csv. It is a test set, used only with --keep-held-out."""
    user_table: Path | None = None
    """Your csv file. Columns: file, and any of caption, tags, not, instrument, genre, mood, tempo,
    voice, rhythm, production, function, clip, start, end, artist, licence, exhaustive."""
    user_folder: Path | None = None
    """Folder of your recordings; genres and artists are read from ID3 tags."""
    output: Path = Path("data/built")
    """Folder to write the lists, stats.md, data_card.md and leak_report.json to."""
    build: Annotated[BuildConfig, tyro.conf.arg(name="")] = field(default_factory=BuildConfig)
    vocabulary: Path | None = None
    """Csv file with tags to add to the vocabulary; columns: category, name, parents, synonyms."""
    tokenizer: str = DECODER
    """tokenizer.json or hub name of the decoder, to count tokens. none: lengths are not checked."""
    test_sets: TestSetFiles = field(default_factory=TestSetFiles)
    """Test sets to check against. MusicCaps and Song Describer are added if they are sources."""
    keep_held_out: bool = False
    """Also use clips that their source marks as test material."""
    on_leak: Literal["fail", "drop", "keep"] = "fail"
    """If questions leak from a test set: build nothing (fail), drop the questions or keep them."""
    llm_url: str | None = None
    """URL of an OpenAI-compatible server (http://localhost:8000/v1). Its language model writes more
    captions and questions, which are checked against the clip's tags and captions."""
    llm_model: str | None = None
    """Model on the server of --llm-url; default: the first model that the server lists."""
    tfds: bool = False
    """Also write the questions as a TensorFlow Datasets data set (array_record) to OUTPUT/tfds."""
    beam: bool = False
    """Build with Apache Beam (pip install -e '.[beam]'), which can use several machines."""
    beam_options: tuple[str, ...] = ()
    """Options of the Beam pipeline, without dashes: --beam-options runner=DataflowRunner project=P
    region=R temp_location=gs://B/tmp."""

    def run(self) -> int:
        """Build, check and write the questions; return the exit code."""
        from tinymu_jax.qa_builder.output import STATS
        from tinymu_jax.qa_builder.questions.balance import TASKS
        from tinymu_jax.utils.files import new_folder

        self.build.check()
        self._check_options()
        test_sets = self._test_sets()
        with new_folder(self.output):
            result, report, paths = self._write(test_sets)
        print((self.output / STATS).read_text("utf-8").split("\n##")[0].strip())
        print(report.summary())
        absent = [task for task in TASKS if not any(item.task == task for item in result.items)]
        if absent:
            print(f"note: no questions of the format {', '.join(absent)}", file=sys.stderr)
        print(
            f"\n{len(result.items)} questions in {self.output}; prepare them with: tinymu data "
            f"prepare --lists {' '.join(map(str, paths))} --audio FOLDER ... --output DATA"
        )
        return 0

    def _write(self, test_sets: list[Any]) -> tuple[Any, Any, list[Path]]:
        """Build and write the questions; return them, the report on leaks and the lists' paths."""
        from tinymu_jax.qa_builder.build import drop_items
        from tinymu_jax.qa_builder.contamination.check import check_leaks
        from tinymu_jax.qa_builder.output import LEAK_REPORT, write_set
        from tinymu_jax.utils.files import write_json

        result = self._build()
        report = check_leaks((item.to_record() for item in result.items), test_sets)
        if report.leaks and self.on_leak == "fail":
            write_json(self.output / LEAK_REPORT, report.to_dict())
            raise InputError(
                f"{report.leaks} of {len(result.items)} questions leak from a test set (listed in "
                f"{self.output / LEAK_REPORT}); nothing was built: remove them from the sources, "
                "or give --on-leak drop or --on-leak keep"
            )
        if self.on_leak == "drop":
            result = drop_items(result, report.indices)
        paths = write_set(self.output, result, report, self._settings())
        if self.tfds:
            from tinymu_jax.qa_builder.tfds import write_tfds

            write_tfds(paths, self.output / "tfds")
        return result, report, paths

    def _check_options(self) -> None:
        """Raise `InputError` if options conflict, or an option that another needs is missing."""
        for unused, name, needed in (
            (self.ontology and not self.audioset, "ontology", "audioset"),
            (self.llm_model and not self.llm_url, "llm-model", "llm-url"),
            (self.beam_options and not self.beam, "beam-options", "beam"),
        ):
            if unused:
                raise InputError(f"--{name}: has no effect without --{needed}; give both, or none")
        if self.beam and self.llm_url is not None:
            raise InputError("--beam and --llm-url: use one of them")

    def _test_sets(self) -> list[Any]:
        return replace(
            self.test_sets,
            musiccaps=self.test_sets.musiccaps or self.musiccaps,
            song_describer=self.test_sets.song_describer or self.song_describer,
        ).read()

    def _source_paths(self) -> dict[str, Path]:
        from tinymu_jax.data.annotations.registry import READERS

        paths = {name: getattr(self, name) for name in READERS}
        if not any(paths.values()):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in READERS)
            raise InputError(f"no source: give one or more of {flags}")
        return {name: path for name, path in paths.items() if path is not None}

    def _read_sources(self) -> list[Any]:
        from tinymu_jax.data.annotations.registry import read_source
        from tinymu_jax.qa_builder.output import list_name

        paths = self._source_paths()
        sources = [read_source(name, path, self.ontology) for name, path in paths.items()]
        list_names = Counter(list_name(source.name) for source in sources)
        for source in sources:
            if list_names[list_name(source.name)] > 1:
                raise InputError(
                    f"source {source.name!r}: another source would write the same list; rename the "
                    "file or folder of one of them"
                )
        return sources

    def _build(self) -> Any:
        from tinymu_jax.qa_builder.build import build
        from tinymu_jax.qa_builder.context import BuildContext
        from tinymu_jax.qa_builder.questions.templates import read_templates
        from tinymu_jax.qa_builder.tags.vocabulary import read_vocabulary

        vocabulary, templates = read_vocabulary(self.vocabulary), read_templates()
        context = BuildContext(vocabulary, templates, self._token_counter(), self.build)
        sources = self._read_sources()
        if self.beam:
            from tinymu_jax.qa_builder.beam import build_with_beam

            options = [f"--{option}" for option in self.beam_options]
            return build_with_beam(sources, context, self.output, options, self.keep_held_out)
        with show_progress("questions") as progress:
            return build(sources, context, self.keep_held_out, self._writer(context), progress)

    def _token_counter(self) -> Callable[[str], int] | None:
        """Return a function that counts a text's tokens; None if lengths are not checked."""
        if self.tokenizer == NO_TOKENIZER:
            return None
        from tinymu_jax.checkpoints.open import read_tokenizer
        from tinymu_jax.tokenizer import Tokenizer

        try:
            tokenizer = Tokenizer(read_tokenizer(self.tokenizer))
        except InputError as error:
            raise InputError(f"{error}; or give --tokenizer none to skip length checks") from error
        return lambda text: len(tokenizer.encode(text))

    def _writer(self, context: Any) -> Callable[[Sequence[Any]], Sequence[Any]]:
        """Return a function from clips to questions that the language model of --llm-url writes.

        Without --llm-url, the function returns no questions.
        """
        if self.llm_url is None:
            return lambda clips: ()
        from tinymu_jax.qa_builder.llm.writer import WriterConfig, write_items

        config = WriterConfig(self.llm_url, self.llm_model, seed=self.build.seed)

        def write(clips: Sequence[Any]) -> Sequence[Any]:
            cache = self.output / "llm.jsonl"
            with show_progress("language model") as progress:
                items, report = write_items(
                    clips, context.vocabulary, context.templates, config, cache, progress
                )
            print(report.summary(cache), file=sys.stderr)
            return items

        return write

    def _settings(self) -> dict[str, Any]:
        """Return the options that determine the questions; sources are given by file name."""
        return {
            **json.loads(json.dumps(self.build.to_dict())),
            "sources": {name: path.name for name, path in self._source_paths().items()},
            "vocabulary": self.vocabulary.name if self.vocabulary else "built-in",
            "tokenizer": self.tokenizer,
            "keep_held_out": self.keep_held_out,
            "on_leak": self.on_leak,
            "llm_model": self.llm_model if self.llm_url else None,
        }
