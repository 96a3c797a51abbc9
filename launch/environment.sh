# shellcheck shell=bash
# Sourced by the other scripts: makes a virtual environment once and activates it.
#
# TINYMU_VENV   its path (default: .venv in the clone)
# PYTHON        the interpreter (default: the newest of python3.13, 3.12, 3.11, python3)

fail() {
  echo "error: $*" >&2
  exit 2
}

# show_help FILE: prints the comments at its top.
show_help() {
  sed -n '2,/^set -euo/s/^# \{0,1\}//p' "$1"
}

# help_if_asked ARGUMENT...: prints the script's help and exits if -h or --help comes first.
help_if_asked() {
  case "${1:-}" in
  -h | --help)
    show_help "$0"
    exit 0
    ;;
  esac
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer with venv was found; install one, or name it with PYTHON=..."
}

# use_environment EXTRAS: installs the package with these extras ("" for none) if they changed.
use_environment() {
  local extras="$1" venv="${TINYMU_VENV:-.venv}" python wanted free
  # The file holds a checksum of the requirements and the installed extras, one per line.
  wanted="$(cat requirements.txt pyproject.toml | cksum)"
  if ! grep -qxF "$wanted" "$venv/installed" 2>/dev/null || ! grep -qxF "+$extras" "$venv/installed"; then
    python="$(find_python)" || exit 2
    mkdir -p "$venv" || fail "$venv cannot be created; set TINYMU_VENV to a writable path"
    free="$(df -Pk "$venv" | awk 'NR == 2 { print $4 }')"
    [ "${free:-0}" -gt 4000000 ] || fail "less than 4 GB free for $venv; free some space, or set TINYMU_VENV to another disk"
    echo "installing into $venv with $("$python" --version) (a few minutes, up to 4 GB) ..."
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || fail "$python cannot make a virtual environment in $venv"
    {
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    } || fail "packages could not be installed; check the network and the lines above"
    grep -qxF "$wanted" "$venv/installed" 2>/dev/null || printf '%s\n+\n' "$wanted" >"$venv/installed"
    [ -z "$extras" ] || echo "+$extras" >>"$venv/installed"
  fi
  PATH="$(cd "$venv" && pwd)/bin:$PATH"
  export PATH
}
