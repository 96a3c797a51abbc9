"""What continuous batching brings: many clients at once against one after the other.

    python tests/benchmarks/serve.py --json outputs/serve.json

Full-size random weights (or `--checkpoint`) behind the real server on loopback. Every client asks
about a recording of its own, 10 s long. Both sides run in turns in one process; figures are
medians.
"""

import argparse
import base64
import io
import json
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
sys.path.append(str(ROOT / "tests" / "server"))
QUESTION = "Describe it."  # the random model's tokenizer makes one token of each letter


def make_assistant(args: Any) -> Any:
    """Returns the model: a checkpoint's, or one of full size with random weights."""
    import tinymu_jax
    from tinymu_jax.inference import load

    dtypes = {"encoder_dtype": args.encoder_dtype, "decoder_dtype": args.decoder_dtype}
    if args.checkpoint:
        return tinymu_jax.load(args.checkpoint, **dtypes)
    from ask import make_models

    return load.make_assistant(make_models()[1], **dtypes)


def body(number: int, tokens: int) -> dict[str, Any]:
    """Returns a request about a recording that is another for each number."""
    noise = np.random.default_rng(number).standard_normal(160_000).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, 0.1 * noise, 16_000, format="WAV", subtype="PCM_16")
    data = base64.b64encode(file.getvalue()).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    content = [{"type": "text", "text": QUESTION}, audio]
    messages = [{"role": "user", "content": content}]
    return {"model": "nano", "messages": messages, "max_tokens": tokens}


class Clients:
    """Clients of one server; each request has another recording, so that none is cached."""

    def __init__(self, address: str, tokens: int) -> None:
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.Client(base_url=address, limits=limits, timeout=600)
        self._tokens, self._number, self._lock = tokens, 0, threading.Lock()

    def ask(self, tokens: int | None = None, first: threading.Event | None = None) -> tuple:
        """Returns the tokens of an answer, the seconds to its first token, and all seconds."""
        with self._lock:
            self._number += 1
            number = self._number
        request = body(number, tokens or self._tokens)
        request |= {"stream": True, "logprobs": True, "stream_options": {"include_usage": True}}
        start, seconds, count = time.perf_counter(), 0.0, 0
        with self._http.stream("POST", "/v1/chat/completions", json=request) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                chunk = json.loads(line[6:]) if line.startswith("data: {") else {}
                for choice in chunk.get("choices", ()):
                    if choice["logprobs"] and not seconds:
                        seconds = time.perf_counter() - start
                        if first is not None:
                            first.set()
                count = (chunk.get("usage") or {}).get("completion_tokens", count)
        return count, seconds, time.perf_counter() - start

    def at_once(self, number: int) -> float:
        """Returns the tokens per second of clients that ask at the same time."""
        with ThreadPoolExecutor(number) as pool:
            start = time.perf_counter()
            counts = [count for count, *_ in pool.map(lambda _: self.ask(), range(number))]
            return sum(counts) / (time.perf_counter() - start)

    def one_by_one(self, number: int) -> float:
        """Returns the tokens per second of clients that ask one after the other."""
        start = time.perf_counter()
        counts = [self.ask()[0] for _ in range(number)]
        return sum(counts) / (time.perf_counter() - start)

    def joining(self, others: int) -> float:
        """Returns the seconds to the first token of a request that joins other answers."""
        events = [threading.Event() for _ in range(others)]
        with ThreadPoolExecutor(others) as pool:
            # The others are long enough to go on until the last has joined.
            waiting = [pool.submit(self.ask, 2 * self._tokens, event) for event in events]
            for event in events:
                event.wait()
            seconds = self.ask()[1]
            for answer in waiting:
                answer.result()
        return seconds


def step_seconds(assistant: Any, steps: int = 10) -> dict[str, float]:
    """Returns the seconds of one decoding step by number of rows."""
    from tinymu_jax.inference.continuous import ContinuousDecoder
    from tinymu_jax.inference.generate import Sampling

    noise = 0.1 * np.random.default_rng(0).standard_normal(160_000).astype(np.float32)
    audio = assistant.audio_cache.encode_one(noise)
    result = {}
    for rows in (1, 2, 4, 8, 16):
        decoder = ContinuousDecoder(assistant.params, assistant.config)
        for seed in range(rows):
            sampling = Sampling("top-p", 1.0, 1000.0, seed)
            decoder.add(audio, [20] * 12, 500, sampling)
        for answer in decoder.answers:
            answer.sampling = Sampling()
        decoder.step()
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            decoder.step()
            times.append(time.perf_counter() - start)
        result[str(rows)] = statistics.median(times)
    return result


def main() -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="instead of random weights, such as nano")
    parser.add_argument("--encoder-dtype", default="float32")
    parser.add_argument("--decoder-dtype", default="float32")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from server_process import running

    from tinymu_jax.server.config import ServerConfig
    from tinymu_jax.server.warm_up import warm_up

    assistant = make_assistant(args)
    warm_up(assistant, args.clients)
    steps = step_seconds(assistant)
    with running(assistant, ServerConfig(batch=args.clients)) as (address, _):
        clients = Clients(address, args.tokens)
        clients.ask()
        runs = {
            "one after the other, tokens/s": lambda: clients.one_by_one(args.clients),
            "at once, tokens/s": lambda: clients.at_once(args.clients),
            "first token of a lone request, s": lambda: clients.ask()[1],
            "first token of a joining request, s": lambda: clients.joining(args.clients // 2),
        }
        values: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.repeats):
            for name, run in runs.items():
                values[name].append(run())
    result = {name: statistics.median(times) for name, times in values.items()}
    alone, together, lone, joining = result.values()
    result |= {"throughput, ratio": together / alone, "first token, ratio": joining / lone}
    result |= {f"decoding step, {rows} rows, s": seconds for rows, seconds in steps.items()}
    for name, value in result.items():
        print(f"| {name} | {value:.4g} |")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result | {"runs": values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
