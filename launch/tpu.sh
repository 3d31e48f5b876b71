# Access to the machines of a TPU by gcloud, for machine.sh; sourced.
# shellcheck shell=bash disable=SC2034

PROJECT=${PROJECT:-}
ZONE=${ZONE:-}
NAME=${NAME:-rahf}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
EXTRA=tpu

TPU_SETTINGS='  PROJECT      a Google Cloud project (no default)
  ZONE         where it has quota for the accelerator (no default)
  NAME         of the TPU (rahf)
  VERSION      software of its machines: v2-alpha-tpuv5-lite for v5e (the default),
               v2-alpha-tpuv5 for v5p, v2-alpha-tpuv6e for v6e, tpu-ubuntu2204-base
               for v4 and older'

place=(--project="$PROJECT" --zone="$ZONE")
tpu=(gcloud compute tpus tpu-vm)

check() { require PROJECT ZONE; }

on_first() { run "${tpu[@]}" ssh "$NAME" "${place[@]}" --worker=0 --command="$1"; }

on_all() { run "${tpu[@]}" ssh "$NAME" "${place[@]}" --worker=all --command="$1"; }

to_all() { run "${tpu[@]}" scp "$1" "$NAME:$2" "${place[@]}" --worker=all; }

from_first() { run "${tpu[@]}" scp "$NAME:$1" "$2" "${place[@]}" --worker=0; }
