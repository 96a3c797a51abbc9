"""What a built set holds, for people: stats.md, and a data card with licences."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tinymu_jax.data.question_formats import MCQ, YES_NO
from tinymu_jax.qa_builder.build import BuildResult
from tinymu_jax.qa_builder.questions.balance import TASKS
from tinymu_jax.qa_builder.questions.baselines import choice_baselines, yes_rates
from tinymu_jax.qa_builder.questions.item import WRITER, QAItem

SHOWN = 40
"""Unknown labels that are shown; all are in unknown_labels.csv."""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Returns a Markdown table; numbers stand on the right."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    cells = [head, marks, *([str(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells] + [""]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def stats_page(built: BuildResult) -> str:
    """Returns stats.md: sizes by source and format, blind baselines, what was left out."""
    lines = ["# What this set holds", "", *_sizes(built.items), *_blind(built.items)]
    lines += _kinds(built.items)
    return "\n".join([*lines, *_left_out(built)]).rstrip() + "\n"


def _sizes(items: Sequence[QAItem]) -> list[str]:
    """Returns the table of the paper: clips and questions of each format, by source."""
    sources = list(dict.fromkeys(item.clip.source for item in items))
    rows = []
    for source in (*sources, "total"):
        own = [item for item in items if source in (item.clip.source, "total")]
        by_task = Counter(item.task for item in own)
        clips = len({(item.clip.source, item.clip.clip) for item in own})
        rows.append([source, clips, *(by_task[task] for task in TASKS), len(own)])
    total = len(items)
    shares = [_percent(Counter(item.task for item in items)[task] / total) for task in TASKS]
    rows.append(["share", "", *shares, ""])
    return _table(["source", "clips", *TASKS, "total"], rows)


def _blind(items: Sequence[QAItem]) -> list[str]:
    lines = ["## Without listening", ""]
    baselines = choice_baselines(items)
    if baselines:
        rows = [[name, _percent(share)] for name, share in baselines.items()]
        lines += _table([f"{MCQ}, right by", "share"], rows)
    overall, by_tag = yes_rates(items)
    if overall is not None:
        rows = [["all", sum(i.task == YES_NO for i in items), _percent(overall)]]
        rows += [[tag, number, _percent(share)] for tag, (number, share) in by_tag.items()]
        lines += _table([f"{YES_NO}, about", "questions", "yes"], rows)
    return lines


def _kinds(items: Sequence[QAItem]) -> list[str]:
    """Returns what the wrong options are, and how a "no" is known."""
    lines = ["## Wrong options, and evidence of a no", ""]
    kinds = Counter(kind for item in items for kind in item.kinds if kind != "right")
    lines += _table(["wrong option", "number"], sorted(kinds.items()))
    evidence = Counter(item.evidence for item in items if item.evidence)
    lines += _table(["no, since", "number"], sorted(evidence.items()))
    written = sum(item.by == WRITER for item in items)
    if written:
        lines += [f"{written} questions were written by a language model (`by` in the lists).", ""]
    return lines


def _left_out(built: BuildResult) -> list[str]:
    named = built.named
    rows: list[Sequence[object]] = [
        *((f"clips of {name}", number) for name, number in sorted(named.held_out.items())),
        ("clips without a tag or caption", named.empty),
        ("recordings that could not be read", len(named.unusable)),
        ("rows about other sounds than music", named.no_music),
        ("labels too rare to be asked about", named.rare),
        ("tags that another label of the clip denies", named.contradicted),
        ("labels that the vocabulary does not know", sum(named.unknown.values())),
        *((f"{task}: too many tokens", built.too_long[task]) for task in TASKS),
        ("repeated questions", built.duplicates.exact),
        ("nearly repeated captions", built.duplicates.near),
        ("questions that hit a test set", built.leaked.total()),
        *(
            (f"{task}: candidates beyond caps, balance and mix", more)
            for task, more in _beyond(built).items()
        ),
    ]
    lines = ["## Left out", "", *_table(["what", "number"], rows)]
    if named.unknown:
        shown = ", ".join(f"{label} ({n})" for label, n in named.unknown.most_common(SHOWN))
        lines += [f"Unknown labels, the most frequent: {shown}.", ""]
    return lines


def _beyond(built: BuildResult) -> dict[str, int]:
    """Returns how many candidates of each format were not needed."""
    kept = Counter(item.task for item in built.items)
    dropped = built.duplicates.by_task
    return {
        task: built.candidates[task]
        - sum(left_out[task] for left_out in (built.too_long, dropped, built.leaked, kept))
        for task in TASKS
    }


def data_card(
    built: BuildResult, licences: dict[str, str], leaks: str, settings: dict[str, str]
) -> str:
    """Returns the data card: what it is, from where, under which licences, and what it is not.

    Args:
        built: the set.
        licences: of each source.
        leaks: the summary of the leak check.
        settings: what it was built with.
    """
    items = built.items
    by_task = Counter(item.task for item in items)
    clips = len({(item.clip.source, item.clip.clip) for item in items})
    counts = ", ".join(f"{by_task[task]:,} {task}" for task in TASKS)
    denied = sum(item.evidence not in ("", "other branch") for item in items)
    likely = sum(item.evidence == "other branch" for item in items)
    lines = [
        "# Data card",
        "",
        f"{len(items):,} questions with answers about {clips:,} recordings, in MusicSkills' "
        f"format: {counts}. No audio.",
        "",
        "## Sources and licences",
        "",
        *_table(
            ["source", "licence of its tags and captions"],
            [[source, licence] for source, licence in licences.items()],
        ),
        "What is made from sources that ask for the same licence (SA) has to be given on under it, "
        "and with a non-commercial source (NC) among them not be sold. Recordings have licences of "
        "their own.",
        "",
        "## How answers are known",
        "",
        "Captions are the sources' own. Open answers name the tags of their category that are "
        "asked about, which may not be all that is heard. A tag that is missing is not taken for "
        f'a "no": of the answers "no", {denied:,} are what a source denies or leaves out where it '
        f"names everything, and {likely:,} are likely only (a tag of another family that no clip "
        "has together with this one's tags, and that its captions do not name): `evidence` says "
        "which.",
        "",
        "## Test sets",
        "",
        leaks,
        "",
        "## Made with",
        "",
        *_table(["setting", "value"], [[name, value] for name, value in settings.items()]),
    ]
    return "\n".join(lines).rstrip() + "\n"
