"""Write the Markdown pages about a built question-answer set: stats.md and the data card."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tinymu_jax.data.question_formats import MCQ, YES_NO
from tinymu_jax.qa_builder.build import BuildResult
from tinymu_jax.qa_builder.questions.balance import TASKS
from tinymu_jax.qa_builder.questions.baselines import choice_baselines, yes_rates
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem
from tinymu_jax.qa_builder.questions.multiple_choice import RIGHT
from tinymu_jax.qa_builder.questions.negatives import OTHER_BRANCH
from tinymu_jax.utils.numbers import percent

MAX_UNKNOWN_LABELS = 40
"""Maximum number of unknown labels in stats.md; unknown_labels.csv has all."""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table; every column but the first is right-aligned."""
    alignment = ["---", *["---:"] * (len(head) - 1)]
    cells = [head, alignment, *([str(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells] + [""]


def stats_page(result: BuildResult) -> str:
    """Return the text of stats.md: question counts, baselines without audio, dropped data."""
    lines = ["# Statistics", "", *_sizes(result.items), *_baselines(result.items)]
    lines += [*_kinds(result.items), *_dropped(result)]
    return "\n".join(lines).rstrip() + "\n"


def _sizes(items: Sequence[QAItem]) -> list[str]:
    rows = []
    for source in (*dict.fromkeys(item.clip.source for item in items), "total"):
        selected = [item for item in items if source in (item.clip.source, "total")]
        by_task = Counter(item.task for item in selected)
        clips = len({item.clip_id for item in selected})
        rows.append([source, clips, *(by_task[task] for task in TASKS), len(selected)])
    by_task = Counter(item.task for item in items)
    rows.append(["share (%)", "", *(percent(by_task[task] / len(items)) for task in TASKS), ""])
    return _table(["source", "clips", *TASKS, "total"], rows)


def _baselines(items: Sequence[QAItem]) -> list[str]:
    lines = ["## Baselines without audio", ""]
    accuracies = choice_baselines(items)
    if accuracies:
        rows = [[name, percent(accuracy)] for name, accuracy in accuracies.items()]
        lines += _table([f"{MCQ} rule", "accuracy (%)"], rows)
    overall, by_tag = yes_rates(items)
    if overall is not None:
        rows = [["all", sum(i.task == YES_NO for i in items), percent(overall)]]
        rows += [[tag, count, percent(share)] for tag, (count, share) in by_tag.items()]
        lines += _table([f"{YES_NO} tag", "questions", "yes (%)"], rows)
    return lines


def _kinds(items: Sequence[QAItem]) -> list[str]:
    lines = ["## Wrong options, and evidence of a no", ""]
    kinds = Counter(kind for item in items for kind in item.kinds if kind != RIGHT)
    lines += _table(["wrong option", "number"], sorted(kinds.items()))
    evidence = Counter(item.evidence for item in items if item.evidence)
    lines += _table(["evidence", "number"], sorted(evidence.items()))
    written = sum(item.by == WRITER for item in items)
    if written:
        lines += [f"A language model wrote {written} questions (`by` in the lists).", ""]
    return lines


def _dropped(result: BuildResult) -> list[str]:
    normalized, duplicates = result.normalized, result.duplicates
    selected = Counter(item.task for item in result.items)
    surplus = {
        task: result.candidates[task]
        - sum(n[task] for n in (result.too_long, duplicates.by_task, result.leaked, selected))
        for task in TASKS
    }
    rows: list[Sequence[object]] = [
        *((f"clips of {name}", count) for name, count in sorted(normalized.test_sets.items())),
        ("clips without tags and captions", normalized.empty),
        ("unreadable recordings", len(normalized.unusable)),
        ("rows about sounds other than music", normalized.no_music),
        ("rare labels", normalized.rare),
        ("tags that another label of the clip denies", normalized.contradicted),
        ("labels that are not in the vocabulary", sum(normalized.unknown.values())),
        *((f"{task}: too many tokens", result.too_long[task]) for task in TASKS),
        ("duplicate questions", duplicates.exact),
        ("near-duplicate captions", duplicates.near),
        ("test-set leaks", result.leaked.total()),
        *((f"{task}: not selected (caps, balance, mix)", surplus[task]) for task in TASKS),
    ]
    lines = ["## Dropped", "", *_table(["what", "number"], rows)]
    if normalized.unknown:
        frequent = normalized.unknown.most_common(MAX_UNKNOWN_LABELS)
        labels = ", ".join(f"{label} ({count})" for label, count in frequent)
        lines += [f"Most frequent unknown labels: {labels}.", ""]
    return lines


def data_card(
    result: BuildResult, licences: Mapping[str, str], leaks: str, settings: Mapping[str, str]
) -> str:
    """Return the Markdown text of the data card of a built set.

    `licences` maps data sets to licences; `leaks` is the text of `LeakReport.summary`.
    """
    items = result.items
    by_task = Counter(item.task for item in items)
    clips = len({item.clip_id for item in items})
    counts = ", ".join(f"{by_task[task]:,} {task}" for task in TASKS)
    inferred = sum(item.evidence == OTHER_BRANCH for item in items)
    certain = sum(item.evidence != "" for item in items) - inferred
    lines = [
        "# Data card",
        "",
        f"{len(items):,} questions with answers about {clips:,} recordings, in the MusicSkills "
        f"format: {counts}. No audio.",
        "",
        "## Sources and licences",
        "",
        *_table(["source", "licence of its tags and captions"], licences.items()),
        "Share-alike (SA) sources require the same licence for what is derived from them, and "
        "non-commercial (NC) sources exclude commercial use. Recordings have their own licences.",
        "",
        "## How answers are known",
        "",
        "Captions are quoted from the sources. Answers to open questions name the clip's tags of "
        "one category, which may be incomplete. A missing tag alone does not count as a no: of the "
        f"questions answered by no, {certain:,} rest on a source that denies the tag or labels its "
        f"category exhaustively, and {inferred:,} on inference only (no clip has the tag together "
        "with any of this clip's tags, it belongs to another family, and no caption names it). The "
        "field `evidence` says which.",
        "",
        "## Test sets",
        "",
        leaks,
        "",
        "## Settings",
        "",
        *_table(["setting", "value"], settings.items()),
    ]
    return "\n".join(lines).rstrip() + "\n"
