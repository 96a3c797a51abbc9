#!/usr/bin/env bash
# The run of tpu_pod.sh on Google Kubernetes Engine: one JobSet, started anew after a pre-emption.
#
#   launch/gke_jobset.sh data       copies the data sets and the start's weights to the bucket
#   launch/gke_jobset.sh apply      starts the run; --dry-run prints its manifest
#   launch/gke_jobset.sh log        follows worker 0
#   launch/gke_jobset.sh status     the JobSet and its workers
#   launch/gke_jobset.sh delete     stops it; the bucket keeps the run, and `apply` goes on with it
#
# --dry-run shows what would be done and does nothing. Settings are below; each can also be given in
# the environment. The run's folder is gs://BUCKET/runs/RUN: checkpoints, metrics.jsonl, logs, model/.
# The cluster needs a TPU node pool of TOPOLOGY, JobSet 0.6 or newer (kubectl apply --server-side -f its
# release), the add-on GcsFuseCsiDriver, and a service account that may write to the bucket.
set -euo pipefail

# --- settings ----------------------------------------------------------------------------------
CONTEXT="${CONTEXT:-}"             # of kubectl: kubectl config get-contexts
NAMESPACE="${NAMESPACE:-default}"  # in the cluster
ACCOUNT="${ACCOUNT:-default}"      # Kubernetes' service account, with access to the bucket
NAME="${NAME:-}"                   # of the JobSet
ACCELERATOR="${ACCELERATOR:-}"     # tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, tpu-v4-podslice
TOPOLOGY="${TOPOLOGY:-}"           # 4x4 (16 chips of v5e or v6e), 8x8x8 (512 chips of v5p)
CHIPS="${CHIPS:-4}"                # of one machine of the node pool
SPOT="${SPOT:-yes}"                # yes: nodes that may be taken away; no: others
IMAGE="${IMAGE:-python:3.12}"      # with git and pip; the package is installed at the start
BUCKET="${BUCKET:-}"               # name without gs://
REPOSITORY="${REPOSITORY:-}"       # address that git can clone
COMMIT="${COMMIT:-}"               # the whole hash
COMMAND="${COMMAND:-train}"        # train, pretrain or train-tagger
CONFIG="${CONFIG:-}"               # configs/sft_tinymu_v5e16.py
DATA="${DATA:-}"                   # folder of `tinymu data prepare`, here
HELD_OUT="${HELD_OUT:-}"           # the same for validation; may be empty
ENCODER="${ENCODER:-}"             # weights that the encoder begins with; may be empty
ARGUMENTS="${ARGUMENTS:-}"         # more options of the command; may be empty
RUN="${RUN:-$NAME}"                # name of the run
RESTARTS="${RESTARTS:-10}"         # after failures; pre-emptions are not counted
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
  [ $((chips % CHIPS)) -eq 0 ] || fail "TOPOLOGY $TOPOLOGY has $chips chips, no multiple of CHIPS $CHIPS"
  echo $((chips / CHIPS))
}

# worker_script: what the container of every worker runs.
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
  # Whatever fails, all workers begin anew, from the last checkpoint.
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
              # Time to save; nodes that are taken away give less.
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
                      # Without caches: a worker must see at once what another one has written.
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
*) fail "$VERB is no verb; see launch/gke_jobset.sh --help" ;;
esac
