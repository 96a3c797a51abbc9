"""Synthetic music with questions: a folder that is prepared and trained on like any other.

clips/000000.wav      4 s at 16 kHz, mono, 16 bits
captioning.json       MusicSkills lists, one for each format (qa.json, mcq.json, binary.json)
facts.csv             a line for each clip: its name and its ten facts
texts/000000.txt      what is true of a clip that was never rendered, in words
texts_mcq.json, ...   questions about those, for a decoder that learns from words

A clip depends on the seed and its number alone: it is the same on every machine, in whatever
company it is made.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.question_formats import CAPTIONING, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.compose import compose
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE, Facts, draw_facts
from tinymu_jax.data.synthetic.questions import (
    QuestionMix,
    SyntheticQuestion,
    describe,
    make_questions,
)
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import (
    LOCK_FILE,
    exists,
    folder_lock,
    make_folder,
    read_json_object,
    remove,
    write_json,
    write_text,
)
from tinymu_jax.utils.process_pool import worker_pool

CLIPS, TEXTS = "clips", "texts"

LISTS = {
    CAPTIONING: "captioning.json",
    QA: "qa.json",
    MCQ: "mcq.json",
    YES_NO: "binary.json",
}
"""The list of each format."""

TEXT_LISTS = {task: f"texts_{name}" for task, name in LISTS.items()}
"""The same about texts."""

TEXT_MIX = QuestionMix(captions=1, open=2, choice=4, binary=8)
"""What is asked about a text: mostly what takes longest to learn, letters, and yes or no."""

FACTS_FILE, DONE_FILE = "facts.csv", "synthetic.json"

STARTED_FILE = "synthesizing.json"

FORMAT = 1

Progress = Callable[[int, int], Any]


def question_mix(config: SynthesisConfig) -> QuestionMix:
    """Returns how many questions of each kind are asked about a clip."""
    return QuestionMix(config.captions, config.open, config.choice, config.binary)


def draw_clip_facts(config: SynthesisConfig, number: int, text: bool = False) -> tuple[Facts, Any]:
    """Returns the facts of a clip, and the chance that goes on from there."""
    rng = np.random.default_rng([config.seed, int(config.held_out), int(text), number])
    return draw_facts(rng, config.held_out, config.timbre, _extra(config, text)), rng


def _extra(config: SynthesisConfig, text: bool) -> tuple[str, ...]:
    """Returns the timbres beside the usual ones: words name the one too that is never heard."""
    return config.extra or (NEW_TIMBRE,) if text else config.extra


def make_clip(
    config: SynthesisConfig, number: int
) -> tuple[Facts, np.ndarray, list[SyntheticQuestion]]:
    """Returns facts, samples (int16) and questions of a clip by its number."""
    facts, rng = draw_clip_facts(config, number)
    sound, words = rng.spawn(2)
    asked = make_questions(words, facts, question_mix(config), config.extra)
    return facts, compose(facts, config.seconds, sound), asked


def make_text(config: SynthesisConfig, number: int) -> tuple[Facts, str, list[SyntheticQuestion]]:
    """Returns facts, a telling of all of them, and questions, of a clip that is not rendered."""
    facts, rng = draw_clip_facts(config, number, text=True)
    # What is not asked about clips is not asked about texts either.
    mix = QuestionMix(
        *(told if heard else 0 for told, heard in zip(TEXT_MIX, question_mix(config), strict=True))
    )
    asked = make_questions(rng, facts, mix, _extra(config, text=True))
    return facts, describe(rng, facts), asked


def _write_clip(
    work: tuple[SynthesisConfig, Path, int],
) -> tuple[str, Facts, list[SyntheticQuestion]]:
    import soundfile

    config, folder, number = work
    facts, samples, asked = make_clip(config, number)
    name = f"{number:06d}.wav"
    try:
        soundfile.write(folder / name, samples, SAMPLE_RATE, subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        problem = f"cannot be written ({error}); make room, or name another place"
        raise InputError(f"{folder / name}: {problem}") from None
    return name, facts, asked


def synthesize(
    output: str | Path, config: SynthesisConfig, progress: Progress = lambda done, total: None
) -> Path:
    """Writes a folder of clips and lists; what is there already is not made again.

    Raises:
        InputError: the folder holds something else, cannot be written to, or is being written.
    """
    _check_config(config)
    output = make_folder(output)
    with folder_lock(output):
        _fill(output, config, progress)
    return output


def _fill(output: Path, config: SynthesisConfig, progress: Progress) -> None:
    """Writes what is not there yet; see `synthesize`."""
    own = {name: value for name, value in vars(config).items() if name != "workers"}
    page = {"format": FORMAT, **own, "extra": list(config.extra)}
    for name in (DONE_FILE, STARTED_FILE):
        if exists(output / name) and read_json_object(output / name, "name another") != page:
            raise InputError(
                f"{output}: holds clips that were made otherwise; name another folder, or remove it"
            )
    if exists(output / DONE_FILE):
        return
    for left_over in output.glob("*.partial"):
        remove(left_over)
    ours = {
        LOCK_FILE,
        CLIPS,
        TEXTS,
        FACTS_FILE,
        STARTED_FILE,
        *LISTS.values(),
        *TEXT_LISTS.values(),
    }
    if {path.name for path in output.iterdir()} - ours:
        raise InputError(f"{output}: holds other files; name a new or empty folder")
    write_json(output / STARTED_FILE, page)
    records, table = [], [("file_name", *FACTS)]
    for name, facts, asked in _clips(output, config, progress):
        table.append((name, *facts))
        records += [_record(name, question) for question in asked]
    _write_lists(output, LISTS, records)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(table)
    write_text(output / FACTS_FILE, lines.getvalue())
    if config.texts:
        _write_texts(output, config)
    write_json(output / DONE_FILE, page)
    remove(output / STARTED_FILE)


def _check_config(config: SynthesisConfig) -> None:
    from tinymu_jax.data.synthetic.instruments import INSTRUMENTS

    questions = sum(question_mix(config))
    rules = [
        (config.clips >= 1, "clips: give 1 or more"),
        (config.texts >= 0 and config.seed >= 0 and config.workers >= 0, "give no negative number"),
        (1 <= config.seconds <= 60, "seconds: give 1 to 60"),
        (
            min(question_mix(config)) >= 0 and questions >= 1,
            "ask something: give a number of questions",
        ),
        (max(config.open, config.binary) <= len(FACTS), f"there are {len(FACTS)} facts to ask for"),
        (
            all(t in INSTRUMENTS for t in (config.timbre, *config.extra) if t is not None),
            f"timbre {config.timbre!r}, extra {config.extra}: use some of {', '.join(INSTRUMENTS)}",
        ),
        (
            len({*config.extra, *FACTS["timbre"]}) == len(config.extra) + len(FACTS["timbre"]),
            f"extra {config.extra}: name timbres beside the usual ones, each once",
        ),
        (
            config.timbre is None or config.timbre in (*FACTS["timbre"], *config.extra),
            f"timbre {config.timbre!r} is not among the usual ones; name it in extra too",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise InputError(message)


def _clips(
    output: Path, config: SynthesisConfig, progress: Progress
) -> Iterator[tuple[str, Facts, list[SyntheticQuestion]]]:
    """Writes all clips, in processes where there are many; yields what is asked about each."""
    folder = make_folder(output / CLIPS)
    work = [(config, folder, number) for number in range(config.clips)]
    workers = config.workers or os.cpu_count() or 1
    if config.clips < 200 or workers == 1:
        for done, item in enumerate(work, 1):
            yield _write_clip(item)
            progress(done, config.clips)
        return
    with worker_pool(workers) as pool:
        for done, made in enumerate(pool.map(_write_clip, work, chunksize=32), 1):
            yield made
            progress(done, config.clips)


def _record(name: str, asked: SyntheticQuestion) -> dict[str, Any]:
    """Returns MusicSkills' five keys, and two more that its loader does not read."""
    return {
        "file_name": name,
        "input_text": asked.prompt,
        "target_text": asked.answer,
        "dataset": "Synthetic",
        "task": asked.task,
        "facts": asked.facts,
        "options": asked.options,
    }


def _write_lists(output: Path, lists: Mapping[str, str], records: Sequence[dict[str, Any]]) -> None:
    """Writes the list of each format that there are questions of."""
    for task, name in lists.items():
        own = [json.dumps(record) for record in records if record["task"] == task]
        if own:
            write_text(output / name, "[\n" + ",\n".join(own) + "\n]\n")


def _write_texts(output: Path, config: SynthesisConfig) -> None:
    """Writes clips that are told in words, and lists of questions about them."""
    folder, records = make_folder(output / TEXTS), []
    for number in range(config.texts):
        _, text, asked = make_text(config, number)
        name = f"{number:06d}.txt"
        write_text(folder / name, text)
        records += [_record(name, question) for question in asked]
    _write_lists(output, TEXT_LISTS, records)
