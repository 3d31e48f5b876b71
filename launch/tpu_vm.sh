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

  launch/tpu_vm.sh [--dry-run] VERB [-- FLAG_OF_THE_TRAINING …]

  create     makes the machine, on demand; it costs from then on
  install    copies this checkout there and installs it
  run        starts training, which goes on when the connection ends
  status     says how it is going;  logs: the end of its log
  stop       saves a checkpoint and ends it
  resume     goes on from the newest checkpoint; give it run's flags
  fetch      copies results here, without checkpoints
  profile    runs a few steps on random data, and copies a trace of them here
  delete     deletes the machine and its disk, runs included

Settings, from the environment:
$TPU_SETTINGS
  ACCELERATOR  its type (v5litepod-8)
$SETTINGS
               on the machine or gs:// (no default)
  WORKDIR      on the machine, from ~/rahf, or gs:// (runs/RUN)
  RESULTS      where fetch copies to (runs/fetched/RUN)
END_OF_USAGE
}

do_create() {
  run "${tpu[@]}" create "$NAME" "${place[@]}" \
    --accelerator-type="$ACCELERATOR" --version="$VERSION"
}

do_resume() { do_run "$@"; }

do_delete() { run "${tpu[@]}" delete "$NAME" "${place[@]}"; }

main "$@"
