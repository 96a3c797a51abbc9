"""Prepares data sets from question lists and recordings, in parallel and resumable."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tinymu_jax.audio.load import check_max_seconds
from tinymu_jax.checkpoints.checkpoint import Checkpoint, encoder_of
from tinymu_jax.data.config import FeatureConfig, PrepareConfig
from tinymu_jax.data.dataset import BAD_FILE, DATASET_FILE, FORMAT, INDEX_FILE
from tinymu_jax.data.musicskills import ClipQuestions, list_recordings, read_lists
from tinymu_jax.data.shards import Shard, encode_shards, make_shards
from tinymu_jax.data.unusable import check_bad_fraction, write_bad_list
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import (
    LOCK_FILE,
    check_folder,
    check_library_path,
    exists,
    folder_lock,
    new_folder,
    read_json_object,
    remove,
    write_atomic,
    write_json,
)
from tinymu_jax.utils.progress import Progress, no_progress

STARTED_FILE = "preparing.json"
"""File that records a data set's settings and inputs; a rerun with other inputs is refused."""
Manifest = dict[str, Any]


def prepare(
    lists: Sequence[str | Path],
    folders: Sequence[str | Path],
    output: str | Path,
    tokenizer: str | None,
    config: PrepareConfig,
    encoder: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> Manifest:
    """Prepare a data set, or continue an interrupted one; return the manifest (dataset.json).

    Args:
        lists: JSON files of MusicSkills records; empty to prepare recordings without questions.
        folders: folders of the recordings: one for all lists, or one per list.
        output: folder of the data set.
        tokenizer: contents of the decoder's `tokenizer.json`; None if there is no text to encode.
        config: settings of the preparation.
        encoder: checkpoint of the encoder, if `config.features.kind` is embeddings; else None.
        progress: called with the number of clips done and the number of all clips.

    Raises:
        InputError: lists or folders are invalid; the output folder holds another data set, or
            another process writes to it; too many recordings are unusable (see `bad.jsonl`).
    """
    check_encoder(config.features, encoder)
    check_max_seconds(config.features.max_seconds)
    check_library_path(output)
    hashes = [{"name": str(path), "sha256": fingerprint.of_file(path)} for path in lists]
    source = read_lists(lists, folders) if lists else list_recordings(folders)
    check_folder(output)
    inputs = {
        "format": FORMAT,
        "features": config.features.to_dict(),
        "clips_per_shard": config.clips_per_shard,
        "tokenizer": None if tokenizer is None else fingerprint.of_text(tokenizer),
        "encoder": None if encoder is None else fingerprint.of_weights(encoder_of(encoder).params),
        "lists": hashes,
        "folders": [str(folder) for folder in folders],
        "clips": len(source.clips),
        "repeated_questions": source.repeated,
    }
    with new_folder(output) as output, folder_lock(output):
        _check_inputs(output, inputs)
        for partial in output.glob("*.partial"):
            remove(partial)
        shards = _split(output, source.clips, tokenizer, config)
        return _finish(output, inputs, _make_shards(output, shards, config, encoder, progress))


def check_encoder(features: FeatureConfig, encoder: object | None) -> None:
    """Raise `InputError` if embeddings lack an encoder, or if other features have one."""
    if (features.kind == "embeddings") != (encoder is not None):
        raise InputError(
            "embeddings need the checkpoint of their encoder (--checkpoint), and other features "
            "take none"
        )


def _split(
    output: Path, clips: Sequence[ClipQuestions], tokenizer: str | None, config: PrepareConfig
) -> list[Shard]:
    """Split clips into shards of `config.clips_per_shard` clips in the folder `output`."""
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


def _check_inputs(output: Path, inputs: Manifest) -> None:
    """Record the inputs and settings `inputs` of a preparation in the folder `output`.

    Raises `InputError` if the folder has a record of others, or files but no record.
    """
    started = output / STARTED_FILE
    if exists(started):
        earlier = read_json_object(started, "name an empty folder")
        keys = {*earlier, *inputs}
        differing = sorted(key for key in keys if earlier.get(key) != inputs.get(key))
        if differing:
            raise InputError(
                f"{output}: holds a data set with other {', '.join(differing)}; name another "
                "folder, or remove it"
            )
        return
    names = {path.name for path in output.iterdir() if path.suffix != ".partial"}
    others = sorted(names - {LOCK_FILE})
    if others:
        raise InputError(f"{output}: holds other files ({others[0]}); name a new or empty folder")
    write_json(started, inputs)


def _make_shards(
    output: Path,
    shards: Sequence[Shard],
    config: PrepareConfig,
    encoder: Checkpoint | None,
    progress: Progress,
) -> list[Manifest]:
    """Write the shards that are missing in the output folder; return all shards' manifests."""
    manifests = [_read_manifest(shard.path) for shard in shards]
    missing = [index for index, manifest in enumerate(manifests) if manifest is None]
    total = sum(len(shard.clips) for shard in shards)
    done = total - sum(len(shards[index].clips) for index in missing)

    def report_done(more: int) -> None:
        progress(done + more, total)

    report_done(0)
    work = [shards[index] for index in missing]
    if encoder:
        finished = encode_shards(work, encoder, report_done)
    else:
        finished = make_shards(work, config.workers, report_done)
    # Closing the generator ends its processes now, not when it is garbage-collected.
    with closing(finished):
        for number, manifest in finished:
            manifests[missing[number]] = manifest
            _check_bad(manifests, total, config.max_bad_fraction, output)
    _check_bad(manifests, total, config.max_bad_fraction, output)
    return manifests


def _read_manifest(path: Path) -> Manifest | None:
    """Return the manifest of the shard at a path, or None if the shard is not complete."""
    manifest_path = path.with_suffix(".json")
    if not (exists(path) and exists(manifest_path)):
        return None
    manifest = read_json_object(manifest_path, f"remove it and {path.name}")
    return manifest if manifest.get("bytes") == path.stat().st_size else None


def _check_bad(
    manifests: Sequence[Manifest | None], total: int, max_fraction: float, output: Path
) -> None:
    """Write bad.jsonl; raise `InputError` if it lists more than `max_fraction` of all clips."""
    bad = [fault for manifest in manifests if manifest for fault in manifest["bad"]]
    write_bad_list(output / BAD_FILE, bad)
    check_bad_fraction(bad, total, max_fraction, output / BAD_FILE)


def _finish(output: Path, inputs: Manifest, shards: Sequence[Manifest]) -> Manifest:
    """Write the index and, last, the manifest of the data set; return the manifest."""
    counts = [len(lengths) for shard in shards for lengths in shard["prompts"]]
    prompt, answer = (
        np.array([n for shard in shards for lengths in shard[key] for n in lengths], np.int32)
        for key in ("prompts", "answers")
    )
    index = {
        "columns": np.array([n for shard in shards for n in shard["columns"]], np.int32),
        "first": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "prompt": prompt,
        "answer": answer,
    }

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **index)

    write_atomic(output / INDEX_FILE, write)
    limit = TinyMUConfig().max_text_tokens
    manifest = inputs | {
        "records": len(counts),
        "questions": len(prompt),
        "bad": sum(len(shard["bad"]) for shard in shards),
        "cut_prompts": int((prompt > limit).sum()),
        "cut_answers": int((answer >= limit).sum()),
        "shards": [
            {"name": shard["name"], "bytes": shard["bytes"], "records": len(shard["columns"])}
            for shard in shards
        ],
    }
    write_json(output / DATASET_FILE, manifest)
    return manifest
