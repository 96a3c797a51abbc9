#!/usr/bin/env bash
# Runs the same as tpu_pod.sh on Google Kubernetes Engine: one JobSet, restarted after a pre-emption.
#
#   launch/gke_jobset.sh data       copies data sets and initial weights to the bucket
#   launch/gke_jobset.sh apply      starts the run; --dry-run prints its manifest
#   launch/gke_jobset.sh log        follows worker 0
#   launch/gke_jobset.sh status     shows the JobSet and its workers
#   launch/gke_jobset.sh delete     stops it; the bucket keeps the run, and `apply` resumes it
#
# --dry-run prints the commands without running them. Settings are below and can be set in the
# environment. The run folder is gs://BUCKET/runs/RUN: checkpoints, metrics.jsonl, logs, model/.
# The cluster needs a TPU node pool of TOPOLOGY, JobSet 0.6 or newer (kubectl apply --server-side -f its
# release), the add-on GcsFuseCsiDriver, and a service account that may write to the bucket.
set -euo pipefail

# --- settings ----------------------------------------------------------------------------------
CONTEXT="${CONTEXT:-}"             # kubectl context, see kubectl config get-contexts
NAMESPACE="${NAMESPACE:-default}"  # namespace in the cluster
ACCOUNT="${ACCOUNT:-default}"      # Kubernetes service account with access to the bucket
NAME="${NAME:-}"                   # name of the JobSet
ACCELERATOR="${ACCELERATOR:-}"     # tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, tpu-v4-podslice
TOPOLOGY="${TOPOLOGY:-}"           # 4x4 (16 chips of v5e or v6e), 8x8x8 (512 chips of v5p)
CHIPS="${CHIPS:-4}"                # chips per machine of the node pool
SPOT="${SPOT:-yes}"                # yes: spot nodes; no: on demand
IMAGE="${IMAGE:-python:3.12}"      # with git and pip; the package is installed at the start
BUCKET="${BUCKET:-}"               # name without gs://
REPOSITORY="${REPOSITORY:-}"       # URL for git clone
COMMIT="${COMMIT:-}"               # full hash
COMMAND="${COMMAND:-train}"        # train, pretrain or train-tagger
CONFIG="${CONFIG:-}"               # configs/sft_tinymu_v5e16.py
DATA="${DATA:-}"                   # local output of `tinymu data prepare`
HELD_OUT="${HELD_OUT:-}"           # the same for validation; may be empty
ENCODER="${ENCODER:-}"             # initial encoder weights; may be empty
ARGUMENTS="${ARGUMENTS:-}"         # more options of the command; may be empty
RUN="${RUN:-$NAME}"                # name of the run
RESTARTS="${RESTARTS:-10}"         # restarts after failures; pre-emptions do not count
# -----------------------------------------------------------------------------------------------

# shellcheck source-path=SCRIPTDIR source=pod_settings.sh
source "$(dirname "$0")/pod_settings.sh"
read_verb "$@"
WORKERS="jobset.sigs.k8s.io/jobset-name=$NAME"

cluster() {
  perform kubectl "--context=$CONTEXT" "--namespace=$NAMESPACE" "$@"
}

hosts() {
  local chips
  [[ "$TOPOLOGY" =~ ^[0-9]+(x[0-9]+)+$ ]] || fail "TOPOLOGY $TOPOLOGY: give it as 4x4 or 2x2x2"
  [[ "$CHIPS" =~ ^[1-9][0-9]*$ ]] || fail "CHIPS $CHIPS: give the number of chips of one machine"
  chips=$((${TOPOLOGY//x/*}))
  [ $((chips % CHIPS)) -eq 0 ] || fail "TOPOLOGY $TOPOLOGY has $chips chips, not a multiple of CHIPS $CHIPS"
  echo $((chips / CHIPS))
}

# worker_script: the command of every worker's container.
worker_script() {
  echo "set -euo pipefail"
  echo "git clone --quiet $(quoted "$REPOSITORY") /tinymu"
  echo "cd /tinymu"
  echo "git checkout --quiet --detach $(quoted "$COMMIT")"
  echo "pip install --quiet 'jax[tpu]' -e '.[buckets]'"
  echo "exec bash launch/pod_worker.sh here $(quoted "$MOUNT/runs/$RUN") $(training_command)"
}

manifest() {
  local hosts spot=""
  hosts="$(hosts)" || exit 2
  [ "$SPOT" = no ] || spot='
                cloud.google.com/gke-spot: "true"'
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: "$NAME"
  namespace: "$NAMESPACE"
  annotations:
    # All workers on one slice.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  # A headless service of this name lets the workers find each other.
  network:
    enableDNSHostnames: true
    subdomain: "$NAME"
  # On any failure, all workers restart from the last checkpoint.
  failurePolicy:
    maxRestarts: $RESTARTS
    rules:
      - name: preempted
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: 1
      template:
        spec:
          parallelism: $hosts
          completions: $hosts
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onPodConditions:
                  - type: DisruptionTarget
                    status: "True"
          template:
            metadata:
              annotations:
                gke-gcsfuse/volumes: "true"
            spec:
              restartPolicy: Never
              serviceAccountName: "$ACCOUNT"
              # Time to save; a pre-empted node gives less.
              terminationGracePeriodSeconds: 120
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: "$ACCELERATOR"
                cloud.google.com/gke-tpu-topology: "$TOPOLOGY"$spot
              tolerations:
                - {key: google.com/tpu, operator: Exists, effect: NoSchedule}
                - {key: cloud.google.com/gke-spot, operator: Exists, effect: NoSchedule}
              containers:
                - name: train
                  image: "$IMAGE"
                  command: [bash, -c]
                  args:
                    - |
$(worker_script | sed 's/^/                      /')
                  resources:
                    requests: {google.com/tpu: $CHIPS}
                    limits: {google.com/tpu: $CHIPS}
                  volumeMounts:
                    - {name: bucket, mountPath: $MOUNT}
              volumes:
                - name: bucket
                  csi:
                    driver: gcsfuse.csi.storage.gke.io
                    volumeAttributes:
                      bucketName: "$BUCKET"
                      # No caches: a worker must see at once what another one wrote.
                      mountOptions: implicit-dirs,metadata-cache:ttl-secs:0
YAML
}

apply() {
  local page
  page="$(manifest)" || exit 2
  if [ -n "$DRY_RUN" ]; then
    echo "# $(cluster apply --filename=-)"
    echo "$page"
  else
    echo "$page" | cluster apply --filename=-
    echo "follow it: launch/gke_jobset.sh log"
  fi
}

case "$VERB" in
data) need BUCKET DATA && upload ;;
apply)
  need CONTEXT NAME ACCELERATOR TOPOLOGY BUCKET REPOSITORY COMMIT CONFIG DATA
  apply
  ;;
log)
  need CONTEXT NAME
  cluster logs --follow --container=train "--selector=$WORKERS,batch.kubernetes.io/job-completion-index=0"
  ;;
status)
  need CONTEXT NAME
  cluster get jobset "$NAME"
  cluster get pods --output=wide "--selector=$WORKERS"
  ;;
delete) need CONTEXT NAME && cluster delete jobset "$NAME" ;;
*) fail "$VERB: unknown verb; see launch/gke_jobset.sh --help" ;;
esac
