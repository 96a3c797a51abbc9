"""How many questions a second a training step takes in, beside the published step in PyTorch.

    python tests/benchmarks/train.py --json outputs/train.json

Both sides start from the same random full-size weights and train on the same questions, in one
process run. The published step pads every question and hears its clip once for each; it is given
its questions four at a time, with the gradient added up, since that is what fits into memory
(`--together` where there is more of it). On a GPU both sides run there; set
XLA_PYTHON_CLIENT_PREALLOCATE=false, so that they find room beside each other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
PROMPTS, LABELS = (8, 33), (4, 37)
"""Tokens of prompts and answers, drawn evenly: about 20 each on average, as in MusicSkills."""


def make_questions(clips: int, each: int) -> list[list[Any]]:
    """Returns questions for every clip, as tokens."""
    from tinymu_jax.models.packing import PackedQuestion

    rng = np.random.default_rng(0)

    def one() -> PackedQuestion:
        prompt, labels = (int(rng.integers(*span)) for span in (PROMPTS, LABELS))
        return PackedQuestion(
            rng.integers(100, 40_000, prompt).tolist(),
            [*rng.integers(100, 40_000, labels - 1).tolist(), 0],
        )

    return [[one() for _ in range(each)] for _ in range(clips)]


def make_batch(
    questions: list[list[Any]], waveforms: np.ndarray, store: str, encode: Any, groups_in_row: int
) -> Any:
    """Lays the questions out as the plan of a run would, and stores the features as asked."""
    from tinymu_jax.audio.load import Clip
    from tinymu_jax.data.features import as_embeddings, as_log_mel
    from tinymu_jax.data.loader import Batch
    from tinymu_jax.models.config import TinyMUConfig
    from tinymu_jax.models.packing import PackedGroup, PackingConfig, build_block, question_length

    config = TinyMUConfig()
    flat = [q for local in questions for q in local]
    sizes = (np.array([len(q[part]) for q in flat]) for part in (0, 1))
    local = question_length(*sizes, config).reshape(len(questions), -1).sum(1) + 64
    # The longest with the shortest: rows of nearly one length.
    order = np.argsort(-local, kind="stable")
    half = len(order) // groups_in_row
    turned = [order[i * half : (i + 1) * half][:: (-1) ** i] for i in range(groups_in_row)]
    rows = list(zip(*turned, strict=True))
    longest = max(int(sum(local[clip] for clip in row)) for row in rows)
    labels = sum(len(q.labels) for q in flat)
    packing = PackingConfig(longest, len(rows), len(questions), labels)
    placed = [
        PackedGroup(number, int(clip), 63, questions[clip])
        for number, row in enumerate(rows)
        for clip in row
    ]
    print(f"{longest} slots a row, {local.sum() / (longest * len(rows)):.1%} used", flush=True)
    block = build_block(placed, packing, config)
    if store == "embeddings":
        features = np.stack([as_embeddings(encode(w)) for w in waveforms])
    else:
        features = np.stack([as_log_mel(Clip(w, 10.0, 10.0)) for w in waveforms])
        features = np.pad(features, ((0, 0), (0, 1008 - features.shape[1]), (0, 0)))
    count = 63 if store == "embeddings" else 998
    lengths = np.full(len(questions), count, np.int32)
    batch = Batch(features, lengths, np.arange(len(questions)), block)
    return jax.tree.map(lambda x: np.asarray(x)[None], batch)


def published_step(
    model: Any,
    questions: list[list[Any]],
    waveforms: np.ndarray,
    adam: Any = None,
    together: int = 4,
    compute_dtype: str = "float32",
) -> float:
    """Runs the published step, a few questions at a time; returns its seconds."""
    import torch
    from torch_device import products_in

    device = torch.get_default_device()
    weights = [w for w in model.parameters() if w.requires_grad]
    adam = adam or torch.optim.Adam(weights, lr=1e-4)
    pairs = [(w, q) for w, local in zip(waveforms, questions, strict=True) for q in local]
    start = time.perf_counter()
    for at in range(0, len(pairs), together):
        some = pairs[at : at + together]
        waveform = torch.from_numpy(np.stack([w for w, _ in some])).to(device)
        prompts = [list(q.prompt) for _, q in some]
        answers = [list(q.labels)[:-1] for _, q in some]
        with products_in(compute_dtype):
            model.loss(waveform, prompts, answers).backward()
    adam.step()
    adam.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def our_step(checkpoint: Any, batch: Any, store: str, args: Any, copy: bool = True) -> float:
    """Runs our step once to compile and warm up, then some more; returns the median seconds.

    Without a copy the step takes the checkpoint's weights as its own.
    """
    from tinymu_jax.training.config import OptimConfig
    from tinymu_jax.training.optim import make_optimizer, partition_frozen
    from tinymu_jax.training.tasks.finetune import answer_loss
    from tinymu_jax.training.train_step import init_state, make_train_step

    config = checkpoint.config
    config = replace(
        config,
        encoder=replace(config.encoder, remat=args.remat, compute_dtype=args.compute_dtype),
        decoder=replace(config.decoder, remat=args.remat, compute_dtype=args.compute_dtype),
    )
    optim = OptimConfig()
    trained, frozen = partition_frozen(checkpoint.params, optim)
    optimiser = make_optimizer(optim, 1000)
    step = jax.jit(make_train_step(answer_loss(config, store), optimiser), donate_argnums=0)
    trained = jax.tree.map(np.copy, trained) if copy else trained
    state = jax.device_put(init_state(trained, optimiser))
    frozen, batch = jax.device_put((frozen, batch))
    seconds = []
    for _ in range(args.repeats + 1):
        start = time.perf_counter()
        state, metrics = step(state, frozen, batch)
        float(metrics.loss)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def make_waveforms(clips: int) -> np.ndarray:
    """Returns noise of 10 s."""
    rng = np.random.default_rng(1)
    return (rng.standard_normal((clips, 160_000)) * 0.1).astype(np.float32)


def peak_memory(side: str, each: int, args: Any) -> None:
    """Trains two steps on some questions about two clips; prints the most bytes the process held.

    Each side has a process of its own, with its own weights and averages and nothing else, and
    computes all questions at once.
    """
    import resource

    from torch_device import use_same_device

    questions, waveforms = make_questions(2, each), make_waveforms(2)
    if side == "published":
        import torch
        from oracles import torch_modules

        use_same_device()
        model = torch_modules.build_tinymu(torch_modules.FULL_SIZES)
        model.audio_encoder.requires_grad_(False)
        adam = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=1e-4)
        for _ in range(2):
            published_step(model, questions, waveforms, adam, together=2 * each)
    else:
        from tinymu_jax.checkpoints.checkpoint import Checkpoint, init_params
        from tinymu_jax.models.config import TinyMUConfig

        config = TinyMUConfig()
        batch = make_batch(questions, waveforms, "log_mel", None, 1)
        our_step(Checkpoint(config, init_params(config, 0)), batch, "log_mel", args, copy=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure_memory() -> dict[str, dict[str, float]]:
    """Returns the gigabytes of each side, by questions in a step."""
    result = {}
    for each in (2, 7):
        sides = {}
        for side in ("ours", "published"):
            command = [sys.executable, __file__, "--memory", side, "--each", str(each)]
            command += ["--repeats", "1"]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            sides[side] = int(said.splitlines()[-1]) / 1e9
        result[f"{2 * each} questions"] = sides
    return result


def loader_rate(store: str, clips: int = 600) -> float:
    """Returns how many clips a second the loader reads and lays out, on one core."""
    from tinymu_jax.data.config import FeatureConfig
    from tinymu_jax.data.dataset import Dataset
    from tinymu_jax.data.loader import PackedBatches, iterate
    from tinymu_jax.data.sampler import make_groups, make_plan
    from tinymu_jax.models.config import TinyMUConfig
    from tinymu_jax.models.packing import PackingConfig

    os.sched_setaffinity(0, {0})
    config, packing = TinyMUConfig(), PackingConfig()
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), clips, FeatureConfig(store))
        dataset = Dataset(folder)
        groups = make_groups(dataset.lengths(config), packing, config)
        batches = PackedBatches(dataset, make_plan(groups, packing, 0, 3), packing, config, 1)
        read, start = 0, 0.0
        for batch in iterate(batches, threads=2):
            # What is read ahead before the clock starts is no more than a batch or two of many.
            start = start or time.perf_counter()
            read += int((batch.records >= 0).sum())
        rate = read / (time.perf_counter() - start)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return rate


def write_dataset(folder: Path, clips: int, features: Any) -> None:
    """Writes a data set of noise with seven questions a clip, as `tinymu data prepare` does."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from tinymu_jax.data.dataset import FORMAT
    from tinymu_jax.data.records import Record, StoredQuestion, encode_record

    rng, each = np.random.default_rng(0), 7
    stored = features.kind == "embeddings"
    shape, dtype = ((63, 3840), jnp.bfloat16) if stored else ((998, 80), np.float16)
    path = folder / "shard-00000.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    prompts, answers = [], []
    for number in range(clips):
        vectors = rng.standard_normal(shape).astype(dtype)
        asked = []
        for _ in range(each):
            ids = [rng.integers(20, 40_000, rng.integers(*span)) for span in (PROMPTS, LABELS)]
            asked.append(StoredQuestion("?", ".", "QA", *(x.astype(np.int32) for x in ids)))
            prompts.append(len(ids[0]))
            answers.append(len(ids[1]))
        writer.write(encode_record(Record(f"{number}.wav", "Made", vectors, tuple(asked))))
    writer.close()
    np.savez(
        folder / "index.npz",
        columns=np.full(clips, 63),
        first=np.arange(clips + 1) * each,
        prompt=np.array(prompts),
        answer=np.array(answers),
    )
    shard = {"name": path.name, "bytes": path.stat().st_size, "records": clips}
    page = {"format": FORMAT, "features": features.to_dict(), "shards": [shard]}
    page |= {"tokenizer": None, "encoder": None}
    (folder / "dataset.json").write_text(json.dumps(page))


def main() -> None:
    """Runs everything and prints the table."""
    from torch_device import device_name

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--groups-in-row", type=int, default=1)
    parser.add_argument("--remat", default="attention")
    parser.add_argument("--each", type=int, default=7, help="questions a clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument(
        "--products", dest="compute_dtype", choices=["float32", "bfloat16"], default="float32"
    )
    parser.add_argument("--together", type=int, default=4, help="questions that fit PyTorch's side")
    parser.add_argument("--steps-only", action="store_true", help="no loader and no memory")
    parser.add_argument("--memory", choices=["ours", "published"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        peak_memory(args.memory, args.each, args)
        return
    result: dict[str, Any] = {"device": device_name(), "clips": args.clips}
    if not args.steps_only:
        rates = {store: loader_rate(store) for store in ("log_mel", "embeddings")}
        result["loader, clips a second and core"] = rates
    if not args.ours_only and not args.steps_only:
        result["peak memory, GB"] = measure_memory()
    print(json.dumps(result, indent=1), flush=True)
    result |= measure_steps(args)
    print(json.dumps(result, indent=1), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def measure_steps(args: Any) -> dict[str, dict[str, float]]:
    """Returns questions a second of both sides, with many questions a clip and with one."""
    from ask import make_models

    from tinymu_jax.inference.load import make_assistant

    published, checkpoint = make_models()
    published.audio_encoder.requires_grad_(False)
    embed = make_assistant(checkpoint).embed
    result = {}
    for each, clips in ((args.each, args.clips), (1, 2 * args.clips)):
        waveforms, questions = make_waveforms(clips), make_questions(clips, each)
        number, rates = clips * each, {}
        for store in ("log_mel", "embeddings"):
            in_row = args.groups_in_row * (1 if each > 1 else 4)
            batch = make_batch(questions, waveforms, store, embed, in_row)
            rates[f"ours, {store}"] = number / our_step(checkpoint, batch, store, args)
        if not args.ours_only:
            inputs = (published, questions, waveforms, None, args.together, args.compute_dtype)
            if jax.default_backend() == "gpu":
                published_step(*inputs)  # loads kernels
            rates["published"] = number / published_step(*inputs)
        result[f"{each} questions a clip"] = rates
        print(json.dumps(result, indent=1), flush=True)
    return result


if __name__ == "__main__":
    main()
