"""Over ten thousand mutated files of every kind: each is read, or refused in one line.

No other exception, no hang, no more than 1 GB, no code run, nothing written elsewhere.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fuzz_cases import KINDS, write_corpus
from helpers import ROOT

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, golden_dir):
    folder = tmp_path_factory.mktemp("fuzz") / "corpus"
    write_corpus(folder, golden_dir)
    return folder


def run_cases(kind, count, corpus, finds):
    """Return what came of every case of a kind; a process that dies is started again behind it."""
    results = []
    paths = [ROOT, ROOT / "tests", Path(__file__).parent]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "2",
        "JAX_PLATFORMS": "cpu",
    }
    while len(results) < count:
        arguments = [Path(__file__).with_name("fuzz_worker.py"), corpus, finds, kind]
        process = subprocess.run(
            [sys.executable, *map(str, [*arguments, len(results), count])],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = list(map(json.loads, process.stdout.splitlines()))
        assert lines or results or "Timeout" in process.stderr, process.stderr
        results += lines
        if len(results) < count:
            name = f"{kind.split()[0].strip('.,')}-{len(results)}-died"
            (finds / "last").replace(finds / name)
            tail = " | ".join(process.stderr.strip().splitlines()[-30:])
            results.append({"file": name, "outcome": "died", "problem": tail})
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_in_one_line(kind, corpus, tmp_path, capsys):
    results = run_cases(kind, KINDS[kind][0], corpus, tmp_path)
    counts = Counter(result["outcome"] for result in results)
    problems = [result for result in results if result["problem"]]
    with capsys.disabled():
        print(
            f"\n{kind:18} tried {len(results):5}  accepted {counts['accepted']:5}  "
            f"refused {counts['refused']:5}  found {len(problems):3}"
        )
    assert not problems, f"{tmp_path}: " + "\n".join(
        f"{p['file']}: {p['problem']}" for p in problems
    )
