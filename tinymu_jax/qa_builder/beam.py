"""Build a question-answer set with Apache Beam, for data sets too large for one machine.

Beam options choose the runner (`--runner DataflowRunner --project ...`); the default runner uses
the cores of this machine. Every worker needs this package installed.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.annotations.registry import Source
from tinymu_jax.qa_builder.build import (
    BuildResult,
    is_short_enough,
    make_candidates,
    normalize_clips,
    require_items,
)
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.contamination.deduplicate import (
    DuplicateReport,
    is_free_text,
    remove_duplicates,
)
from tinymu_jax.qa_builder.context import BuildContext
from tinymu_jax.qa_builder.questions.balance import (
    Stratum,
    answer_group,
    cap_per_answer,
    key_threshold,
    max_per_answer,
    stratum_of,
    stratum_sizes,
)
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics, count_tags, implied_tags

COUNTED = ("candidates", "fitting")


class NumberedItem(NamedTuple):
    """A question, the index of its clip, and its index among the questions about this clip."""

    clip: int
    place: int
    item: QAItem

    @property
    def position(self) -> tuple[int, int]:
        """Return (clip, place), the sort key that restores the order of questions after Beam."""
        return self.clip, self.place


class _CountTags(beam.CombineFn):
    """Beam combiner that counts tags; each input is the set of tags that apply to one clip."""

    def create_accumulator(self) -> Counter[frozenset]:
        return Counter()

    def add_input(self, counts: Counter, implied: frozenset) -> Counter:
        counts[implied] += 1
        return counts

    def merge_accumulators(self, parts: Iterable[Counter]) -> Counter:
        return sum(parts, Counter())

    def extract_output(self, counts: Counter) -> TagStatistics:
        return count_tags(counts.elements())


def _candidates(
    numbered: tuple[int, AnnotatedClip], statistics: TagStatistics, context: BuildContext
) -> Iterator[NumberedItem]:
    number, clip = numbered
    for place, item in enumerate(make_candidates(clip, statistics, context)):
        yield NumberedItem(number, place, item)


def _duplicate_scope(one: NumberedItem) -> str:
    """Return the group in which a question's duplicates are searched: free texts, or its clip."""
    return "free texts" if is_free_text(one.item) else f"clip {one.clip}"


def _distinct(_: Any, group: Iterable[NumberedItem]) -> Iterator[Any]:
    """Yield the distinct questions of a `_duplicate_scope`, and then a `DuplicateReport`."""
    ordered = sorted(group, key=lambda one: one.position)
    items, report = remove_duplicates([one.item for one in ordered])
    remaining = {item.identity for item in items}
    for one in ordered:
        if one.item.identity in remaining:
            remaining.remove(one.item.identity)
            yield one
    yield beam.pvalue.TaggedOutput("duplicates", report)


def _cap_per_answer(
    group: tuple[Any, Iterable[NumberedItem]],
    counts: Mapping[str, int],
    groups: Mapping[str, int],
    config: BuildConfig,
) -> Iterator[NumberedItem]:
    (task, *_), members = group
    ordered = sorted(members, key=lambda one: one.position)
    positions = {one.item.identity: one.position for one in ordered}
    limit = max_per_answer(task, counts[task], groups[task], config)
    for item in cap_per_answer([one.item for one in ordered], limit):
        yield NumberedItem(*positions[item.identity], item)


def _thresholds(
    keys: Iterable[tuple[Stratum, list[int]]], config: BuildConfig
) -> Iterator[tuple[Stratum, int]]:
    """Yield each stratum (subset of a question format) with the largest `QAItem.key` to select.

    `keys` has pairs of a stratum and the keys of its questions.
    """
    by_stratum = dict(keys)
    sizes = stratum_sizes({part: len(members) for part, members in by_stratum.items()}, config)
    for part, members in by_stratum.items():
        yield part, key_threshold(members, sizes[part])


def _count_tasks(items: Any, name: str) -> Any:
    return (
        items
        | f"{name}: tasks" >> beam.Map(lambda one: one.item.task)
        | f"{name}: count" >> beam.combiners.Count.PerElement()
    )


def _balance(distinct: Any, config: BuildConfig) -> Any:
    """Select the `NumberedItem`s of a Beam collection that `balance.balance` would select."""
    counts = beam.pvalue.AsDict(_count_tasks(distinct, "distinct"))
    grouped = (
        distinct
        | "answer groups" >> beam.Map(lambda one: (answer_group(one.item), one))
        | "group answers" >> beam.GroupByKey()
    )
    groups = (
        grouped
        | "tasks of groups" >> beam.Map(lambda group: group[0][0])
        | "count groups" >> beam.combiners.Count.PerElement()
    )
    groups = beam.pvalue.AsDict(groups)
    capped = grouped | "cap answers" >> beam.FlatMap(_cap_per_answer, counts, groups, config)
    thresholds = (
        capped
        | "strata" >> beam.Map(lambda one: (stratum_of(one.item), one.item.key))
        | "group strata" >> beam.GroupByKey()
        | "list keys" >> beam.MapTuple(lambda part, keys: (part, list(keys)))
        | "all strata" >> beam.combiners.ToList()
        | "thresholds" >> beam.FlatMap(_thresholds, config)
    )
    return capped | "mix" >> beam.Filter(
        lambda one, limits: one.item.key <= limits[stratum_of(one.item)],
        beam.pvalue.AsDict(thresholds),
    )


def add_steps(
    pipeline: beam.Pipeline, clips: Sequence[AnnotatedClip], context: BuildContext
) -> tuple[Any, dict[str, Any]]:
    """Add the build steps to a pipeline; return the selected `NumberedItem`s and statistics.

    The questions are a Beam collection, and the statistics are Beam collections by name.
    "candidates" has pairs (question format, number of questions); "fitting" has the same pairs for
    the questions within the token limit. "duplicates" has `DuplicateReport`s.
    """
    numbered = pipeline | "clips" >> beam.Create(list(enumerate(clips)))
    statistics = (
        numbered
        | "implied tags"
        >> beam.Map(lambda one, words: implied_tags(one[1], words), context.vocabulary)
        | "count tags" >> beam.CombineGlobally(_CountTags())
    )
    candidates = numbered | "candidates" >> beam.FlatMap(
        _candidates, beam.pvalue.AsSingleton(statistics), context
    )
    fitting = candidates | "length" >> beam.Filter(
        lambda one, context: is_short_enough(one.item, context), context
    )
    distinct = (
        fitting
        | "duplicate scopes" >> beam.Map(lambda one: (_duplicate_scope(one), one))
        | "group scopes" >> beam.GroupByKey()
        | "distinct" >> beam.FlatMapTuple(_distinct).with_outputs("duplicates", main="distinct")
    )
    collections = zip(COUNTED, (candidates, fitting), strict=True)
    counts = {name: _count_tasks(items, name) for name, items in collections}
    return _balance(distinct.distinct, context.config), counts | {"duplicates": distinct.duplicates}


def build_with_beam(
    sources: Sequence[Source],
    context: BuildContext,
    output: Path,
    options: Sequence[str] = (),
    keep_held_out: bool = False,
) -> BuildResult:
    """Build a question-answer set with Beam; the result equals that of `build.build`.

    `options` are Beam pipeline options (`--name=value`). Intermediate files go to the option
    `temp_location`, or else to the folder `output`. `keep_held_out` keeps clips that their data set
    marks as test material.

    Raises:
        InputError: no clip has a tag or caption, or no question is left.
    """
    normalized = normalize_clips(sources, context, keep_held_out)
    settings = PipelineOptions(list(options), save_main_session=False)
    folder = settings.get_all_options().get("temp_location") or str(output / "beam")
    prefix = FileSystems.join(folder, "musicskills")
    with beam.Pipeline(options=settings) as pipeline:
        items, counts = add_steps(pipeline, normalized.clips, context)
        _ = items | "lines" >> beam.Map(_to_line) | "write" >> _writer(f"{prefix}-items")
        for name, collection in counts.items():
            _ = (
                collection
                | f"{name}: lines" >> beam.Map(json.dumps)
                | f"{name}: write" >> _writer(f"{prefix}-{name}", shards=1)
            )
    numbered = [_from_row(row, normalized.clips) for row in _read(f"{prefix}-items")]
    candidates, fitting = (Counter(dict(_read(f"{prefix}-{name}"))) for name in COUNTED)
    return require_items(
        BuildResult(
            [one.item for one in sorted(numbered, key=lambda one: one.position)],
            normalized,
            candidates,
            candidates - fitting,
            DuplicateReport.merge(_read(f"{prefix}-duplicates")),
        )
    )


def _to_line(one: NumberedItem) -> str:
    """Return a question as one line of JSON, with the index of its clip instead of the clip."""
    fields = one.item._asdict()
    del fields["clip"]
    return json.dumps([one.clip, one.place, fields])


def _from_row(row: tuple[int, int, dict], clips: Sequence[AnnotatedClip]) -> NumberedItem:
    number, place, fields = row
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return NumberedItem(number, place, QAItem(clips[number], **fields | tuples))


def _writer(prefix: str, shards: int = 0) -> Any:
    return beam.io.WriteToText(prefix, file_name_suffix=".jsonl", num_shards=shards)


def _read(prefix: str) -> Iterator[Any]:
    """Yield the parsed lines of the JSONL files `<prefix>-*.jsonl`, local or in a bucket."""
    for match in FileSystems.match([f"{prefix}-*.jsonl"])[0].metadata_list:
        with FileSystems.open(match.path) as file:
            yield from map(json.loads, file.read().splitlines())
