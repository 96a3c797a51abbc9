"""From lists of recordings to a prepared data set: in parallel, and on from where it stopped."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of
from tinymu_jax.data.config import PrepareConfig
from tinymu_jax.data.dataset import BAD_FILE, DATASET_FILE, FORMAT, INDEX_FILE
from tinymu_jax.data.musicskills import ClipQuestions, list_recordings, read_lists
from tinymu_jax.data.shards import Progress, ProgressCounter, Shard, encode_shards, make_shards
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import (
    LOCK_FILE,
    exists,
    folder_lock,
    make_folder,
    read_json_object,
    remove,
    write_atomic,
    write_json,
    write_text,
)

STARTED_FILE = "preparing.json"
"""What a data set that is being made will hold; another one is not mixed into it."""


def prepare(
    lists: Sequence[str | Path],
    folders: Sequence[str | Path],
    output: str | Path,
    tokenizer: str | None,
    config: PrepareConfig,
    encoder: Checkpoint | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Prepares a data set, or goes on with one; returns its page (`dataset.json`).

    Args:
        lists: json files of MusicSkills records; none of them: the recordings alone.
        folders: where their recordings are; one for all, or one for each list.
        output: folder of the data set.
        tokenizer: the text of the decoder's `tokenizer.json`; None without lists.
        config: how.
        encoder: whose vectors are stored, where `config.features.kind` is embeddings.
        progress: told how far it is.

    Raises:
        InputError: as `read_lists`; the folder holds another data set, or another process writes
            it; too many recordings are unusable (they are listed in `bad.jsonl`).
    """
    if (config.features.kind == "embeddings") != (encoder is not None):
        raise InputError(
            "store=embeddings goes with a checkpoint whose encoder makes them (--checkpoint), and "
            "only with that"
        )
    found = read_lists(lists, folders) if lists else list_recordings(folders)
    output = make_folder(output)
    page = {
        "format": FORMAT,
        "features": config.features.to_dict(),
        "clips_per_shard": config.clips_per_shard,
        "tokenizer": None if tokenizer is None else fingerprint.of_text(tokenizer),
        "encoder": None if encoder is None else fingerprint.of_weights(encoder_of(encoder).params),
        "lists": [{"name": str(p), "sha256": fingerprint.of_file(p)} for p in lists],
        "folders": [str(folder) for folder in folders],
        "clips": len(found.clips),
        "repeated_questions": found.repeated,
    }
    with folder_lock(output):
        _check_same(output, page)
        return _make(output, page, found.clips, tokenizer, config, encoder, progress)


def _make(
    output: Path,
    page: dict[str, Any],
    clips: Sequence[ClipQuestions],
    tokenizer: str | None,
    config: PrepareConfig,
    encoder: Checkpoint | None,
    progress: Progress,
) -> dict[str, Any]:
    """Makes the shards that are not there yet, then the index and the page."""
    for left_over in output.glob("*.partial"):
        remove(left_over)
    shards = _shards(output, clips, config, tokenizer)
    pages = [_read_page(shard.path) for shard in shards]
    done = sum(len(s.clips) for s, made in zip(shards, pages, strict=True) if made)
    missing = [i for i, made in enumerate(pages) if made is None]
    work = [shards[i] for i in missing]
    count = ProgressCounter(done, len(clips), progress)
    if encoder:
        made = encode_shards(work, encoder, count)
    else:
        made = make_shards(work, config.workers, count)
    # Closed here, and not by the collector in the middle of something else: it ends processes.
    with closing(made):
        for number, shard_page in made:
            pages[missing[number]] = shard_page
            _check_bad(pages, len(clips), config.max_bad_fraction, output)
    _check_bad(pages, len(clips), config.max_bad_fraction, output)
    return _finish(output, page, pages)


def _check_same(output: Path, page: dict[str, Any]) -> None:
    """Notes what is being made; refuses to go on with something else.

    Raises:
        InputError: the folder holds a data set made otherwise; the message names what differs.
    """
    started = output / STARTED_FILE
    if exists(started):
        before = read_json_object(started, "name an empty folder")
        differing = sorted(key for key in {*before, *page} if before.get(key) != page.get(key))
        if differing:
            raise InputError(
                f"{output}: holds a data set with other {', '.join(differing)}; name another "
                "folder, or remove it"
            )
        return
    others = sorted({path.name for path in output.iterdir()} - {LOCK_FILE})
    if others:
        raise InputError(f"{output}: holds other files ({others[0]}); name a new or empty folder")
    write_json(started, page)


def _shards(
    output: Path, clips: Sequence[ClipQuestions], config: PrepareConfig, tokenizer: str | None
) -> list[Shard]:
    size = config.clips_per_shard
    return [
        Shard(
            output / f"shard-{number:05d}.array_record",
            clips[start : start + size],
            config.features,
            tokenizer,
        )
        for number, start in enumerate(range(0, len(clips), size))
    ]


def _read_page(path: Path) -> dict[str, Any] | None:
    """Returns the page of a shard that is whole, else None."""
    beside = path.with_suffix(".json")
    if not (exists(path) and exists(beside)):
        return None
    page = read_json_object(beside, f"remove it and {path.name}")
    return page if page.get("bytes") == path.stat().st_size else None


def _check_bad(
    pages: Sequence[dict[str, Any] | None], clips: int, max_bad: float, output: Path
) -> None:
    """Lists unusable recordings; stops when they are too many.

    Raises:
        InputError: they are.
    """
    bad = [fault for page in pages if page for fault in page["bad"]]
    lines = "".join(json.dumps(fault, ensure_ascii=False) + "\n" for fault in bad)
    write_text(output / BAD_FILE, lines)
    if len(bad) > max_bad * clips:
        raise InputError(
            f"{len(bad)} of {clips} recordings cannot be used, more than {100 * max_bad:g} %; the "
            f"first: {bad[0]['reason']} (all of them: {output / BAD_FILE}). Repair them, or allow "
            "more with --max-bad-fraction"
        )


def _finish(output: Path, page: dict[str, Any], pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Writes the index and, last, the page that makes the data set whole."""
    counts = [len(questions) for part in pages for questions in part["prompts"]]
    prompt, answer = (
        np.array([n for part in pages for own in part[name] for n in own], np.int32)
        for name in ("prompts", "answers")
    )
    index = {
        "columns": np.array([n for part in pages for n in part["columns"]], np.int32),
        "first": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "prompt": prompt,
        "answer": answer,
    }

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **index)

    write_atomic(output / INDEX_FILE, write)
    limit = TinyMUConfig().max_text_tokens
    page = page | {
        "records": len(counts),
        "questions": len(prompt),
        "bad": sum(len(part["bad"]) for part in pages),
        "cut_prompts": int((prompt > limit).sum()),
        "cut_answers": int((answer >= limit).sum()),
        "shards": [
            {"name": part["name"], "bytes": part["bytes"], "records": len(part["columns"])}
            for part in pages
        ],
    }
    write_json(output / DATASET_FILE, page)
    return page
