"""The same build as an Apache Beam pipeline, for sets that outgrow one machine.

The steps are those of `tinymu_jax.qa_builder.build`, so that the lists are the same, byte for
byte. Runner and its options are Beam's own (`--runner DataflowRunner --project ...`); without any,
Beam's local runner takes the processes of this machine. Workers need this package installed.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.registry import Source
from tinymu_jax.qa_builder.build import (
    BuildContext,
    BuildResult,
    ask_about,
    checked,
    fits,
    name_clips,
)
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.contamination.deduplicate import (
    Duplicates,
    is_free_text,
    without_duplicates,
)
from tinymu_jax.qa_builder.questions.balance import (
    Part,
    answer_of,
    identity,
    largest_key,
    most_of,
    part_of,
    sizes,
    within_answer,
)
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.tags.cooccurrence import Statistics, count_tags, implied_tags

COUNTED = ("candidates", "fitting")


class PlacedItem(NamedTuple):
    """A candidate, and where it stands among all."""

    clip: int
    """Number of its clip."""
    place: int
    """Among the clip's candidates."""
    item: QAItem


class _CountTags(beam.CombineFn):
    """Counts tags over clips; see `count_tags`."""

    def create_accumulator(self) -> Counter[frozenset]:
        return Counter()

    def add_input(self, counted: Counter, implied: frozenset) -> Counter:
        counted[implied] += 1
        return counted

    def merge_accumulators(self, parts: Iterable[Counter]) -> Counter:
        return sum(parts, Counter())

    def extract_output(self, counted: Counter) -> Statistics:
        return count_tags(counted.elements())


def _ask(
    numbered: tuple[int, AnnotatedClip], statistics: Statistics, tools: BuildContext
) -> Iterator[PlacedItem]:
    number, clip = numbered
    for place, item in enumerate(ask_about(clip, statistics, tools)):
        yield PlacedItem(number, place, item)


def _single(_: Any, group: Iterable[PlacedItem]) -> Iterator[Any]:
    """Yields candidates without those that repeat others, and a tagged count of the latter."""
    ordered = sorted(group, key=lambda one: one[:2])
    kept, duplicates = without_duplicates([one.item for one in ordered])
    left = {identity(item) for item in kept}
    seen: set[tuple[str, ...]] = set()
    for one in ordered:
        own = identity(one.item)
        if own in left and own not in seen:
            seen.add(own)
            yield one
    yield beam.pvalue.TaggedOutput("duplicates", duplicates)


def _where_repeats_are_looked_for(one: PlacedItem) -> str:
    """Returns a key: free texts are held against each other, all else against its own clip."""
    return "free texts" if is_free_text(one.item) else f"clip {one.clip}"


def _within_answer(
    answered: tuple[Any, Iterable[PlacedItem]],
    counts: dict[str, int],
    answers: dict[str, int],
    config: BuildConfig,
) -> Iterator[PlacedItem]:
    (task, *_), group = answered
    ordered = sorted(group, key=lambda one: one[:2])
    places = {identity(one.item): one[:2] for one in ordered}
    most = most_of(task, counts[task], answers[task], config)
    for item in within_answer([one.item for one in ordered], most):
        yield PlacedItem(*places[identity(item)], item)


def _last_keys(
    keys: Iterable[tuple[Part, list[int]]], config: BuildConfig
) -> Iterator[tuple[Part, int]]:
    """Yields, of each part, the key up to which its candidates stay."""
    by_part = dict(keys)
    wanted = sizes({part: len(own) for part, own in by_part.items()}, config)
    for part, own in by_part.items():
        yield part, largest_key(own, wanted[part])


def _count_formats(questions: Any, name: str) -> Any:
    return (
        questions
        | f"{name}: formats" >> beam.Map(lambda one: one.item.task)
        | f"{name}: count" >> beam.combiners.Count.PerElement()
    )


def _line(one: PlacedItem) -> str:
    """Returns a question as json: all but its clip, which its number stands for."""
    own = one.item._asdict()
    del own["clip"]
    return json.dumps([one.clip, one.place, own])


def _placed(line: str, clips: Sequence[AnnotatedClip]) -> PlacedItem:
    number, place, own = json.loads(line)
    lists = {name: tuple(value) for name, value in own.items() if isinstance(value, list)}
    return PlacedItem(number, place, QAItem(clips[number], **own | lists))


def _balanced(single: Any, config: BuildConfig) -> Any:
    """Returns those of all candidates that stay; see `tinymu_jax.qa_builder.questions.balance.balanced`."""
    counts = beam.pvalue.AsDict(_count_formats(single, "single"))
    answered = (
        single
        | "key answers" >> beam.Map(lambda one: (answer_of(one.item), one))
        | "group answers" >> beam.GroupByKey()
    )
    answers = (
        answered
        | "answers" >> beam.Map(lambda group: group[0][0])
        | "count answers" >> beam.combiners.Count.PerElement()
    )
    answers = beam.pvalue.AsDict(answers)
    kept = answered | "within answer" >> beam.FlatMap(_within_answer, counts, answers, config)
    last = (
        kept
        | "keys" >> beam.Map(lambda one: (part_of(one.item), one.item.key))
        | "group keys" >> beam.GroupByKey()
        | "listed keys" >> beam.MapTuple(lambda part, keys: (part, list(keys)))
        | "all keys" >> beam.combiners.ToList()
        | "last keys" >> beam.FlatMap(_last_keys, config)
    )
    return kept | "mix" >> beam.Filter(
        lambda one, last_keys: one.item.key <= last_keys[part_of(one.item)],
        beam.pvalue.AsDict(last),
    )


def pipeline(
    root: Any, clips: Sequence[AnnotatedClip], tools: BuildContext
) -> tuple[Any, dict[str, Any]]:
    """Adds the build's steps to a pipeline.

    Args:
        root: a `beam.Pipeline`.
        clips: with the vocabulary's names.
        tools: vocabulary, templates, settings.

    Returns:
        The placed questions, and collections of what was counted on the way.
    """
    config = tools.config
    named = root | "clips" >> beam.Create(list(enumerate(clips)))
    statistics = (
        named
        | "implied tags" >> beam.Map(lambda one, own: implied_tags(one[1], own), tools.vocabulary)
        | "count tags" >> beam.CombineGlobally(_CountTags())
    )
    asked = named | "ask" >> beam.FlatMap(_ask, beam.pvalue.AsSingleton(statistics), tools)
    fitting = asked | "fits" >> beam.Filter(lambda one, own: fits(one.item, own), tools)
    single = (
        fitting
        | "key repeats" >> beam.Map(lambda one: (_where_repeats_are_looked_for(one), one))
        | "group repeats" >> beam.GroupByKey()
        | "single" >> beam.FlatMapTuple(_single).with_outputs("duplicates", main="single")
    )
    items = _balanced(single.single, config)
    found = {
        name: _count_formats(questions, name)
        for name, questions in zip(COUNTED, (asked, fitting), strict=True)
    }
    return items, found | {"duplicates": single.duplicates}


def build_with_beam(
    sources: Sequence[Source],
    tools: BuildContext,
    output: Path,
    options: Sequence[str] = (),
    keep_held_out: bool = False,
) -> BuildResult:
    """Builds a set as `tinymu_jax.qa_builder.build.build` does, by Beam.

    Args:
        sources: what is known of recordings.
        tools: vocabulary, templates, settings.
        output: folder for what Beam writes on the way, where its options name no `temp_location`.
        options: of Beam, each as `--name=value`.
        keep_held_out: also ask about clips that their source says are for tests.

    Raises:
        InputError: no clip with a tag or caption; nothing is left.
    """
    named = name_clips(sources, tools.vocabulary, tools.config, keep_held_out)
    settings = PipelineOptions(list(options), save_main_session=False)
    place = settings.get_all_options().get("temp_location") or str(output / "beam")
    place = FileSystems.join(place, "musicskills")
    with beam.Pipeline(options=settings) as root:
        items, counted = pipeline(root, named.clips, tools)
        _ = items | "lines" >> beam.Map(_line) | "write" >> _writer(f"{place}-items")
        for name, counts in counted.items():
            _ = (
                counts
                | f"{name}: lines" >> beam.Map(json.dumps)
                | f"{name}: write" >> _writer(f"{place}-{name}", shards=1)
            )
    placed = sorted(
        (_placed(line, named.clips) for line in _read(f"{place}-items")), key=lambda one: one[:2]
    )
    candidates, fitting = (Counter(dict(_parsed(f"{place}-{n}"))) for n in COUNTED)
    return checked(
        BuildResult(
            [one.item for one in placed],
            named,
            candidates,
            candidates - fitting,
            Duplicates.joined(_parsed(f"{place}-duplicates")),
        )
    )


def _writer(prefix: str, shards: int = 0) -> Any:
    return beam.io.WriteToText(prefix, file_name_suffix=".jsonl", num_shards=shards)


def _read(prefix: str) -> Iterator[str]:
    """Yields the lines of all files with a prefix, here or in a bucket."""
    for match in FileSystems.match([f"{prefix}-*.jsonl"])[0].metadata_list:
        with FileSystems.open(match.path) as file:
            yield from (line.decode() for line in file.read().splitlines())


def _parsed(prefix: str) -> Iterator[Any]:
    return (json.loads(line) for line in _read(prefix))
