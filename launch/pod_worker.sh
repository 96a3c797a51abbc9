#!/usr/bin/env bash
# Run by tpu_pod.sh and gke_jobset.sh on every TPU worker, from the worker's clone.
#
#   pod_worker.sh install BUCKET [COMMAND]  mounts the bucket, makes the environment; COMMAND
#                                           installs gcsfuse if it is missing
#   pod_worker.sh run LOGS COMMAND...       starts it in the background; also logs to LOGS
#   pod_worker.sh state                     prints whether it is running, or how it ended
#   pod_worker.sh log                       follows its log
#   pod_worker.sh stop                      makes it save and stop, and waits
#   pod_worker.sh here FOLDER COMMAND...    runs it in the foreground (Kubernetes); FOLDER is the run folder
set -euo pipefail
cd "$(dirname "$0")/.."
MOUNT="${MOUNT:-/mnt/tinymu}"
JOB="${JOB:-$HOME/tinymu_job}" # log, process id and exit code
METADATA="${METADATA:-http://metadata.google.internal/computeMetadata/v1/instance/attributes}"

number() {
  curl -sf -H "Metadata-Flavor: Google" "$METADATA/agent-worker-number" || echo 0
}

running() {
  [ -f "$JOB/pid" ] && [ ! -f "$JOB/code" ] && kill -0 "$(cat "$JOB/pid")" 2>/dev/null
}

install_all() {
  local bucket="$1" command="${2:-}"
  command -v gcsfuse >/dev/null || [ -z "$command" ] || bash -c "$command"
  command -v gcsfuse >/dev/null || {
    echo "error: gcsfuse is missing on this image: set GCSFUSE_INSTALL to a command that installs it as the" \
      "documentation of Cloud Storage FUSE says, then run install again" >&2
    exit 1
  }
  sudo mkdir -p "$MOUNT"
  sudo chown "$(id -u)" "$MOUNT"
  # No caches: a worker must see at once what another one wrote.
  mountpoint -q "$MOUNT" || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$bucket" "$MOUNT"
  # TPU images have Python 3.10; uv installs a newer one.
  command -v "$HOME/.local/bin/uv" >/dev/null || python3 -m pip install --quiet --user uv
  "$HOME/.local/bin/uv" venv --quiet --allow-existing --python 3.12 .venv
  "$HOME/.local/bin/uv" pip install --quiet --python .venv/bin/python 'jax[tpu]' -e '.[buckets]'
  echo "worker $(number): installed"
}

start() {
  ! running || { echo "worker $(number): is already running; stop it first" >&2 && exit 1; }
  mkdir -p "$JOB"
  rm -f "$JOB/code" "$JOB/pid"
  # In its own session, so that it outlives the ssh connection.
  setsid nohup bash launch/pod_worker.sh work "$@" </dev/null >"$JOB/log" 2>&1 &
  echo "worker $(number): started"
}

# work LOGS COMMAND...: runs it, copies its log to the bucket every minute, records its exit code.
work() {
  local logs="$1" copier code=0 copy
  shift
  copy="$logs/worker-$(number)-$(date -u +%Y%m%dT%H%M%S).log"
  export PATH="$PWD/.venv/bin:$PATH"
  "$@" &
  echo $! >"$JOB/pid"
  (
    trap 'kill "${pause:-}" 2>/dev/null || true; exit 0' TERM
    while
      sleep "${COPY_SECONDS:-60}" &
      pause=$!
      wait "$pause"
    do gcloud storage cp --quiet "$JOB/log" "$copy" >/dev/null 2>&1 || true; done
  ) &
  copier=$!
  wait "$(cat "$JOB/pid")" || code=$?
  echo "$code" >"$JOB/code"
  kill "$copier" || true
  wait "$copier" || true # a copy in progress must not overwrite the last one
  gcloud storage cp --quiet "$JOB/log" "$copy" >/dev/null 2>&1 || true
}

state() {
  # The run may have ended before its exit code is recorded.
  running || [ ! -f "$JOB/pid" ] || [ -f "$JOB/code" ] || sleep 1
  if running; then
    echo "worker $(number): running"
  elif [ -f "$JOB/code" ]; then
    echo "worker $(number): ended with code $(cat "$JOB/code")"
  elif [ -f "$JOB/pid" ]; then
    echo "worker $(number): ended with code unknown"
  else
    echo "worker $(number): not started"
  fi
}

stop() {
  local waited=0
  if running; then
    kill -TERM "$(cat "$JOB/pid")" || true
    while running && [ "$waited" -lt "${STOP_SECONDS:-300}" ]; do
      sleep 1
      waited=$((waited + 1))
    done
    ! running || kill -KILL "$(cat "$JOB/pid")"
  fi
  state
}

# here FOLDER COMMAND...: forwards SIGTERM and logs to the folder. A run without a model at its end was
# stopped early: exit code 75, since Kubernetes restarts only failures.
here() {
  local folder="$1" index="${JOB_COMPLETION_INDEX:-0}" code=0 command="" log pipe again=""
  shift
  # Before the command, which may be stopped at once.
  trap 'again=1; [ -z "$command" ] || kill -TERM "$command" 2>/dev/null || true' TERM
  mkdir -p "$folder/logs"
  pipe="$(mktemp -d)/pipe"
  mkfifo "$pipe"
  tee "$folder/logs/worker-$index-$(date -u +%Y%m%dT%H%M%S).log" <"$pipe" &
  log=$!
  "$@" >"$pipe" 2>&1 &
  command=$!
  [ -z "$again" ] || kill -TERM "$command" 2>/dev/null || true
  while
    code=0 again=""
    wait "$command" || code=$?
    [ -n "$again" ] # a signal ended `wait`, not the command
  do :; done
  # bash may lose the exit code of a command that ends while a signal is handled; it is -1 then.
  [ "$code" -ge 0 ] || code=75
  trap '' TERM
  wait "$log" # the bucket has the log once the file is closed
  [ "$code" -ne 0 ] || [ "$index" -ne 0 ] || [ -f "$folder/model/config.json" ] || code=75
  exit "$code"
}

verb="${1:-}"
[ $# -eq 0 ] || shift
case "$verb" in
install) install_all "$@" ;;
run) start "$@" ;;
work) work "$@" ;;
state) state ;;
log) exec tail -n 50 -F "$JOB/log" ;;
stop) stop ;;
here) here "$@" ;;
*) echo "error: give install, run, state, log, stop or here" >&2 && exit 2 ;;
esac
