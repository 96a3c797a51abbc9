"""Read questions about synthetic clips, with the facts (musical attributes) of the clips."""

from pathlib import Path
from typing import Any, NamedTuple

from tinymu_jax.data.musicskills import FIELDS
from tinymu_jax.data.question_formats import CAPTIONING, LETTERS, MCQ
from tinymu_jax.data.synthetic.facts import FACTS, Facts
from tinymu_jax.data.synthetic.generate import CLIPS, FACTS_FILE, LISTS
from tinymu_jax.data.synthetic.templates import NAMES
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import exists
from tinymu_jax.utils.json_records import read_json_records
from tinymu_jax.utils.tables import read_rows

REMEDY = "synthesise the folder again (tinymu data synthesize)"


class SyntheticItem(NamedTuple):
    """A question about a synthetic clip, whose facts (musical attributes) are known."""

    path: Path
    """Path of the clip."""
    truth: Facts
    task: str
    """One of MusicSkills' four tasks."""
    facts: tuple[str, ...]
    """Names of the facts that the question is about."""
    prompt: str
    expected: str
    """The right answer."""
    options: tuple[str, ...] = ()
    """Options of multiple choice, each with its letter: "(A) text"."""

    @property
    def option_texts(self) -> list[str]:
        """The texts of the options, without letters."""
        return [option.partition(" ")[2] for option in self.options]

    @property
    def main_fact(self) -> str:
        """The name of the fact by whose value an answer is graded; for captions, the timbre."""
        return "timbre" if self.task == CAPTIONING else self.facts[0]


def read_items(folder: str | Path, max_clips: int | None = None) -> list[SyntheticItem]:
    """Read all questions of a folder that `tinymu_jax.data.synthetic.generate.synthesize` wrote.

    The questions are grouped by clip. `max_clips` limits the number of clips.

    Raises:
        InputError: a file is missing or invalid, there are no questions, or `max_clips` is below 1.
    """
    folder = Path(folder)
    if max_clips is not None and max_clips < 1:
        raise InputError(f"max_clips is {max_clips}: give 1 or more")
    truths = _read_facts(folder / FACTS_FILE)
    by_clip: dict[str, list[SyntheticItem]] = {name: [] for name in list(truths)[:max_clips]}
    for task, name in LISTS.items():
        if not exists(folder / name):
            continue  # The folder has no questions of this task.
        for where, record in read_json_records(folder / name, REMEDY):
            _check_record(record, task, where)
            clip = record["file_name"]
            if clip not in truths:
                raise InputError(f"{where}: {clip} is not in {FACTS_FILE}; {REMEDY}")
            if clip in by_clip:
                path, facts = folder / CLIPS / clip, tuple(record["facts"])
                texts = record["input_text"], record["target_text"], tuple(record["options"])
                by_clip[clip].append(SyntheticItem(path, truths[clip], task, facts, *texts))
    items = [item for clip_items in by_clip.values() for item in clip_items]
    if not items:
        raise InputError(f"{folder}: holds no questions; {REMEDY}")
    return items


def _read_facts(path: Path) -> dict[str, Facts]:
    """Read the csv of facts; return the facts of each clip, by the clip's file name."""
    truths = {}
    remedy = f"it is not a table of facts; {REMEDY}"
    for row in read_rows(path, ("file_name", *FACTS), remedy):
        values = [row.text(fact) for fact in FACTS]
        if not all(value in NAMES[fact] for fact, value in zip(FACTS, values, strict=True)):
            raise row.fault(f"is not a clip with its facts; {REMEDY}")
        truths[row.name("file_name")] = Facts(*values)
    return truths


def _check_record(record: Any, task: str, where: str) -> None:
    """Raise `InputError` if a record of a task's question list cannot be asked or graded."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: is not an object; {REMEDY}")
    for key in FIELDS:
        if not isinstance(record.get(key), str) or not record[key]:
            raise InputError(f"{where}: has no {key!r}, or an empty one; {REMEDY}")
    for key in ("facts", "options"):
        value = record.get(key)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise InputError(f"{where}: has no list of {key}; {REMEDY}")
    facts, options = record["facts"], record["options"]
    if record["task"] != task:
        raise InputError(f"{where}: its task is {record['task']!r}, not {task!r}; {REMEDY}")
    if not facts or not set(facts) <= set(FACTS):
        raise InputError(f"{where}: has unknown facts {facts}; {REMEDY}")
    if task != MCQ:
        return
    lettered = [option.startswith(f"({x})") for x, option in zip(LETTERS, options, strict=False)]
    if len(options) != len(LETTERS) or not all(lettered) or record["target_text"] not in options:
        raise InputError(f"{where}: lacks the options (A) to (D), or a right one; {REMEDY}")
