"""How fast a question is answered, beside PyTorch on the same random full-size weights.

    python tests/benchmarks/ask.py --json outputs/ask.json

One process runs both sides in turns and takes medians:
    (a) PyTorch as published: no cache, everything padded, all logits;
    (b) PyTorch as well as it can be had: transformers' Llama with its cache;
    (c) the memory's bandwidth, which limits how fast weights can be read.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
PROMPT = list(range(100, 120))


def medians(
    runs: dict[str, Callable[[], Any]], repeats: int, warm_up: bool = True
) -> dict[str, float]:
    """Runs everything once to warm up, then in turns; returns the median seconds of each."""
    for run in runs.values() if warm_up else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def memory_bandwidth() -> float:
    """Returns the bytes per second at which all cores together read a large array."""
    array = np.ones(1 << 27, np.float32)
    pieces = np.array_split(array, os.cpu_count() or 1)
    best = float("inf")
    for _ in range(7):
        threads = [threading.Thread(target=piece.sum) for piece in pieces]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return array.nbytes / best


def make_models() -> tuple[Any, Any]:
    """Returns the PyTorch model and our checkpoint with the same random weights."""
    import torch
    from oracles import torch_modules
    from torch_device import use_same_device

    from tinymu_jax.checkpoints.checkpoint import Checkpoint, expected_shapes
    from tinymu_jax.checkpoints.pytorch import tinymu
    from tinymu_jax.checkpoints.pytorch.key_map import from_state_dict
    from tinymu_jax.models.config import TinyMUConfig

    use_same_device()
    torch.manual_seed(0)
    published = torch_modules.build_tinymu(torch_modules.FULL_SIZES)
    config = TinyMUConfig()
    state = {key: value.cpu().numpy() for key, value in published.state_dict().items()}
    shapes = expected_shapes(config)
    params = from_state_dict(state, tinymu.rules(config), shapes, "random weights", tinymu.TIES)
    return published, Checkpoint(config, params, _tokenizer(config.decoder.vocab_size))


def _on_device(samples: np.ndarray) -> Any:
    """Returns a clip as PyTorch's side takes it, (1, S)."""
    import torch

    return torch.from_numpy(samples)[None].to(torch.get_default_device())


def _tokenizer(size: int) -> str:
    """Returns a byte-level tokenizer with SmolLM2's special ids and `size` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<|endoftext|>", *(f"<{n}>" for n in range(1, 17))]
    words += sorted(pre_tokenizers.ByteLevel.alphabet())
    words += [f"<unused {n}>" for n in range(len(words), size)]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made.to_str()


def decoding(published: Any, actual: dict[str, Any], samples: np.ndarray, args: Any) -> dict:
    """Times whole answers: audio in, tokens out."""
    import torch

    waveform, tokens = _on_device(samples), args.tokens

    def answer(model: Any) -> Callable[[], Any]:
        def run() -> None:
            model.audio_cache.clear()
            out = model.generate_tokens(samples, PROMPT, tokens)
            assert len(out) == tokens, "the random model ended its answer: take another seed"

        return run

    runs = {name: answer(model) for name, model in actual.items()}
    with torch.no_grad():
        runs["torch, cache"] = lambda: published.generate_cached(
            waveform, [PROMPT], tokens, stop=False
        )
        result = medians(runs, args.repeats)
        slow = {
            "torch, as published": lambda: published.generate_published(waveform, [PROMPT], tokens)
        }
        return result | medians(slow, args.repeats, warm_up=False)


def bfloat16_torch(published: Any, samples: np.ndarray, args: Any) -> float:
    """Times (b) with bfloat16 weights; last, since it changes the model in place."""
    import torch

    model = published.to(torch.bfloat16)
    waveform = _on_device(samples).to(torch.bfloat16)
    with torch.no_grad():
        run = lambda: model.generate_cached(waveform, [PROMPT], args.tokens, stop=False)  # noqa: E731
        return medians({"run": run}, 1)["run"]


def audio_cache(published: Any, actual: dict[str, Any], samples: np.ndarray, args: Any) -> dict:
    """Times log-mel, encoder and projector of one 10 s clip."""
    import torch

    waveform = _on_device(samples)

    def encode(model: Any) -> Callable[[], Any]:
        def run() -> None:
            model.audio_cache.clear()
            model.audio_cache.encode_one(samples).vectors.block_until_ready()

        return run

    runs = {name: encode(model) for name, model in actual.items()}
    with torch.no_grad():
        runs["torch"] = lambda: published.audio(waveform)
        return medians(runs, 3 * args.repeats)


def short_answer(model: Any, recording: Path, args: Any) -> float:
    """Times 8 tokens from a 10 s file to text."""

    def run() -> None:
        model.audio_cache.clear()
        model.answers(str(recording), "What is it?", max_new_tokens=8)

    return medians({"run": run}, 3 * args.repeats)["run"]


MEASURED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak kB", peak.split()[1], file=sys.stderr)
"""


def process_seconds(command: list[str], folder: Path) -> tuple[float, str]:
    """Returns wall seconds and stderr of a command in a new process."""
    environment = os.environ | {"TINYMU_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(
        command, check=True, env=environment, capture_output=True, cwd=ROOT, text=True
    )
    return time.perf_counter() - start, done.stderr


def new_processes(checkpoint: Any, recording: Path, folder: Path) -> dict[str, Any]:
    """Times the import, the conversion of the full-size file, and a first answer."""
    from tinymu_jax.checkpoints.pytorch import tinymu
    from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file

    python = sys.executable
    imports = [process_seconds([python, "-c", "import tinymu_jax"], folder)[0] for _ in range(5)]
    nothing = [process_seconds([python, "-c", "pass"], folder)[0] for _ in range(5)]
    source, converted = folder / "tinymu.pt", folder / "converted"
    write_torch_file(source, tinymu.to_published(checkpoint))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(checkpoint.tokenizer)
    convert = [python, "-c", MEASURED, "conversion.from_torch", str(source), str(converted)]
    seconds, said = process_seconds(convert, folder)
    ask = [python, "-m", "tinymu_jax", "ask", str(recording), "--prompt", "What is it?"]
    ask += ["--max-new-tokens", "8", "--checkpoint", str(converted)]
    cold = process_seconds(ask, folder)[0]
    warm = statistics.median(process_seconds(ask, folder)[0] for _ in range(3))
    return {
        "import tinymu_jax": statistics.median(imports) - statistics.median(nothing),
        "convert": seconds,
        "convert, peak GB": int(said.split()[-1]) / 1e6,
        "first answer, nothing compiled": cold,
        "first answer, compiled before": warm,
    }


def table(result: dict[str, Any], tokens: int) -> str:
    """Lays the figures out as the README shows them."""
    whole, audio, processes = result["answer"], result["audio_cache"], result.get("processes", {})
    published, cached = whole["torch, as published"], whole["torch, cache"]
    limit = result["weights bytes"] / result["bandwidth"]
    rows = [
        ("what", "seconds", "tokens/s", "against (a)", "against (b)"),
        *(
            (
                f"{tokens} tokens, {name}",
                f"{seconds:.2f}",
                f"{tokens / seconds:.1f}",
                f"{published / seconds:.1f} x",
                f"{cached / seconds:.2f} x",
            )
            for name, seconds in whole.items()
        ),
        (
            f"{tokens} tokens, (c) reading the float32 weights once each",
            f"{tokens * limit:.2f}",
            f"{1 / limit:.1f}",
            f"{published / (tokens * limit):.1f} x",
            f"{cached / (tokens * limit):.2f} x",
        ),
        *(
            (
                f"log-mel, encoder, projector, {name}",
                f"{s:.3f}",
                "",
                "",
                f"{audio['torch'] / s:.2f} x",
            )
            for name, s in audio.items()
        ),
        ("8 tokens, 10 s file to text, warm", f"{result['short answer']:.2f}", "", "", ""),
        *((name, f"{value:.2f}", "", "", "") for name, value in processes.items()),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--answers-only", action="store_true", help="no new processes")
    args = parser.parse_args()
    import soundfile
    from torch_device import device_name

    from tinymu_jax.inference.load import make_assistant

    result: dict[str, Any] = {"device": device_name(), "bandwidth": memory_bandwidth()}
    published, checkpoint = make_models()
    exact = make_assistant(checkpoint)
    result["weights bytes"] = 4 * sum(p.numel() for p in published.text_decoder.lm.parameters())
    noise = np.random.default_rng(0).standard_normal(160_000).astype(np.float32) * 0.1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = folder / "noise.wav"
        soundfile.write(recording, noise, 16_000)
        if not args.answers_only:
            result["processes"] = new_processes(checkpoint, recording, folder)
        small = {
            "int8 decoder": make_assistant(checkpoint, decoder_dtype="int8"),
            "int8 decoder, bfloat16 encoder": make_assistant(checkpoint, "bfloat16", "int8"),
        }
        result["short answer"] = short_answer(exact, recording, args)
        result["bandwidth"] = max(result["bandwidth"], memory_bandwidth())
        result["answer"] = decoding(published, {"float32": exact} | small, noise, args)
        actual = {"float32": exact, "bfloat16 products": small["int8 decoder, bfloat16 encoder"]}
        result["audio_cache"] = audio_cache(published, actual, noise, args)
    result["bandwidth"] = max(result["bandwidth"], memory_bandwidth())
    result["answer"]["torch, cache, bfloat16"] = bfloat16_torch(published, noise, args)
    print(table(result, args.tokens))
    print(f"{result['device']}, {result['bandwidth'] / 1e9:.1f} GB/s")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
