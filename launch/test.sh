#!/usr/bin/env bash
# Runs the tests, in an environment that it makes itself.
#
#   launch/test.sh              style, and the default suite; on Linux x86_64 the training step is
#                               compiled for a TPU pod too, which needs no TPU but a minute or two
#   launch/test.sh --full       the full-size checks too
#   launch/test.sh tests/test_audio.py -k resample      any arguments of pytest
#
# Data that is not in the repository is looked for in TINYMU_SHARED, or beside the clone.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
use_environment test
if [ "$(uname -sm)" = "Linux x86_64" ]; then
  # Beside the environment and not in it: wherever libtpu is installed, jax looks for a TPU, slowly
  # and with warnings, whatever it is used for.
  beside="${TINYMU_VENV:-.venv}/tpu-aot"
  if [ ! -d "$beside/libtpu" ]; then
    mkdir -p "$beside"
    python -c 'import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"]["tpu-aot"], sep="\n")' >"$beside.txt"
    python -m pip install --quiet --disable-pip-version-check --no-deps --target "$beside" -r "$beside.txt" ||
      fail "libtpu could not be installed; check the network and the lines above"
  fi
  TINYMU_LIBTPU="$(cd "$beside" && pwd)"
  export TINYMU_LIBTPU
fi

markers="not network and not gpu"
if [ "${1:-}" = "--full" ]; then
  shift
else
  markers="$markers and not slow"
fi
ruff check .
ruff format --check --quiet .
# The whole suite goes to two processes, a file at a time: what a file compiles is compiled once.
# In the order of the files, since the slowest of them have the fewest tests.
[ $# -gt 0 ] || set -- --numprocesses 2 --dist loadfile --no-loadscope-reorder
exec python -m pytest -m "$markers" "$@"
