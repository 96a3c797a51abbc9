"""How long a query takes in a large index, on random vectors.

    python tests/benchmarks/search.py --windows 100000 --json outputs/search.json

Measures, in turns and as medians, a query of one vector and of 24 (a track of 4 minutes) with jax,
as `tinymu similar --windows` does it, and the same with numpy.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]


def write_random_index(path: Path, windows: int, width: int, per_recording: int) -> None:
    """Writes an index of random vectors; all recordings have equally many windows."""
    from tinymu_jax.library.index_file import Entry, IndexedRecording, IndexInfo, write_index

    block = np.random.default_rng(0).standard_normal((per_recording + 97, width), np.float32)
    block = block.astype(np.float16)
    spans = np.arange(per_recording, dtype=np.float32)[:, None] * 10 + [0, 10]
    silent = np.zeros(per_recording, bool)

    def entry(number: int) -> Entry:
        start = number % 97
        vectors = block[start : start + per_recording]
        name = IndexedRecording(f"{number:07d}.wav", str(number), 10.0 * per_recording)
        return Entry(name, spans, silent, lambda: vectors)

    info = IndexInfo("random", "random", 10.0)
    write_index(path, info, map(entry, range(windows // per_recording)), width)


def with_numpy(vectors: np.ndarray, lengths: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Returns what `nearest` does, in float32 with numpy."""
    directions = queries.astype(np.float32)
    directions = (directions / np.linalg.norm(directions, axis=1)[:, None]).T
    parts = [
        (vectors[start : start + 1024].astype(np.float32) @ directions).max(1)
        for start in range(0, len(vectors), 1024)
    ]
    return np.concatenate(parts) / lengths


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Returns median seconds of runs in turns, after one warm-up each; and of all cores together.

    On a busy machine, the seconds of all cores say more.
    """
    seconds: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start, busy = time.perf_counter(), time.process_time()
            run()
            if turn:
                seconds.setdefault(name, []).append(time.perf_counter() - start)
                seconds.setdefault(f"{name}, all cores", []).append(time.process_time() - busy)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Runs everything and prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--numpy", action="store_true", help="measure numpy too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from tinymu_jax.library.index_file import open_index
    from tinymu_jax.library.search import Query, nearest, similar

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "random.index"
        write_random_index(path, args.windows, args.width, per_recording=30)
        start = time.perf_counter()
        index = open_index(path)
        result: dict[str, Any] = {"open": time.perf_counter() - start}
        result["gigabytes"] = path.stat().st_size / 1e9
        queries = np.random.default_rng(1).standard_normal((24, args.width)).astype(np.float16)
        spans = np.arange(24, dtype=np.float32)[:, None] * 10 + [0, 10]
        silent = np.zeros(24, bool)
        arrays = index.windows, index.window_norms
        runs = {
            "1 vector": lambda: nearest(*arrays, queries[:1]),
            "24 vectors": lambda: nearest(*arrays, queries),
            "similar by window, 1 vector": lambda: similar(
                index, Query(queries[:1], spans[:1], silent[:1]), 20, by_window=True
            ),
            "similar by recording": lambda: similar(index, Query(queries, spans, silent), 20),
        }
        if args.numpy:
            runs["1 vector, numpy"] = lambda: with_numpy(*arrays, queries[:1])
            runs["24 vectors, numpy"] = lambda: with_numpy(*arrays, queries)
        result |= measure(runs, args.repeats)
    result["load"] = os.getloadavg()[0]
    for key, value in result.items():
        print(f"{key:40} {value:.3f}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
