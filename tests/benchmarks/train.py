"""How many questions a second a training step takes in, beside the published step in PyTorch.

    python tests/benchmarks/train.py --json outputs/train.json

Both sides start from the same random full-size weights and train on the same questions, in one
process run. The published step pads every question and hears its clip once for each; it is given
its questions four at a time, with the gradient added up, since that is what fits into memory.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
PROMPTS, LABELS = (8, 33), (4, 37)
"""Tokens of prompts and answers, drawn evenly: about 20 each on average, as in MusicSkills."""


def make_questions(clips: int, each: int) -> list[list[Any]]:
    """Returns questions for every clip, as tokens."""
    from tinymu_jax.data.packing import Question

    rng = np.random.default_rng(0)

    def one() -> Question:
        prompt, labels = (int(rng.integers(*span)) for span in (PROMPTS, LABELS))
        return Question(
            rng.integers(100, 40_000, prompt).tolist(),
            [*rng.integers(100, 40_000, labels - 1).tolist(), 0],
        )

    return [[one() for _ in range(each)] for _ in range(clips)]


def make_batch(
    questions: list[list[Any]], waveforms: np.ndarray, store: str, encode: Any, groups_in_row: int
) -> Any:
    """Lays the questions out as the plan of a run would, and stores the features as asked."""
    from tinymu_jax.audio import Clip
    from tinymu_jax.config import TinyMUConfig
    from tinymu_jax.data.config import PackingConfig
    from tinymu_jax.data.features import as_embeddings, as_log_mel
    from tinymu_jax.data.loader import Batch
    from tinymu_jax.data.packing import Placed, lay_out_block, question_slots

    config = TinyMUConfig()
    flat = [q for own in questions for q in own]
    sizes = (np.array([len(q[part]) for q in flat]) for part in (0, 1))
    own = question_slots(*sizes, config).reshape(len(questions), -1).sum(1) + 64
    # The longest with the shortest: rows of nearly one length.
    order = np.argsort(-own, kind="stable")
    half = len(order) // groups_in_row
    turned = [order[i * half : (i + 1) * half][:: (-1) ** i] for i in range(groups_in_row)]
    rows = list(zip(*turned, strict=True))
    longest = max(int(sum(own[clip] for clip in row)) for row in rows)
    labels = sum(len(q.labels) for q in flat)
    packing = PackingConfig(longest, len(rows), len(questions), labels)
    placed = [
        Placed(number, int(clip), 63, questions[clip])
        for number, row in enumerate(rows)
        for clip in row
    ]
    print(f"{longest} slots a row, {own.sum() / (longest * len(rows)):.1%} used", flush=True)
    block = lay_out_block(placed, packing, config)
    if store == "embeddings":
        features = np.stack([as_embeddings(encode(w)) for w in waveforms])
    else:
        features = np.stack([as_log_mel(Clip(w, 10.0, 10.0)) for w in waveforms])
        features = np.pad(features, ((0, 0), (0, 1008 - features.shape[1]), (0, 0)))
    count = 63 if store == "embeddings" else 998
    lengths = np.full(len(questions), count, np.int32)
    batch = Batch(features, lengths, np.arange(len(questions)), block)
    return jax.tree.map(lambda x: np.asarray(x)[None], batch)


def published_step(model: Any, questions: list[list[Any]], waveforms: np.ndarray) -> float:
    """Runs the published step, four questions at a time; returns its seconds."""
    import torch

    weights = [w for w in model.parameters() if w.requires_grad]
    adam = torch.optim.Adam(weights, lr=1e-4)
    pairs = [(w, q) for w, own in zip(waveforms, questions, strict=True) for q in own]
    start = time.perf_counter()
    for at in range(0, len(pairs), 4):
        some = pairs[at : at + 4]
        waveform = torch.from_numpy(np.stack([w for w, _ in some]))
        prompts = [list(q.prompt) for _, q in some]
        answers = [list(q.labels)[:-1] for _, q in some]
        model.loss(waveform, prompts, answers).backward()
    adam.step()
    adam.zero_grad()
    return time.perf_counter() - start


def our_step(checkpoint: Any, batch: Any, store: str, args: Any) -> float:
    """Runs our step once to compile and warm up, then some more; returns the median seconds."""
    from tinymu_jax.training.config import OptimConfig
    from tinymu_jax.training.optim import make_optimiser, split_frozen
    from tinymu_jax.training.step import init_state, make_step

    config = checkpoint.config
    config = replace(config, decoder=replace(config.decoder, remat=args.remat))
    optim = OptimConfig()
    trained, frozen = split_frozen(checkpoint.params, optim)
    optimiser = make_optimiser(optim, 1000)
    step = jax.jit(make_step(config, store, optimiser), donate_argnums=0)
    state = jax.device_put(init_state(jax.tree.map(np.copy, trained), optimiser))
    frozen, batch = jax.device_put((frozen, batch))
    seconds = []
    for _ in range(args.repeats + 1):
        start = time.perf_counter()
        state, metrics = step(state, frozen, batch)
        float(metrics.loss)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def main() -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--groups-in-row", type=int, default=2)
    parser.add_argument("--remat", default="attention")
    parser.add_argument("--each", type=int, default=7, help="questions a clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ours-only", action="store_true")
    args = parser.parse_args()
    from ask import make_models

    from tinymu_jax.pretrained import make_assistant

    published, checkpoint = make_models()
    published.audio_encoder.requires_grad_(False)
    embed = make_assistant(checkpoint).embed
    rng = np.random.default_rng(1)
    waveforms = (rng.standard_normal((args.clips, 160_000)) * 0.1).astype(np.float32)
    found: dict[str, Any] = {"cores": os.cpu_count(), "clips": args.clips}
    for each in (args.each, 1):
        questions = make_questions(args.clips, each)
        number = args.clips * each
        rates = {}
        for store in ("log_mel", "embeddings"):
            batch = make_batch(questions, waveforms, store, embed, args.groups_in_row)
            rates[f"ours, {store}"] = number / our_step(checkpoint, batch, store, args)
            print(each, store, rates, flush=True)
        if not args.ours_only:
            rates["published"] = number / published_step(published, questions, waveforms)
        found[f"{each} questions a clip"] = rates
        print(json.dumps(found, indent=1), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
