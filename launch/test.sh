#!/usr/bin/env bash
# Runs the tests. Makes its own environment.
#
#   launch/test.sh              ruff and the default suite
#   launch/test.sh --full       full-size and slow checks too; on Linux x86_64 these compile the
#                               training steps for TPU pods, without a TPU
#   launch/test.sh tests/audio -k resample      any arguments of pytest
#
# Tests of the page in a browser use Chromium where it is installed, and are skipped where not.
# Recordings that are not in the repository are read from TINYMU_SHARED, or from beside the clone.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
help_if_asked "$@"
use_environment test
if [ "${1:-}" = "--full" ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
  # Outside the environment's site-packages: with libtpu installed, jax always probes for a TPU,
  # slowly and with warnings.
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
# Two processes, a file at a time, so that a file's fixtures and compiled programs are shared; in
# collection order (tests/conftest.py puts the slowest files first).
[ $# -gt 0 ] || set -- --numprocesses 2 --dist loadfile --no-loadscope-reorder
exec python -m pytest -m "$markers" "$@"
