#!/usr/bin/env bash
# Trains on a machine with NVIDIA GPUs that is reached by ssh: on one, some or all.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"
source "$here/machine.sh"

HOST=${HOST:-}
GPUS=${GPUS:-}
EXTRA=cuda
# One process drives all of them.
[[ -z $GPUS ]] || PREFIX="$(words env "CUDA_VISIBLE_DEVICES=$GPUS") "
WORKDIR=${WORKDIR:-runs/$RUN}
VERBS='install run status logs stop resume fetch profile'

usage() {
  cat <<END_OF_USAGE
Trains on a machine with NVIDIA GPUs that is reached by ssh: on one, some or all of
them. The machine is yours: it is neither created nor deleted here.

  launch/gpu_node.sh [--dry-run] VERB [-- FLAG_OF_THE_TRAINING …]

  install    copies this checkout there and installs it
  run        starts training, which goes on when the connection ends
  status     says how it is going;  logs: the end of its log
  stop       saves a checkpoint and ends it
  resume     goes on from the newest checkpoint; give it run's flags
  fetch      copies results here, without checkpoints
  profile    runs a few steps on random data, and copies a trace of them here

Settings, from the environment:
  HOST         as ssh takes it: user@host, or a name from ~/.ssh/config (no default)
  GPUS         their numbers, such as 0 or 0,1,2,3 (all)
$SETTINGS
               on the machine or gs:// (no default)
  WORKDIR      on the machine, from ~/rahf, or gs:// (runs/RUN)
  RESULTS      where fetch copies to (runs/fetched/RUN)
END_OF_USAGE
}

check() { require HOST; }

on_first() { run ssh "$HOST" "$1"; }

on_all() { on_first "$1"; }

to_all() { run scp "$1" "$HOST:$2"; }

from_first() { run scp "$HOST:$1" "$2"; }

do_resume() { do_run "$@"; }

main "$@"
