#!/usr/bin/env bash
# Trains on a machine with NVIDIA GPUs over ssh, on one, some or all of them.
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
Trains on a machine with NVIDIA GPUs over ssh, on one, some or all of them. The machine
must exist; it is neither created nor deleted here.

  launch/gpu_node.sh [--dry-run] VERB [-- TRAINING_FLAG …]

  install    copies this checkout there and installs it
  run        starts training, which continues when the connection ends
  status     shows the state of training;  logs: shows the end of its log
  stop       saves a checkpoint and stops training
  resume     continues from the newest checkpoint; give it the flags of run
  fetch      copies results here, without checkpoints
  profile    runs a few steps on random data and copies their trace here

Settings, from the environment:
  HOST         for ssh: user@host, or a name from ~/.ssh/config (no default)
  GPUS         their numbers, such as 0 or 0,1,2,3 (all)
$SETTINGS
               on the machine or gs:// (no default)
  WORKDIR      on the machine, relative to ~/rahf, or gs:// (runs/RUN)
  RESULTS      local folder for fetch (runs/fetched/RUN)
END_OF_USAGE
}

check() { require HOST; }

on_first() { run ssh "$HOST" "$1"; }

on_all() { on_first "$1"; }

to_all() { run scp "$1" "$HOST:$2"; }

from_first() { run scp "$HOST:$1" "$2"; }

do_resume() { do_run "$@"; }

main "$@"
