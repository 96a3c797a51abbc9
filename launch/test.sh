#!/usr/bin/env bash
# Runs the tests, in an environment that it makes itself.
#
#   launch/test.sh              style, and the default suite
#   launch/test.sh --full       the full-size checks too
#   launch/test.sh tests/test_audio.py -k resample      any arguments of pytest
#
# Data that is not in the repository is looked for in TINYMU_SHARED, or beside the clone.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
use_environment test

markers="not slow and not network and not gpu and not tpu_aot"
if [ "${1:-}" = "--full" ]; then
  shift
  markers="not network and not gpu and not tpu_aot"
fi
ruff check .
ruff format --check --quiet .
exec python -m pytest -m "$markers" "$@"
