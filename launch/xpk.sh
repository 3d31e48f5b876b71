#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster with XPK (pip install xpk).
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"

PROJECT=${PROJECT:-}
ZONE=${ZONE:-}
CLUSTER=${CLUSTER:-rahf}
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
CAPACITY=${CAPACITY:-spot}
IMAGE=${IMAGE:-python:3.12}
RESTARTS=${RESTARTS:-20}
WORKLOAD=${WORKLOAD:-$(printf '%s' "$RUN" | tr 'A-Z_' 'a-z-')}
VERBS='create run status logs stop resume fetch delete'
place=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER")

usage() {
  cat <<END_OF_USAGE
Trains on TPU slices of a GKE cluster with XPK (pip install xpk). There is nothing to
install: the checkout becomes part of the container image.

  launch/xpk.sh [--dry-run] VERB [-- TRAINING_FLAG …]

  create     creates the cluster with one slice; it costs money from then on
  run        starts training as a workload, which is restarted after a preemption
  status     shows the state of the workload;  logs: shows the end of its first host's log
  stop       saves a checkpoint and deletes the workload
  resume     deletes the workload and starts it again, to continue from the newest
             checkpoint; give it the flags of run
  fetch      copies results here, without checkpoints
  delete     deletes the cluster

Settings, from the environment:
  PROJECT      a Google Cloud project (no default)
  ZONE         where it has quota for the accelerator (no default)
  CLUSTER      its name (rahf)
  ACCELERATOR  type of the slice (v5litepod-16)
  CAPACITY     spot, on-demand, flex or reservation=NAME (spot)
  IMAGE        base image with Python 3.11 or newer and pip; starts faster if it has the
               dependencies (python:3.12)
  RESTARTS     how often the workload may be restarted (20)
  WORKLOAD     its name: lower-case letters, digits, - (RUN)
$SETTINGS
               gs:// (no default)
  WORKDIR      gs:// (no default)
  RESULTS      local folder for fetch (runs/fetched/RUN)
END_OF_USAGE
}

check() {
  require PROJECT ZONE
  case $CAPACITY in
    spot | on-demand | flex | reservation=?*) ;;
    *) fail "CAPACITY=$CAPACITY is not one of spot, on-demand, flex, reservation=NAME" ;;
  esac
}

do_create() {
  run xpk cluster create "${place[@]}" --tpu-type="$ACCELERATOR" --num-slices=1 \
    "--$CAPACITY"
}

do_run() {
  local copy=${TMPDIR:-/tmp}/rahf-$RUN command
  require_bucket WORKDIR DATA
  set_flags '' --multihost "$@"
  # exec: XPK sends SIGTERM to this process only.
  command="pip install --quiet '.[tpu]' && exec python launch/remote/attempt.py"
  run rm -rf "$copy"
  run mkdir -p "$copy"
  run bash "$ROOT/launch/pack.sh" "$copy.tar"
  run tar -xf "$copy.tar" -C "$copy"
  # Status 42 (stopped) always restarts a workload; hosts may end with 1 when another is
  # gone; 2 is a mistake, which must not restart it.
  run xpk workload create "${place[@]}" --workload="$WORKLOAD" \
    --tpu-type="$ACCELERATOR" --base-docker-image="$IMAGE" --script-dir="$copy" \
    --max-restarts="$RESTARTS" --restart-on-exit-codes=1 \
    --termination-grace-period-seconds=180 --command="$command $(words "${flags[@]}")"
}

do_status() { run xpk workload list "${place[@]}" --filter-by-job="$WORKLOAD"; }

do_logs() {
  local labels=xpk.google.com/workload=$WORKLOAD
  # XPK makes clusters for a whole region.
  run gcloud container clusters get-credentials "$CLUSTER" --project="$PROJECT" \
    --location="${ZONE%-*}"
  run kubectl logs --tail=100 \
    --selector="$labels,batch.kubernetes.io/job-completion-index=0"
}

do_stop() { run xpk workload delete "${place[@]}" --workload="$WORKLOAD"; }

do_resume() {
  require_bucket WORKDIR DATA
  do_stop
  do_run "$@"
}

do_fetch() {
  require_bucket WORKDIR
  fetch_from_bucket
}

do_delete() { run xpk cluster delete "${place[@]}"; }

main "$@"
