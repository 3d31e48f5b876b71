#!/usr/bin/env bash
# Trains on a Slurm cluster with NVIDIA GPUs; to be run on its login node.
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
Trains on a Slurm cluster with NVIDIA GPUs. It is run on the login node, in a checkout
that the nodes see. The cluster is yours and results lie in WORKDIR: there is nothing
to create, delete or fetch.

  launch/slurm.sh [--dry-run] VERB [-- FLAG_OF_THE_TRAINING …]

  install    installs this checkout into VENV; the login node needs the network
  run        submits a job, which saves before its time limit and queues itself again
             until training is finished
  status     says whether it waits or runs;  logs: the end of its log
  stop       cancels it; it has Slurm's KillWait to save
  resume     submits it again, to go on from the newest checkpoint; give it run's flags

Settings, from the environment; sbatch reads more of them, such as SBATCH_PARTITION and
SBATCH_ACCOUNT:
  NODES        how many (1)
  GPUS         of each node, one process each (8)
  CPUS         of each process (8)
  TIME         limit of each part (24:00:00)
  RESTARTS     how often it queues itself again at most (50)
$SETTINGS
               absolute, on a file system that all nodes see, or gs:// (no default)
  WORKDIR      likewise (runs/RUN in the checkout)
  LOG          where output goes (runs/RUN.log in the checkout)
  VENV         where it is installed (.venv in the checkout)
END_OF_USAGE
}

check() { :; }

do_install() { run bash "$ROOT/launch/remote/job.sh" venv "$VENV" "$ROOT" cuda; }

do_run() {
  require DATA
  set_flags '' "$@"
  run mkdir -p "$(dirname "$LOG")"
  # One task for each GPU, as JAX expects under Slurm. Of two jobs of a name the second
  # waits for the first: they would write to the same directory.
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
