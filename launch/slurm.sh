#!/usr/bin/env bash
# Trains on a Slurm cluster with NVIDIA GPUs; run it on the login node.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"

NODES=${NODES:-1}
GPUS=${GPUS:-8}
CPUS=${CPUS:-8}
TIME=${TIME:-24:00:00}
RESTARTS=${RESTARTS:-50}
VENV=${VENV:-$ROOT/.venv}
WORKDIR=${WORKDIR:-$ROOT/runs/$RUN}
LOG=${LOG:-$ROOT/runs/$RUN.log}
VERBS='install run status logs stop resume'

usage() {
  cat <<END_OF_USAGE
Trains on a Slurm cluster with NVIDIA GPUs. Run it on the login node, in a checkout that
all nodes can read. There is nothing to create, delete or fetch: results are in WORKDIR.

  launch/slurm.sh [--dry-run] VERB [-- TRAINING_FLAG …]

  install    installs this checkout into VENV; the login node needs internet access
  run        submits a job, which saves before its time limit and requeues itself until
             training is finished
  status     shows whether the job is waiting or running;  logs: shows the end of its log
  stop       cancels the job, which has Slurm's KillWait to save
  resume     submits the job again, to continue from the newest checkpoint; give it the
             flags of run

Settings, from the environment; sbatch reads more of them, such as SBATCH_PARTITION and
SBATCH_ACCOUNT:
  NODES        number of nodes (1)
  GPUS         per node, with one process each (8)
  CPUS         per process (8)
  TIME         time limit of each part (24:00:00)
  RESTARTS     how often the job may requeue itself (50)
$SETTINGS
               absolute, on a file system that all nodes can read, or gs:// (no default)
  WORKDIR      likewise (runs/RUN in the checkout)
  LOG          log file (runs/RUN.log in the checkout)
  VENV         virtual environment (.venv in the checkout)
END_OF_USAGE
}

check() { :; }

do_install() { run bash "$ROOT/launch/remote/job.sh" venv "$VENV" "$ROOT" cuda; }

do_run() {
  require DATA
  set_flags '' "$@"
  run mkdir -p "$(dirname "$LOG")"
  # One task per GPU, as JAX expects under Slurm. A second job of the same name waits for
  # the first, as both would write to the same directory.
  run sbatch --job-name="rahf-$RUN" --dependency=singleton --chdir="$ROOT" \
    --nodes="$NODES" --gpus-per-node="$GPUS" --ntasks-per-node="$GPUS" \
    --cpus-per-task="$CPUS" --time="$TIME" --output="$LOG" \
    "$ROOT/launch/remote/slurm.sbatch" "$VENV/bin/python" "$WORKDIR" "$RESTARTS" \
    "${flags[@]}"
}

do_resume() { do_run "$@"; }

do_status() { run squeue --me --name="rahf-$RUN"; }

do_logs() { run tail -n 100 "$LOG"; }

do_stop() { run scancel --me --name="rahf-$RUN"; }

main "$@"
