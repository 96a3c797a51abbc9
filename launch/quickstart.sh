#!/usr/bin/env bash
# From a fresh clone to an answer about a recording, in an environment that it makes itself.
#
#   launch/quickstart.sh song.mp3                                the published model, from the hub
#   launch/quickstart.sh song.mp3 checkpoints/tinymu.pt          a checkpoint of your own
#   launch/quickstart.sh song.mp3 tinymu.pt --prompt "..." ...   any options of `tinymu ask`
set -euo pipefail
case "${1:-}" in
"" | -h | --help)
  sed -n 's/^# \{0,1\}//p' "$0" | sed 1d
  [ -n "${1:-}" ] && exit 0
  exit 2
  ;;
esac
here="$PWD"
cd "$(dirname "$0")/.."
source launch/environment.sh
use_environment ""
cd "$here"

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
