#!/usr/bin/env bash
# Builds the documentation site. Makes its own environment.
#
#   launch/docs.sh            into outputs/site; open outputs/site/index.html
#   launch/docs.sh serve      on http://127.0.0.1:8000, rebuilt on every change
#   launch/docs.sh serve --dev-addr 127.0.0.1:8001     options of `mkdocs serve` or `mkdocs build`
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_if_asked "$@"
cd "$(dirname "$0")/.."
use_environment docs
export NO_MKDOCS_2_WARNING=1 # silence the theme's advertisement

if [ "${1:-}" = "serve" ]; then
  shift
  exec python -m mkdocs serve "$@"
fi
[ "${1:-}" != "build" ] || shift
python -m mkdocs build --strict "$@"
echo "site built: outputs/site/index.html"
