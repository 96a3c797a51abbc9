# shellcheck shell=bash
# Sourced by tpu_pod.sh and gke_jobset.sh: checks, dry runs, and the training command of both.

MOUNT=/mnt/tinymu # mount point of the bucket; the run folder must be visible to all workers

# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Like fail, for errors at run time.
give_up() {
  echo "error: $*" >&2
  exit 1
}

# need NAME...: fails if one of these settings is empty.
need() {
  local name
  for name in "$@"; do
    [ -n "${!name}" ] || fail "$name has no value; set it at the top of launch/$(basename "$0"), or in the environment"
  done
}

# quoted WORD...: shell-quotes the words.
quoted() {
  local word first=yes
  for word in "$@"; do
    [ -n "$first" ] || printf ' '
    first=""
    case "$word" in
    "" | *[!A-Za-z0-9_/:=.,@%+-]*) printf "'%s'" "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")" ;;
    *) printf '%s' "$word" ;;
    esac
  done
}

# perform COMMAND...: runs it, or prints it in a dry run.
perform() {
  if [ -n "$DRY_RUN" ]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# base PATH: last component, without a trailing slash.
base() {
  basename "${1%/}"
}

# training_command: what every worker runs. --resume continues from the last checkpoint, if any.
training_command() {
  local words
  words=(tinymu "$COMMAND" --config "$CONFIG" --resume
    --output "$MOUNT/runs/$RUN" --checkpoints "gs://$BUCKET/runs/$RUN/checkpoints"
    --data.train "gs://$BUCKET/data/$(base "$DATA")")
  [ -z "$HELD_OUT" ] || words+=(--data.validation "gs://$BUCKET/data/$(base "$HELD_OUT")")
  [ -z "$ENCODER" ] || words+=(--init.encoder "$MOUNT/start/$(base "$ENCODER")")
  quoted "${words[@]}"
  [ -z "$ARGUMENTS" ] || printf ' %s' "$ARGUMENTS"
}

# upload: copies data sets and initial weights to the bucket, skipping what is already there.
upload() {
  local folder
  for folder in "$DATA" ${HELD_OUT:+"$HELD_OUT"}; do
    perform gcloud storage rsync --recursive "$folder" "gs://$BUCKET/data/$(base "$folder")"
  done
  if [ -d "$ENCODER" ]; then
    perform gcloud storage rsync --recursive "$ENCODER" "gs://$BUCKET/start/$(base "$ENCODER")"
  elif [ -n "$ENCODER" ]; then
    perform gcloud storage cp "$ENCODER" "gs://$BUCKET/start/"
  fi
}

# read_verb ARGUMENT...: sets VERB and DRY_RUN.
read_verb() {
  VERB="" DRY_RUN=""
  local argument
  for argument in "$@"; do
    help_if_asked "$argument"
    case "$argument" in
    --dry-run) DRY_RUN=yes ;;
    -*) fail "$argument: unknown option; see launch/$(basename "$0") --help" ;;
    *)
      [ -z "$VERB" ] || fail "one verb at a time: $VERB or $argument"
      VERB="$argument"
      ;;
    esac
  done
  [ -n "$VERB" ] || fail "no verb given; see launch/$(basename "$0") --help"
}
