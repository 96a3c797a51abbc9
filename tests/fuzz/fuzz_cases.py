"""Sound files of every kind, the mutations that suit each, and the function that reads it."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_mutations as mutations
import numpy as np
import soundfile
import yaml
from helpers import noise, write_lists
from tokenizer_fixture import tokenizer_text

from tinymu_jax.audio.load import read_clip
from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
from tinymu_jax.checkpoints.pytorch.pickle_reader import read_torch_file
from tinymu_jax.checkpoints.safetensors import map_safetensors, read_safetensors
from tinymu_jax.data.annotations.audioset import read_ontology
from tinymu_jax.data.annotations.labelled import read_labelled_table
from tinymu_jax.data.annotations.registry import read_source
from tinymu_jax.data.dataset import Dataset
from tinymu_jax.data.label_batches import read_label_table
from tinymu_jax.data.musicskills import read_lists
from tinymu_jax.evaluation.captioning import read_list_captions
from tinymu_jax.evaluation.multiple_choice.questions import read_choices
from tinymu_jax.evaluation.question_lists import read_questions
from tinymu_jax.evaluation.report.build import read_report
from tinymu_jax.evaluation.zero_shot import read_label_texts
from tinymu_jax.inference.class_names import read_class_indices, read_labels
from tinymu_jax.inference.tagging import TagFile
from tinymu_jax.qa_builder.contamination.check import read_records
from tinymu_jax.qa_builder.contamination.test_sets import read_test_sets
from tinymu_jax.qa_builder.llm.cache import answer_log
from tinymu_jax.qa_builder.tags.vocabulary import read_vocabulary
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.training.config_files import load_config


class Seed(NamedTuple):
    """A sound file, in a folder with the files that are read with it."""

    file: str
    """Path below the corpus; its folder holds all files of the case."""
    mutate: mutations.Mutation
    read: Callable[[Path], Any]


def _tokens(path: Path) -> str:
    tokenizer = Tokenizer(read_tokenizer(path), None, str(path))
    return tokenizer.decode(tokenizer.encode("Which instrument! 音楽 12"))


def _open(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    if checkpoint.tokenizer is not None:
        Tokenizer(checkpoint.tokenizer, None, str(path)).encode("Which instrument!")


def _file(path: Path) -> None:
    """Read the checkpoint file to which a file belongs."""
    _open(path.with_name("model.pt"))


def _folder(path: Path) -> None:
    """Read the checkpoint folder to which a file belongs."""
    _open(path.parent)


def _lists(path: Path) -> None:
    read_lists([path], [path.parent])
    list(read_records([path]))
    read_list_captions(path, path.parent)
    read_questions([path], [path.parent])


def _test_set(name: str) -> Callable[[Path], Any]:
    return lambda path: read_test_sets(**{name: path})


def _source(name: str) -> Callable[[Path], Any]:
    return lambda path: read_source(name, path, path.with_name("ontology.json"))


def _dataset(path: Path) -> None:
    dataset = Dataset(path.parent)
    dataset[len(dataset) - 1]


def _choices(path: Path) -> Any:
    return read_choices(path, path.parent)


def _labelled(path: Path) -> None:
    read_labelled_table(path, path.parent)
    read_label_table(path)


BYTES, HEADER = mutations.mutate_bytes, mutations.mutate_header
JSON, YAML = mutations.mutate_json, mutations.mutate_yaml
LINES, TABLE = mutations.mutate_lines, mutations.mutate_table
TORCH, SAFETENSORS = mutations.mutate_torch, mutations.mutate_safetensors
KINDS: dict[str, tuple[int, list[Seed]]] = {
    ".pt (zip)": (
        2000,
        [
            Seed("tinymu/model.pt", TORCH, _file),
            Seed("pretraining/model.pt", TORCH, _file),
            Seed("values/model.pt", TORCH, read_torch_file),
            Seed("values/torch.pt", TORCH, read_torch_file),
        ],
    ),
    ".pt (before 1.6)": (300, [Seed("legacy/model.pt", mutations.mutate_pickle, _file)]),
    "safetensors": (
        1200,
        [
            Seed("plain/plain.safetensors", SAFETENSORS, read_safetensors),
            Seed("plain/mapped.safetensors", SAFETENSORS, map_safetensors),
            Seed("folder/model.safetensors", SAFETENSORS, _folder),
            Seed("decoder_folder/model.safetensors", SAFETENSORS, _folder),
        ],
    ),
    "yaml": (900, [Seed("beside/model.yaml", YAML, _file)]),
    "json beside .pt": (
        600,
        [
            Seed("beside/model.json", JSON, _file),
            Seed("pretraining_beside/model.json", JSON, _file),
        ],
    ),
    "config.json": (
        1200,
        [
            Seed("folder/config.json", JSON, _folder),
            Seed("decoder_folder/config.json", JSON, _folder),
            Seed("pretraining_folder/config.json", JSON, _folder),
        ],
    ),
    "tokenizer.json": (600, [Seed("tokenizer/tokenizer.json", JSON, _tokens)]),
    "config.py": (200, [Seed("configs/run.py", mutations.mutate_program, load_config)]),
    "json lists": (
        900,
        [
            Seed("lists/list.json", JSON, _lists),
            Seed("lists/ontology.json", JSON, read_ontology),
            Seed("lists/classes.json", JSON, read_labels),
            Seed("lists/report.json", JSON, read_report),
        ],
    ),
    "data set": (
        300,
        [Seed("data/dataset.json", JSON, _dataset), Seed("data/index.npz", BYTES, _dataset)],
    ),
    "csv, tsv": (
        1300,
        [
            Seed("tables/musiccaps.csv", TABLE, _source("musiccaps")),
            Seed("tables/song_describer.csv", TABLE, _test_set("song_describer")),
            Seed("tables/jamendo.tsv", TABLE, _source("jamendo")),
            Seed("tables/mine.csv", TABLE, _source("user_table")),
            Seed("tables/eval_segments.csv", TABLE, _source("audioset")),
            Seed("tables/eval_segments.csv", TABLE, _test_set("audioset_eval")),
            Seed("tables/gtzan.csv", TABLE, _test_set("gtzan")),
            Seed("fma/tracks.csv", TABLE, _source("fma")),
            Seed("mtt/annotations_final.csv", TABLE, _source("magnatagatune")),
            Seed("tables/labels.csv", TABLE, _labelled),
            Seed("tables/texts.csv", TABLE, lambda path: read_label_texts(["jazz", "rock"], path)),
            Seed("tables/classes.csv", TABLE, read_class_indices),
            Seed("tables/classes.txt", TABLE, read_labels),
            Seed("tables/vocabulary.csv", TABLE, read_vocabulary),
            Seed("choices/muchomusic.csv", TABLE, _choices),
            Seed("choices/muchomusic.csv", TABLE, _test_set("muchomusic")),
            Seed("tables/tags.csv", TABLE, TagFile),
        ],
    ),
    "jsonl": (
        500,
        [
            Seed("lines/choices.jsonl", LINES, _choices),
            Seed("lines/choices.jsonl", LINES, _test_set("muchomusic")),
            Seed("lines/answers.jsonl", LINES, lambda path: answer_log(path).read()),
            Seed("lines/tags.jsonl", LINES, TagFile),
        ],
    ),
    **{
        suffix: (300, [Seed(f"audio/sound.{suffix}", HEADER, read_clip)])
        for suffix in ("wav", "flac", "mp3", "m4a")
    },
    "ogg": (300, [Seed("audio/sound.ogg", mutations.mutate_ogg, read_clip)]),
}
"""Number of mutated inputs and the seeds, by kind of file."""


# --- the corpus ----------------------------------------------------------------------------------


def write_corpus(folder: Path, golden: Path) -> None:
    """Write the sound file of every seed, and what lies beside it."""
    for name in {Path(seed.file).parent for _, seeds in KINDS.values() for seed in seeds}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write_checkpoints(folder, golden)
    _write_audio(folder / "audio")
    _write_lists(folder)
    _write_tables(folder)


def _write_checkpoints(folder: Path, golden: Path) -> None:
    import torch

    from tinymu_jax.checkpoints.checkpoint import Checkpoint, save_checkpoint
    from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file
    from tinymu_jax.checkpoints.pytorch.smollm2 import write_published
    from tinymu_jax.checkpoints.safetensors import write_safetensors

    for name, source in (("tinymu", "tinymu_tiny"), ("pretraining", "matpac_ssl_mcl_tiny")):
        for copy in (name, "beside" if name == "tinymu" else f"{name}_beside"):
            shutil.copy(golden / f"{source}.pt", folder / copy / "model.pt")
            sidecar = source.replace("_mcl", "") + ".json"
            sizes = json.loads((golden / sidecar).read_text())
            sizes = (
                sizes
                if name == "tinymu"
                else {"encoder": sizes["encoder"], "predictor": {"num_heads": 4}}
            )
            (folder / copy / "model.json").write_text(json.dumps(sizes))
    content = read_torch_file(golden / "tinymu_tiny.pt")
    (folder / "beside" / "model.yaml").write_text(yaml.safe_dump(content["config"]))
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer_text())
    model = open_checkpoint(folder / "tinymu" / "model.pt")._replace(tokenizer=tokenizer_text())
    save_checkpoint(folder / "folder", model)
    decoder = Checkpoint(model.config.decoder, model.params["decoder"], tokenizer_text())
    write_published(folder / "decoder_folder", decoder)
    save_checkpoint(
        folder / "pretraining_folder", open_checkpoint(folder / "pretraining" / "model.pt")
    )
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.int64), "c": np.float16(1)}
    for name in ("plain", "mapped"):
        write_safetensors(folder / "plain" / f"{name}.safetensors", arrays)
    values = {"a": arrays["a"], "b": [1, 2.5, "x", None, True, b"y"], "c": {"d": (arrays["b"],)}}
    write_torch_file(folder / "values" / "model.pt", values)
    tensors = {
        "a": torch.ones(2, 3),
        "b": torch.arange(4).t(),
        "c": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(tensors, folder / "values" / "torch.pt")
    torch.save(tensors, folder / "legacy" / "model.pt", _use_new_zipfile_serialization=False)
    config = "width = 2\nconfig = TrainConfig(steps=10 * width)\n"
    text = f"from tinymu_jax.training.config import *\n\n{config}"
    (folder / "configs" / "run.py").write_text(text)


def _write_audio(folder: Path) -> None:
    import av

    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(folder / f"sound.{suffix}", noise(8_000), 16_000)
    with av.open(str(folder / "sound.m4a"), "w") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(8_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        file.mux([*stream.encode(frame), *stream.encode(None)])


def _write_lists(folder: Path) -> None:
    from tinymu_jax.data.config import FeatureConfig, PrepareConfig
    from tinymu_jax.data.prepare import prepare
    from tinymu_jax.evaluation.report.build import write_report
    from tinymu_jax.evaluation.results import EvalResult, Metric, Table

    path = write_lists(folder / "lists", [0.5, 0.5])
    options = PrepareConfig(FeatureConfig("log_mel"), workers=1)
    prepare([path], [folder / "lists"], folder / "data", tokenizer_text(), options)
    records = json.loads(path.read_text())
    asked = "Which genre? Options: (A) Jazz (B) Folk. The correct answer is:"
    records[0] |= {
        "task": "MCQ",
        "input_text": asked,
        "target_text": "(B) Folk",
        "category": "genre",
    }
    records[1] |= {"task": "Captioning", "tags": ["a"], "options": []}
    records[2] |= {"task": "Binary", "target_text": "Yes."}
    path.write_text(json.dumps(records))
    music = {"id": "/m/04rlf", "name": "Music", "child_ids": ["/m/soul"], "restrictions": []}
    soul = {"id": "/m/soul", "name": "Soul music", "child_ids": [], "restrictions": []}
    for name in ("lists", "tables"):
        (folder / name / "ontology.json").write_text(json.dumps([music, soul]))
    (folder / "lists" / "classes.json").write_text(json.dumps({"jazz": 0, "rock": 1}))
    metric = Metric(0.5, 0.4, 0.6, 10)
    result = EvalResult(
        "list", "T", "nano", {"accuracy": metric}, [Table("T", ["a"], {"r": [metric]})]
    )
    write_report([result], folder / "lists")
    choice = {"audio": "0.wav", "question": "Which?", "choices": ["Jazz", "Folk"], "answer": "B"}
    rows = {
        "choices": [choice, choice | {"audio": "1.wav"}],
        "answers": [{"key": "k", "answer": "a"}, {"key": "l", "answer": "b"}],
        "tags": [
            {"file": f"{n}.wav", "start": 0.0, "end": 1.0, "tags": {"hum": 0.5}} for n in range(3)
        ],
    }
    for name, lines in rows.items():
        (folder / "lines" / f"{name}.jsonl").write_text(
            "".join(f"{json.dumps(x)}\n" for x in lines)
        )


CAPS = ["ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption"]
CAPS += ["author_id", "is_balanced_subset", "is_audioset_eval"]
CHOICES = ["question", "correct_answer", *(f"distractor_{n}_answer" for n in (1, 2, 3))]
CHOICES += ["dataset", "dataset_identifier", "genre", "music_knowledge", "music_reasoning"]
TABLES: dict[str, list[list[object]]] = {
    "tables/musiccaps.csv": [
        CAPS,
        ["-abcdefghij", 30, 40, "/m/04rlf", "['slow', 'it\\'s sad']", "Two, one.", 4, False, False],
        ["d", 0, 10, "/m/04rlf", "[]", "A waltz.", 4, True, True],
    ],
    "tables/song_describer.csv": [
        ["caption_id", "track_id", "caption", "artist_id", "path"],
        [859, 1004034, "Electronic music", 368880, "34/1004034.mp3"],
        [860, 1004034, "A constant melody", 368880, "34/1004034.mp3"],
    ],
    "tables/jamendo.tsv": [
        ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"],
        [
            "track_1",
            "artist_1",
            "album_1",
            "48/948.mp3",
            212.7,
            "genre---rock",
            "instrument---piano",
        ],
    ],
    "tables/mine.csv": [
        ["file", "genre", "caption", "tags", "not", "start", "end", "exhaustive", "artist"],
        ["a.wav", "jazz;blues", "One | two", "piano", "flute", 0, 2.5, "genre", "A"],
        ["b.wav", "", "", "banjo", "", "", "", "", ""],
    ],
    "tables/eval_segments.csv": [
        ["# YTID, start_seconds, end_seconds, positive_labels"],
        ["-abcdefghij", "30.000", "40.000", "/m/04rlf,/m/soul"],
        ["0123456789a", "0.000", "10.000", "/m/soul"],
    ],
    "tables/gtzan.csv": [["file", "artist", "title"], ["blues.00000", "A", "B"]],
    "fma/genres.csv": [["genre_id", "title"], [1, "Rock"], [2, "Folk"]],
    "fma/tracks.csv": [
        ["", *["track"] * 4, "artist"],
        ["", "genre_top", "genres", "genres_all", "license", "name"],
        ["track_id", "", "", "", "", ""],
        [2, "Rock", "[1]", "[1, 2]", "CC0", "A"],
    ],
    "mtt/annotations_final.csv": [["clip_id", "rock", "mp3_path"], [2, 1, "f/a-29-58.mp3"]],
    "mtt/clip_info_final.csv": [["clip_id", "artist"], [2, "A"]],
    "tables/labels.csv": [
        ["file_name", "label", "split"],
        ["a.wav", "jazz", "train"],
        ["b.wav", "rock", "test"],
    ],
    "tables/texts.csv": [["label", "text"], ["jazz", "Jazz"]],
    "tables/classes.csv": [
        ["index", "mid", "display_name"],
        [0, "/m/09x0r", "Speech"],
        [1, "/m/05zppz", "Male speech, man speaking"],
    ],
    "tables/classes.txt": [["Speech"], ["Music"]],
    "tables/vocabulary.csv": [
        ["category", "name", "parents", "synonyms"],
        ["genre", "zydeco two", "folk", "zydeco-two"],
        ["genre", "zydeco three", "zydeco two", ""],
    ],
    "choices/muchomusic.csv": [
        CHOICES,
        ["Which?", "Jazz", "Folk", "Rock", "Pop", "sdd", "1004034", "Jazz", "['Genre']", "[]"],
        ["Who?", "A", "B", "", "", "musiccaps", "-abcdefghij_30", "Rock", "a,b", ""],
    ],
    "tables/tags.csv": [
        ["file", "start", "end", "tag", "probability"],
        ["a, b.wav", "0.0", "1.0", "hum", "0.500000"],
        ["c.wav", "0.0", "1.0", "hum", "0.500000"],
    ],
}


def _write_tables(folder: Path) -> None:
    for name, rows in TABLES.items():
        tabs = name.startswith("mtt") or name.endswith("tsv")
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if tabs else ",", lineterminator="\n").writerows(rows)
    for name in ("choices", "lines"):
        soundfile.write(folder / name / "1004034.wav", noise(8_000), 16_000)
