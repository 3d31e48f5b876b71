#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, by XPK (pip install xpk).
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
Trains on TPU slices of a GKE cluster, by XPK (pip install xpk). There is nothing to
install: the checkout goes into the container image.

  launch/xpk.sh [--dry-run] VERB [-- FLAG_OF_THE_TRAINING …]

  create     makes the cluster, with one slice; it costs from then on
  run        starts training as a workload, which is restarted when it is preempted
  status     says how the workload is;  logs: the end of its first host's log
  stop       saves a checkpoint and deletes the workload
  resume     deletes the workload and starts it again, to go on from the newest
             checkpoint; give it run's flags
  fetch      copies results here, without checkpoints
  delete     deletes the cluster

Settings, from the environment:
  PROJECT      a Google Cloud project (no default)
  ZONE         where it has quota for the accelerator (no default)
  CLUSTER      its name (rahf)
  ACCELERATOR  type of the slice (v5litepod-16)
  CAPACITY     spot, on-demand, flex or reservation=NAME (spot)
  IMAGE        what the checkout is laid upon, with Python 3.11 or newer and pip; one
               that has the dependencies starts faster (python:3.12)
  RESTARTS     how often the workload is restarted at most (20)
  WORKLOAD     its name: small letters, digits, - (RUN)
$SETTINGS
               gs:// (no default)
  WORKDIR      gs:// (no default)
  RESULTS      where fetch copies to (runs/fetched/RUN)
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
  # exec: XPK passes SIGTERM to this process alone.
  command="pip install --quiet '.[tpu]' && exec python launch/remote/attempt.py"
  run rm -rf "$copy"
  run mkdir -p "$copy"
  run bash "$ROOT/launch/pack.sh" "$copy.tar"
  run tar -xf "$copy.tar" -C "$copy"
  # 42, stopped, restarts a workload anyway; 1 is how hosts may end when another is
  # gone; 2 is a mistake, which ends it.
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
