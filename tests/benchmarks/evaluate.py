"""How fast MuChoMusic is asked by likelihood, beside asking one question after another.

    python tests/benchmarks/evaluate.py muchomusic_questions.jsonl --clips 64
    python tests/benchmarks/evaluate.py muchomusic_questions.jsonl --all

The full-size model with random weights, over 10 s clips of noise in the place of the recordings:
644 of them, with the questions of the list spread over them as in the real set, two and one each.
A word or a sign is a token, about as in SmolLM2's vocabulary. Both sides get the same
log-likelihoods (held against each other to 1e-3). One by one means `Assistant.score` for each
question, listening each time; it computes a question's options together. Option by option means
that each is computed by itself, as where a model only has a loss.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
CLIPS = 644
SECONDS = 10


class Words:
    """A tokenizer: every word or sign has a token of its own."""

    def encode(self, text: str) -> list[int]:
        """Returns tokens above the special ones."""
        pieces = re.findall(r"\w+|[^\w\s]", text)
        return [100 + sum(map(ord, piece)) * len(piece) % 40_000 for piece in pieces]


def make_assistant() -> Any:
    """Returns the full-size model with random weights."""
    from tinymu_jax.checkpoints.checkpoint import Checkpoint, init_params
    from tinymu_jax.inference.load import make_assistant
    from tinymu_jax.models.config import TinyMUConfig

    config = TinyMUConfig()
    model = make_assistant(Checkpoint(config, init_params(config, 0)))
    model.engine.prompts._find_tokenizer = Words
    return model


def write_clips(folder: Path, count: int) -> list[Path]:
    """Writes noise of 10 s, another for each clip."""
    import soundfile

    rng, paths = np.random.default_rng(0), [folder / f"{n:03}.wav" for n in range(count)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.standard_normal(16_000 * SECONDS), 16_000)
    return paths


def read_asked(questions: Path, folder: Path, count: int) -> list[Any]:
    """Returns the questions about some clips, as MuChoMusic's script puts them."""
    from tinymu_jax.evaluation.multiple_choice.muchomusic import choice_prompt
    from tinymu_jax.evaluation.multiple_choice.questions import ChoiceQuestion
    from tinymu_jax.inference.engine import Request

    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    paths = write_clips(folder, count)
    result = []
    for number, row in enumerate(rows):
        clip = number * CLIPS // len(rows)
        if clip < count:
            one = ChoiceQuestion(
                str(number), paths[clip], row["question"], tuple(row["choices"]), 0, {}, ()
            )
            result.append(
                Request(one.audio, choice_prompt(one), "MCQ", one.lettered, score_only=True)
            )
    return result


def together(model: Any, asked: list[Any]) -> tuple[float, list[tuple[float, ...]]]:
    """Asks as `tinymu evaluate muchomusic` does; returns seconds and log-likelihoods."""
    model.audio_cache.clear()
    start = time.perf_counter()
    replies = model.batch_engine().ask(asked)
    return time.perf_counter() - start, [reply.log_likelihoods for reply in replies]


def one_by_one(model: Any, asked: list[Any]) -> tuple[float, list[tuple[float, ...]]]:
    """Asks each question by itself; returns seconds and log-likelihoods."""
    result = []
    start = time.perf_counter()
    for one in asked:
        model.audio_cache.clear()
        rows = model.score_details(one.audio, one.prompt, one.options, prior=False)
        result.append(tuple(row.log_likelihood for row in rows))
    return time.perf_counter() - start, result


def option_by_option(model: Any, asked: list[Any]) -> tuple[float, list[tuple[float, ...]]]:
    """Computes each option's loss by itself; returns seconds and log-likelihoods."""
    encode, result = model.tokenizer.encode, []
    start = time.perf_counter()
    for one in asked:
        model.audio_cache.clear()
        scores = []
        for option in one.options:
            ids = encode(option)
            loss = model.loss_tokens(one.audio, encode(one.prompt), ids)
            scores.append(-loss * (len(ids) + 1))
        result.append(tuple(scores))
    return time.perf_counter() - start, result


def main() -> None:
    """Prints what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", type=Path, help="jsonl of MuChoMusic's questions")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="all clips, together, once")
    args = parser.parse_args()
    model = make_assistant()
    with tempfile.TemporaryDirectory() as folder:
        asked = read_asked(args.questions, Path(folder), CLIPS if args.all else args.clips)
        together(model, asked[:32])  # compiles
        if args.all:
            seconds, _ = together(model, asked)
            print(f"{len(asked)} questions about {CLIPS} clips: {seconds / 60:.1f} minutes")
            return
        sides = {"one by one": one_by_one, "option by option": option_by_option}
        for ask in sides.values():
            ask(model, asked[:8])
        runs: dict[str, list[float]] = {name: [] for name in ("together", *sides)}
        for _ in range(args.repeats):
            seconds, result = together(model, asked)
            runs["together"].append(seconds)
            for name, ask in sides.items():
                seconds, expected = ask(model, asked)
                runs[name].append(seconds)
                np.testing.assert_allclose(result, expected, atol=1e-3)
    medians = {name: statistics.median(seconds) for name, seconds in runs.items()}
    print(f"{len(asked)} questions, {args.clips} clips, {os.cpu_count()} cores")
    for name, seconds in medians.items():
        ratio = seconds / medians["together"]
        rate = len(asked) / seconds
        print(f"{name}: {seconds:.1f} s, {rate:.2f} questions a second, together {ratio:.2f} x")


if __name__ == "__main__":
    main()
