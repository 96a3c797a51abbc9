"""Writes a folder of synthetic clips, and lists of questions about them in MusicSkills' format.

clips/000000.wav      a clip: 16 kHz, mono, 16 bits
captioning.json       list of questions; also qa.json, mcq.json, binary.json (one per format)
facts.csv             file name and facts of each clip
texts/000000.txt      description of a clip that is not rendered
texts_mcq.json, ...   lists of questions about the texts, for text-only training of the decoder

A clip depends only on the settings, the seed and its number, and is identical on every machine.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.question_formats import CAPTIONING, MCQ, QA, YES_NO
from tinymu_jax.data.synthetic.compose import compose
from tinymu_jax.data.synthetic.facts import FACTS, NEW_TIMBRE, Facts, draw_facts
from tinymu_jax.data.synthetic.instruments import INSTRUMENTS
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
from tinymu_jax.utils.progress import Progress, no_progress

CLIPS, TEXTS = "clips", "texts"
LISTS = {CAPTIONING: "captioning.json", QA: "qa.json", MCQ: "mcq.json", YES_NO: "binary.json"}
"""MusicSkills' task name -> file name of the list of questions about clips."""
TEXT_LISTS = {task: f"texts_{name}" for task, name in LISTS.items()}
"""MusicSkills' task name -> file name of the list of questions about text descriptions."""
TEXT_MIX = QuestionMix(captions=1, open=2, choice=4, binary=8)
"""Numbers of questions about a text; most are in the formats that take longest to learn."""
FACTS_FILE, DONE_FILE = "facts.csv", "synthetic.json"
STARTED_FILE = "synthesizing.json"
FORMAT = 1


def question_mix(config: SynthesisConfig) -> QuestionMix:
    """Return the config's numbers of questions per clip, by format."""
    return QuestionMix(config.captions, config.open, config.choice, config.binary)


def draw_clip_facts(
    config: SynthesisConfig, number: int, text: bool = False
) -> tuple[Facts, np.random.Generator]:
    """Draw the facts of clip `number`, or of text `number` if `text`.

    Also returns the random generator that draws the rest of this clip or text.
    """
    rng = np.random.default_rng([config.seed, int(config.held_out), int(text), number])
    return draw_facts(rng, config.held_out, config.timbre, _extra(config, text)), rng


def _extra(config: SynthesisConfig, text: bool) -> tuple[str, ...]:
    """Return the timbres beyond `FACTS`: `config.extra`, or for texts `NEW_TIMBRE` if empty."""
    return config.extra or (NEW_TIMBRE,) if text else config.extra


def make_clip(
    config: SynthesisConfig, number: int
) -> tuple[Facts, np.ndarray, list[SyntheticQuestion]]:
    """Render clip `number`; return the clip's facts, samples (int16, 16 kHz) and questions."""
    facts, rng = draw_clip_facts(config, number)
    sound, words = rng.spawn(2)
    questions = make_questions(words, facts, question_mix(config), config.extra)
    return facts, compose(facts, config.seconds, sound), questions


def make_text(config: SynthesisConfig, number: int) -> tuple[Facts, str, list[SyntheticQuestion]]:
    """Write the text description with index `number`; return its facts, text and questions."""
    facts, rng = draw_clip_facts(config, number, text=True)
    # Formats with no questions per clip have none per text.
    mix = QuestionMix(
        *(n if on else 0 for n, on in zip(TEXT_MIX, question_mix(config), strict=True))
    )
    questions = make_questions(rng, facts, mix, _extra(config, text=True))
    return facts, describe(rng, facts), questions


def synthesize(
    output: str | Path, config: SynthesisConfig, progress: Progress = no_progress
) -> Path:
    """Write a folder of clips and question lists unless it is complete; return the folder.

    Raises:
        InputError: a setting is invalid; the folder holds other files or clips of other settings,
            cannot be written to, or is being written by another process.
    """
    _check_config(config)
    output = make_folder(output)
    with folder_lock(output):
        manifest = {"format": FORMAT, **vars(config), "extra": list(config.extra)}
        del manifest["workers"]
        if not _check_folder(output, manifest):
            write_json(output / STARTED_FILE, manifest)
            _write_clips(output, config, progress)
            if config.texts:
                _write_texts(output, config)
            write_json(output / DONE_FILE, manifest)
            remove(output / STARTED_FILE)
    return output


def _check_config(config: SynthesisConfig) -> None:
    """Raise `InputError` if a config field is out of range or names an unknown timbre."""
    mix, usual, extra = question_mix(config), FACTS["timbre"], config.extra
    timbres = extra if config.timbre is None else (config.timbre, *extra)
    rules = [
        (config.clips >= 1, "clips: give 1 or more"),
        (config.texts >= 0 and config.seed >= 0 and config.workers >= 0, "give no negative number"),
        (1 <= config.seconds <= 60, "seconds: give 1 to 60"),
        (min(mix) >= 0 and sum(mix) >= 1, "ask something: give a number of questions"),
        (max(mix.open, mix.binary) <= len(FACTS), f"there are {len(FACTS)} facts to ask for"),
        (
            set(timbres) <= set(INSTRUMENTS),
            f"timbre {config.timbre!r}, extra {extra}: use some of {', '.join(INSTRUMENTS)}",
        ),
        (
            len({*extra, *usual}) == len(extra) + len(usual),
            f"extra {extra}: name timbres beside the usual ones, each once",
        ),
        (
            config.timbre is None or config.timbre in (*usual, *extra),
            f"timbre {config.timbre!r} is not among the usual ones; name it in extra too",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise InputError(message)


def _check_folder(output: Path, manifest: dict[str, Any]) -> bool:
    """Return whether the folder is complete; if not, remove partial files or raise `InputError`."""
    for name in (DONE_FILE, STARTED_FILE):
        if exists(output / name) and read_json_object(output / name, "name another") != manifest:
            raise InputError(
                f"{output}: holds clips of other settings; name another folder, or remove it"
            )
    if exists(output / DONE_FILE):
        return True
    for partial in output.glob("*.partial"):
        remove(partial)
    expected = {LOCK_FILE, CLIPS, TEXTS, FACTS_FILE, STARTED_FILE}
    expected |= {*LISTS.values(), *TEXT_LISTS.values()}
    if {path.name for path in output.iterdir()} - expected:
        raise InputError(f"{output}: holds other files; name a new or empty folder")
    return False


ClipSummary = tuple[str, Facts, list[SyntheticQuestion]]
"""File name, facts and questions of a clip."""


def _write_clips(output: Path, config: SynthesisConfig, progress: Progress) -> None:
    """Write all clips, the lists of questions about the clips, and the table of facts."""
    records, table = [], [("file_name", *FACTS)]
    for name, facts, questions in _render_clips(output, config, progress):
        table.append((name, *facts))
        records += [_record(name, question) for question in questions]
    _write_lists(output, LISTS, records)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(table)
    write_text(output / FACTS_FILE, lines.getvalue())


def _render_clips(
    output: Path, config: SynthesisConfig, progress: Progress
) -> Iterator[ClipSummary]:
    """Render and write all clips, 200 or more in several processes; yield their summaries."""
    folder = make_folder(output / CLIPS)
    work = [(config, folder, number) for number in range(config.clips)]
    workers = config.workers or os.cpu_count() or 1
    if config.clips < 200 or workers == 1:
        for done, item in enumerate(work, 1):
            yield _render_clip(item)
            progress(done, config.clips)
        return
    with worker_pool(workers) as pool:
        for done, clip in enumerate(pool.map(_render_clip, work, chunksize=32), 1):
            yield clip
            progress(done, config.clips)


def _render_clip(work: tuple[SynthesisConfig, Path, int]) -> ClipSummary:
    config, folder, number = work
    facts, samples, questions = make_clip(config, number)
    name = f"{number:06d}.wav"
    write_clip(folder / name, samples)
    return name, facts, questions


def write_clip(path: Path, samples: np.ndarray) -> None:
    """Write samples at 16 kHz, int16 or float32 in [-1, 1], to a file of 16 bits, wav or flac.

    Raises:
        InputError: the file cannot be written.
    """
    import soundfile

    try:
        soundfile.write(os.fsencode(path), samples, SAMPLE_RATE, "PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        problem = f"cannot be written ({error}); make room, or name another place"
        raise InputError(f"{path}: {problem}") from None


def _write_texts(output: Path, config: SynthesisConfig) -> None:
    """Write the texts that describe clips, and the lists of questions about the texts."""
    folder, records = make_folder(output / TEXTS), []
    for number in range(config.texts):
        _, text, questions = make_text(config, number)
        name = f"{number:06d}.txt"
        write_text(folder / name, text)
        records += [_record(name, question) for question in questions]
    _write_lists(output, TEXT_LISTS, records)


def _record(name: str, question: SyntheticQuestion) -> dict[str, Any]:
    """Return a MusicSkills record of a question; `facts` and `options` are added for evaluation."""
    return {
        "file_name": name,
        "input_text": question.prompt,
        "target_text": question.answer,
        "dataset": "Synthetic",
        "task": question.task,
        "facts": question.facts,
        "options": question.options,
    }


def _write_lists(output: Path, lists: Mapping[str, str], records: Sequence[dict[str, Any]]) -> None:
    """Write each task's records to its file in `output`; skip tasks without records.

    `lists` maps a task to the name of its file.
    """
    for task, name in lists.items():
        lines = [json.dumps(record) for record in records if record["task"] == task]
        if lines:
            write_text(output / name, "[\n" + ",\n".join(lines) + "\n]\n")
