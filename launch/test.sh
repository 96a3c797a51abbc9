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
extras=test
if [ "$(uname -sm)" = "Linux x86_64" ]; then
  extras=test,tpu-aot
fi
use_environment "$extras"
# Tests are made for processors. Left to itself jax would look for a TPU wherever libtpu is, and
# write warnings into what commands print.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"

markers="not network and not gpu"
if [ "${1:-}" = "--full" ]; then
  shift
else
  markers="$markers and not slow"
fi
ruff check .
ruff format --check --quiet .
exec python -m pytest -m "$markers" "$@"
