#!/usr/bin/env bash
# Trains on a TPU VM: one host with its chips.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"
source "$here/machine.sh"
source "$here/tpu.sh"

ACCELERATOR=${ACCELERATOR:-v5litepod-8}
WORKDIR=${WORKDIR:-runs/$RUN}
VERBS='create install run status logs stop resume fetch profile delete'

usage() {
  cat <<END_OF_USAGE
Trains on a TPU VM: one host with its chips.

  launch/tpu_vm.sh [--dry-run] VERB [-- TRAINING_FLAG …]

  create     creates the machine, on demand; it costs money from then on
  install    copies this checkout there and installs it
  run        starts training, which continues when the connection ends
  status     shows the state of training;  logs: shows the end of its log
  stop       saves a checkpoint and stops training
  resume     continues from the newest checkpoint; give it the flags of run
  fetch      copies results here, without checkpoints
  profile    runs a few steps on random data and copies their trace here
  delete     deletes the machine and its disk, including runs

Settings, from the environment:
$TPU_SETTINGS
  ACCELERATOR  its type (v5litepod-8)
$SETTINGS
               on the machine or gs:// (no default)
  WORKDIR      on the machine, relative to ~/rahf, or gs:// (runs/RUN)
  RESULTS      local folder for fetch (runs/fetched/RUN)
END_OF_USAGE
}

do_create() {
  run "${tpu[@]}" create "$NAME" "${place[@]}" \
    --accelerator-type="$ACCELERATOR" --version="$VERSION"
}

do_resume() { do_run "$@"; }

do_delete() { run "${tpu[@]}" delete "$NAME" "${place[@]}"; }

main "$@"
