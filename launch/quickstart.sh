#!/usr/bin/env bash
# From a fresh clone to an answer about a recording. Makes its own environment.
#
#   launch/quickstart.sh                                         no download: tests the small model in
#                                                                the package, trains, fine-tunes and
#                                                                exports one (8 minutes)
#   launch/quickstart.sh --minutes 1 ...                         options of `tinymu quickstart`
#   launch/quickstart.sh song.mp3                                the published model from the hub
#   launch/quickstart.sh song.mp3 checkpoints/tinymu.pt          your own checkpoint, or nano
#   launch/quickstart.sh song.mp3 tinymu.pt --prompt "..." ...   options of `tinymu ask`
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_if_asked "$@"
here="$PWD"
cd "$(dirname "$0")/.."
use_environment ""
cd "$here"

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
  exec tinymu quickstart "$@"
fi

recording="$1"
shift
arguments=()
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  arguments+=(--checkpoint "$1")
  shift
fi
case " $* " in
*" --prompt "* | *" --prompt="*) ;;
*) arguments+=(--prompt "Describe the music you hear.") ;;
esac
exec tinymu ask "$recording" ${arguments[@]+"${arguments[@]}"} "$@"
