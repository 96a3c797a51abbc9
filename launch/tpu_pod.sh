#!/usr/bin/env bash
# Trains on a Google Cloud TPU slice, from requesting the slice to deleting it.
#
#   launch/tpu_pod.sh create      requests the slice and waits until it is ready
#   launch/tpu_pod.sh install     clones the repository on all workers, makes their environments
#   launch/tpu_pod.sh data        copies data sets and initial weights to the bucket
#   launch/tpu_pod.sh run         starts training on all workers; it continues after you log out
#   launch/tpu_pod.sh watch       monitors the run; restarts it after a pre-emption
#   launch/tpu_pod.sh log         follows worker 0
#   launch/tpu_pod.sh status      shows the state of the slice and of each worker
#   launch/tpu_pod.sh stop        saves and stops; `run` resumes
#   launch/tpu_pod.sh resume      after a pre-emption: create, install and run again
#   launch/tpu_pod.sh delete      deletes the slice; the bucket keeps the run
#
# In this order: create, install, data, run, watch. --dry-run prints the commands without running them.
# Settings are below and can be set in the environment: TYPE=v5litepod-4 launch/tpu_pod.sh ...
# The run folder is gs://BUCKET/runs/RUN: checkpoints, metrics.jsonl, logs and, at the end, model/.
# Needs gcloud, logged in; for several workers a key (ssh-add ~/.ssh/google_compute_engine); and a
# bucket to which the project's default service account may write.
set -euo pipefail

# --- settings ----------------------------------------------------------------------------------
PROJECT="${PROJECT:-}"       # Google Cloud project
ZONE="${ZONE:-}"             # a zone where you have quota for TYPE: us-west4-a
NAME="${NAME:-}"             # name of the slice
TYPE="${TYPE:-}"             # v5litepod-16, v5p-1024 (512 chips), v6e-16, v4-32
RUNTIME="${RUNTIME:-}"       # VM image; empty: the one for TYPE
SPOT="${SPOT:-yes}"          # yes: cheaper, can be pre-empted; no: on demand
BUCKET="${BUCKET:-}"         # name without gs://, best in the zone's region
REPOSITORY="${REPOSITORY:-}" # URL for git clone
COMMIT="${COMMIT:-}"         # full hash, the same on all workers
COMMAND="${COMMAND:-train}"  # train, pretrain or train-tagger
CONFIG="${CONFIG:-}"         # configs/sft_tinymu_v5e16.py
DATA="${DATA:-}"             # local output of `tinymu data prepare`
HELD_OUT="${HELD_OUT:-}"     # the same for validation; may be empty
ENCODER="${ENCODER:-}"       # initial encoder weights, a file or folder; may be empty
ARGUMENTS="${ARGUMENTS:-}"   # more options of the command; may be empty
RUN="${RUN:-$NAME}"          # name of the run
# Command that installs gcsfuse on a worker whose image lacks it; may be empty.
GCSFUSE_INSTALL="${GCSFUSE_INSTALL:-}"
POLL_SECONDS="${POLL_SECONDS:-60}"
# -----------------------------------------------------------------------------------------------

# shellcheck source-path=SCRIPTDIR source=pod_settings.sh
source "$(dirname "$0")/pod_settings.sh"
read_verb "$@"
WORKER=tinymu/launch/pod_worker.sh

runtime() {
  case "$RUNTIME:$TYPE" in
  ?*:*) echo "$RUNTIME" ;;
  :v5litepod-*) echo v2-alpha-tpuv5-lite ;;
  :v5p-*) echo v2-alpha-tpuv5 ;;
  :v6e-*) echo v2-alpha-tpuv6e ;;
  :v4-*) echo tpu-ubuntu2204-base ;;
  *) fail "RUNTIME is empty and TYPE $TYPE is unknown; set RUNTIME to its image" ;;
  esac
}

queue() {
  local verb="$1"
  shift
  perform gcloud compute tpus queued-resources "$verb" "$NAME" "--project=$PROJECT" "--zone=$ZONE" "$@"
}

# on WORKERS COMMAND: runs it there; gcloud names the worker that failed and exits with its code.
on() {
  perform gcloud compute tpus tpu-vm ssh "$NAME" "--project=$PROJECT" "--zone=$ZONE" \
    "--worker=$1" "--command=$2"
}

# on_all WHAT COMMAND: runs it on all workers; exits if one fails.
on_all() {
  local said failed
  if [ -n "$DRY_RUN" ]; then
    on all "$2"
    return
  fi
  said="$(mktemp)"
  if on all "$2" 2>&1 | tee "$said"; then
    rm -f "$said"
    return
  fi
  failed="$(sed -n 's/.*execution on worker \([0-9]*\) failed.*/\1/p' "$said" | sort -n | xargs)"
  rm -f "$said"
  give_up "$1 failed on worker ${failed:-0}; the lines above say why"
}

# slice_state ASSUMED: the state of the queued resource, NONE, or UNKNOWN if the cloud does not
# answer. A dry run prints the query and assumes ASSUMED.
slice_state() {
  local errors
  if [ -n "$DRY_RUN" ]; then
    queue describe "--format=value(state.state)" >&3
    echo "$1"
    return
  fi
  errors="$(mktemp)" # also receives gcloud's notices
  if queue describe "--format=value(state.state)" 2>"$errors"; then
    :
  elif grep -q NOT_FOUND "$errors"; then
    echo NONE
  else
    cat "$errors" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

create() {
  local image extra=() state before=""
  image="$(runtime)" || exit 2
  [ "$SPOT" = no ] || extra=(--spot)
  queue create "--node-id=$NAME" "--accelerator-type=$TYPE" "--runtime-version=$image" \
    --scopes=https://www.googleapis.com/auth/cloud-platform ${extra[@]+"${extra[@]}"}
  while true; do
    state="$(slice_state ACTIVE)"
    [ "$state" = "$before" ] || [ -n "$DRY_RUN" ] || echo "$(date +%T) $NAME is $state"
    before="$state"
    case "$state" in
    ACTIVE) return ;;
    FAILED | SUSPENDING | SUSPENDED | DELETING | NONE)
      give_up "$NAME is $state and will not become ACTIVE; see launch/tpu_pod.sh status, then delete"
      ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

install_all() {
  on_all install "{ [ -d tinymu/.git ] || git clone --quiet $(quoted "$REPOSITORY") tinymu; } && \
git -C tinymu fetch --quiet origin && git -C tinymu checkout --quiet --detach $(quoted "$COMMIT") && \
bash $WORKER install $(quoted "$BUCKET" ${GCSFUSE_INSTALL:+"$GCSFUSE_INSTALL"})"
}

run() {
  on_all run "bash $WORKER run $(quoted "gs://$BUCKET/runs/$RUN/logs") $(training_command)"
}

delete() {
  queue delete --force --quiet
}

# resume [STATE]: queries the state if it is not given.
resume() {
  local state="${1:-}"
  [ -n "$state" ] || state="$(slice_state SUSPENDED)"
  case "$state" in
  ACTIVE) ;;
  NONE) create ;;
  SUSPENDED | FAILED)
    delete
    create
    ;;
  *) give_up "$NAME is $state; try again when it is SUSPENDED, FAILED or ACTIVE" ;;
  esac
  install_all
  run
}

status() {
  queue describe
  if [ "$(slice_state ACTIVE)" = ACTIVE ]; then
    on_all status "bash $WORKER state"
  else
    echo "workers are reachable once it is ACTIVE"
  fi
}

finished() {
  perform gcloud storage ls "gs://$BUCKET/runs/$RUN/model/config.json" >/dev/null 2>&1
}

# look: the workers' state in one word: running, done, stopped, silent, or which one failed.
look() {
  local said failed
  said="$(on all "bash $WORKER state" 2>/dev/null)" || true
  failed="$(echo "$said" | sed -nE 's/^worker ([0-9]+): ended with code ([1-9][0-9]*|unknown)$/\1/p' | sort -n | xargs)"
  if [ -n "$failed" ]; then
    echo "failed on worker $failed"
  elif echo "$said" | grep -q ': running$'; then
    echo running
  elif ! echo "$said" | grep -q '^worker '; then
    echo silent
  elif finished; then
    echo "done"
  else
    echo stopped
  fi
}

# begin_anew STATE: resume, also if an earlier attempt started some workers.
begin_anew() {
  [ "$1" != ACTIVE ] || on_all stop "[ ! -f $WORKER ] || bash $WORKER stop"
  resume "$1"
}

# A single look may fall between the loss of a slice and its report: only a repeated observation counts.
# After a loss, every failing step is retried until the run is back.
watch() {
  local state found before="" seen=0 lost="" code
  runtime >/dev/null # refuse an unknown TYPE now rather than after a pre-emption
  if [ -n "$DRY_RUN" ]; then
    queue describe "--format=value(state.state)"
    on all "bash $WORKER state"
    perform gcloud storage ls "gs://$BUCKET/runs/$RUN/model/config.json"
    return
  fi
  while true; do
    state="$(slice_state ACTIVE)" found=""
    case "$state" in SUSPENDED | FAILED) lost=yes ;; esac
    case "${lost:+lost, }$state" in
    ACTIVE) found="$(look)" ;;
    NONE) give_up "there is no $NAME; begin with launch/tpu_pod.sh create" ;;
    "lost, ACTIVE" | "lost, NONE" | "lost, SUSPENDED" | "lost, FAILED")
      echo "$(date +%T) $NAME is $state: requesting it again; the run will resume"
      # Not as a condition: bash would ignore errors inside it.
      set +e
      (set -e && begin_anew "$state")
      code=$?
      set -e
      if [ "$code" -eq 0 ]; then lost="" state=ACTIVE found=begun; else found="not begun, tried again"; fi
      ;;
    esac
    if [ "$state $found" = "$before" ]; then seen=$((seen + 1)); else
      echo "$(date +%T) $NAME is $state${found:+, the run: $found}"
      seen=1
    fi
    before="$state $found"
    case "$found" in
    done)
      echo "the run is done; its model is gs://$BUCKET/runs/$RUN/model; delete the slice with launch/tpu_pod.sh delete"
      return
      ;;
    failed*) [ "$seen" -lt 2 ] || give_up "the run $found; see launch/tpu_pod.sh log and gs://$BUCKET/runs/$RUN/logs" ;;
    stopped) [ "$seen" -lt 2 ] || give_up "the run was stopped before its end; go on with launch/tpu_pod.sh run" ;;
    not*) [ "$seen" -lt 10 ] || [ "$state" != ACTIVE ] || give_up "the run could not begin; see the lines above" ;;
    silent) [ "$seen" -lt 10 ] || give_up "the workers have not answered ten times; see launch/tpu_pod.sh status" ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

exec 3>&1
need PROJECT ZONE NAME
case "$VERB" in
create) need TYPE && create ;;
install) need BUCKET REPOSITORY COMMIT && install_all ;;
data) need BUCKET DATA && upload ;;
run) need BUCKET CONFIG DATA && run ;;
log) on 0 "bash $WORKER log" ;;
status) status ;;
stop) on_all stop "bash $WORKER stop" ;;
resume) need TYPE BUCKET REPOSITORY COMMIT CONFIG DATA && resume ;;
watch) need TYPE BUCKET REPOSITORY COMMIT CONFIG DATA && watch ;;
delete) delete ;;
*) fail "$VERB: unknown verb; see launch/tpu_pod.sh --help" ;;
esac
