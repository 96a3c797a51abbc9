"""Writes a folder of clips with known facts, from free recordings and soundfonts.

clips/000000.flac     a clip: 16 kHz, mono, 16 bits
labels.csv            file, kind, the labels that hold, and those that are unknown
annotations.csv       the labels as tags, from which `tinymu data build` makes questions
texts/000000.txt      description of a clip that is not rendered
texts.csv             its tags, as in annotations.csv
parts/0000.jsonl      the rows of finished clips, by which an interrupted run goes on
material.json         recordings that can be read, with the pitch of each note
real_music.json       the settings

A clip depends only on the settings, the material, the seed and its number.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tinymu_jax.data.config import RenderConfig
from tinymu_jax.data.real_music.captions import TAG_COLUMNS, describe, tags_of, write_caption
from tinymu_jax.data.real_music.clips import LABELS, draw_clip, draw_labels
from tinymu_jax.data.real_music.material import (
    INDEX,
    Material,
    Recording,
    inspect,
    read_index,
    read_material,
)
from tinymu_jax.data.real_music.render import Renderer, Soundfont
from tinymu_jax.data.synthetic.generate import write_clip
from tinymu_jax.errors import InputError
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import (
    LOCK_FILE,
    exists,
    folder_lock,
    make_folder,
    read_json_object,
    read_text,
    write_json,
    write_text,
)
from tinymu_jax.utils.process_pool import worker_pool
from tinymu_jax.utils.progress import Progress, no_progress

CLIPS, PARTS, TEXTS = "clips", "parts", "texts"
LABELS_FILE, ANNOTATIONS_FILE, TEXTS_FILE = "labels.csv", "annotations.csv", "texts.csv"
MATERIAL_FILE, SETTINGS_FILE = "material.json", "real_music.json"
COLUMNS = ("file", "caption", *TAG_COLUMNS)
"""Columns of annotations.csv and texts.csv."""
RENDERED = ("solo", "ensemble", "drums")
"""Kinds of clips of which all labels are known."""
PART_CLIPS = 100
"""Number of clips of a part, which is rendered by one process."""
SEPARATOR = ";"


def render_clips(
    output: str | Path, config: RenderConfig, progress: Progress = no_progress
) -> Path:
    """Write a folder of clips and their labels, or go on with one; return the folder.

    Raises:
        InputError: a setting is invalid, the material or a soundfont cannot be read, or the folder
            holds other files or clips of other settings.
    """
    for holds, rule in config.rules():
        if not holds:
            raise InputError(rule)
    recordings = [] if config.material is None else read_index(config.material)
    for path in config.soundfonts:
        Soundfont(path)
    output = make_folder(output)
    with folder_lock(output):
        _check_folder(output, config)
        if recordings:
            _inspect_all(output / MATERIAL_FILE, recordings, config.workers)
        make_folder(output / CLIPS)
        parts = make_folder(output / PARTS)
        numbers = range(-(-config.clips // PART_CLIPS))
        todo = [n for n in numbers if not exists(parts / f"{n:04d}.jsonl")]
        done = len(numbers) - len(todo)
        for finished, _ in enumerate(_render_parts(output, config, todo), done + 1):
            progress(min(finished * PART_CLIPS, config.clips), config.clips)
        _write_tables(output, [parts / f"{n:04d}.jsonl" for n in numbers])
        if config.texts:
            _write_texts(output, config)
    return output


def _check_folder(output: Path, config: RenderConfig) -> None:
    """Raise `InputError` if the folder holds other files, or clips of other settings."""
    settings = {name: value for name, value in config.to_dict().items() if name != "workers"}
    settings["soundfonts"] = [str(Path(path).resolve()) for path in config.soundfonts]
    if config.material is not None:
        settings["material"] = str(Path(config.material).resolve())
        settings["index"] = fingerprint.of_file(Path(config.material) / INDEX)
    path = output / SETTINGS_FILE
    if not exists(path):
        others = sorted({entry.name for entry in output.iterdir()} - {LOCK_FILE})
        if others:
            problem = f"holds other files ({others[0]}); name a new or empty folder"
            raise InputError(f"{output}: {problem}")
        write_json(path, settings)
        return
    before = read_json_object(path, "name another folder")
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        raise InputError(
            f"{output}: holds clips of other settings ({', '.join(changed)}); name another folder, "
            "or remove it"
        )


def _inspect_all(path: Path, recordings: Sequence[Recording], workers: int) -> None:
    """Write the pitches of the recordings that can be read, once; name those that cannot."""
    if exists(path):
        return
    with worker_pool(workers or os.cpu_count() or 1) as pool:
        results = list(pool.map(inspect, recordings, chunksize=32))
    rows = list(zip(recordings, results, strict=True))
    unreadable = [one.file for one, (readable, _) in rows if not readable]
    if unreadable:
        print(
            f"note: {len(unreadable)} of {len(rows)} recordings cannot be read, and are not used: "
            f"{', '.join(unreadable[:3])}{', ...' if len(unreadable) > 3 else ''}",
            file=sys.stderr,
        )
    write_json(path, {one.file: pitch for one, (readable, pitch) in rows if readable})


def _render_parts(output: Path, config: RenderConfig, numbers: Sequence[int]) -> Iterator[None]:
    work = [(output, config, number) for number in numbers]
    workers = min(config.workers or os.cpu_count() or 1, max(1, len(work)))
    if workers == 1:
        yield from map(_render_part, work)
        _open.cache_clear()
        return
    with worker_pool(workers) as pool:
        yield from pool.map(_render_part, work)


@lru_cache(maxsize=1)
def _open(output: Path, config: RenderConfig) -> tuple[Renderer, Material | None]:
    """Return a process's renderer and recordings, which take seconds to load."""
    material = None
    if config.material is not None:
        pitches = read_json_object(output / MATERIAL_FILE, "run again")
        material = read_material(config.material, pitches, config.validation)
    return Renderer(material, config.soundfonts), material


def _render_part(work: tuple[Path, RenderConfig, int]) -> None:
    """Render the clips of a part, and then write its rows, by which it counts as finished."""
    output, config, number = work
    renderer, material = _open(output, config)
    rows = []
    for clip_number in range(number * PART_CLIPS, min((number + 1) * PART_CLIPS, config.clips)):
        rng = np.random.default_rng([config.seed, int(config.validation), clip_number])
        clip = draw_clip(renderer, material, rng, config.seconds)
        name = f"{clip_number:06d}.flac"
        write_clip(output / CLIPS / name, clip.samples)
        present, unknown = ([x for x in LABELS if x in of] for of in (clip.present, clip.unknown))
        rows.append({"file": name, "kind": clip.kind, "labels": present, "unknown": unknown})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(output / PARTS / f"{number:04d}.jsonl", lines)


def _write_tables(output: Path, parts: Sequence[Path]) -> None:
    """Write the tables of labels and of tags of all clips."""
    clips = [json.loads(line) for part in parts for line in read_text(part).splitlines()]
    labels = [
        (
            clip["file"],
            clip["kind"],
            SEPARATOR.join(clip["labels"]),
            SEPARATOR.join(clip["unknown"]),
        )
        for clip in clips
    ]
    _write_csv(output / LABELS_FILE, [("file", "kind", "labels", "unknown"), *labels])
    # A clip of which nothing is known gives no questions.
    rendered = [(n, clip) for n, clip in enumerate(clips) if clip["kind"] in RENDERED]
    rows = [_annotate(c["file"], c["labels"], np.random.default_rng(n)) for n, c in rendered]
    _write_csv(output / ANNOTATIONS_FILE, [COLUMNS, *rows])


def _annotate(file: str, labels: Collection[str], rng: np.random.Generator) -> list[str]:
    """Return a row of `COLUMNS` for a clip."""
    tags = tags_of(labels)
    cells = [SEPARATOR.join(tags[column]) for column in TAG_COLUMNS]
    return [file, write_caption(labels, rng), *cells]


def _write_texts(output: Path, config: RenderConfig) -> None:
    """Write descriptions of clips that are not rendered, and the table of their tags."""
    folder, rows = make_folder(output / TEXTS), []
    for number in range(config.texts):
        # Trailing zeros of a seed do not count, so that clips and texts must differ before them.
        rng = np.random.default_rng([config.seed, 2 + int(config.validation), number])
        labels = draw_labels(rng, config.seconds)
        name = f"{number:06d}.txt"
        write_text(folder / name, describe(tags_of(labels), rng))
        rows.append(_annotate(name, labels, rng))
    _write_csv(output / TEXTS_FILE, [COLUMNS, *rows])


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    write_text(path, lines.getvalue())
