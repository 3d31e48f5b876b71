#!/usr/bin/env bash
# Trains on a slice of a TPU pod, on all its hosts; spot capacity by default.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"
source "$here/machine.sh"
source "$here/tpu.sh"

ACCELERATOR=${ACCELERATOR:-v5litepod-16}
CAPACITY=${CAPACITY:-spot}
POLL=${POLL:-60}
HOURS=${HOURS:-168}
RESTARTS=${RESTARTS:-20}
MULTIHOST=--multihost
VERBS='create install run status logs stop resume watch fetch profile delete'
queue=(gcloud compute tpus queued-resources)
# What a dry run takes for the state of the request.
assumed=SUSPENDED

usage() {
  cat <<END_OF_USAGE
Trains on a slice of a TPU pod, on all its hosts; spot capacity by default.

  launch/tpu_pod.sh [--dry-run] VERB [-- FLAG_OF_THE_TRAINING …]

  create     asks for the slice; status says when it is ACTIVE
  install    copies this checkout to all hosts and installs it
  run        starts training, which goes on when the connection ends
  status     says how the request and the training are;  logs: the end of the log
  stop       saves a checkpoint and ends it
  resume     asks for the slice again if it was preempted, waits for it, installs, and
             goes on from the newest checkpoint; give it run's flags
  watch      does the same whenever needed, until training is finished: from the very
             beginning if there is no slice yet
  fetch      copies results here, without checkpoints
  profile    runs a few steps on random data, and copies the first host's trace here
  delete     deletes the slice

Settings, from the environment:
$TPU_SETTINGS
  ACCELERATOR  its type (v5litepod-16)
  CAPACITY     spot, on-demand or reserved (spot)
$SETTINGS
               gs:// (no default)
  WORKDIR      gs:// (no default)
  RESULTS      where fetch copies to (runs/fetched/RUN)
  POLL         seconds between two looks of resume and watch (60)
  HOURS        after which they give up (168)
  RESTARTS     how often watch starts training at most (20)
END_OF_USAGE
}

check() {
  require PROJECT ZONE
  case $CAPACITY in
    spot | on-demand | reserved) ;;
    *) fail "CAPACITY=$CAPACITY is not one of spot, on-demand, reserved" ;;
  esac
}

do_create() {
  local tier=--$CAPACITY
  [[ $CAPACITY != on-demand ]] || tier=
  run "${queue[@]}" create "$NAME" "${place[@]}" --node-id="$NAME" \
    --accelerator-type="$ACCELERATOR" --runtime-version="$VERSION" ${tier:+"$tier"}
}

# No disk is common to the hosts, or outlives a preemption.
check_paths() { require_bucket WORKDIR DATA; }

do_status() {
  run "${queue[@]}" list "${place[@]}" --filter="name~/$NAME\$"
  on_first "$(job status "$RUN")"
}

do_resume() {
  check_paths
  local state
  state=$(queue_state)
  case $state in
    ACTIVE) on_all "test ! -e rahf/source || $(job stop "$RUN")" ;;
    SUSPENDED | FAILED)
      run "${queue[@]}" delete "$NAME" "${place[@]}" --force --quiet
      do_create
      ;;
    '') do_create ;;
  esac
  assumed=ACTIVE
  wait_until_active
  do_install
  do_run "$@"
}

do_watch() {
  check_paths
  local restarts=0 found
  while ((SECONDS < HOURS * 3600)); do
    found=$(look)
    say "$NAME: $found"
    case $found in
      finished) return ;;
      'failed 2') break ;; # A mistake in the settings, which no restart mends.
      running | waiting | unknown) ;;
      *)
        ((restarts++ < RESTARTS)) || break
        # A process of its own: where a step of it fails, since the slice is preempted
        # again, say, that alone ends.
        bash "$0" ${dry_run:+--dry-run} resume -- "$@" ||
          say "$NAME: resume failed; to be tried again"
        assumed=ACTIVE
        ;;
    esac
    run sleep "$POLL"
  done
  say "error: not finished after $restarts starts and $((SECONDS / 3600)) hours;" \
    "launch/tpu_pod.sh logs may say why"
  return 1
}

# Prints the state of the request for the slice, nothing if there is none.
queue_state() {
  ask "$assumed" "${queue[@]}" list "${place[@]}" --filter="name~/$NAME\$" \
    --format='value(state.state)'
}

# Prints finished, running, waiting, unknown (which may pass), or what asks for a start:
# preempted, absent, stopped, failed STATUS.
look() {
  local state
  state=$(queue_state) || state=UNKNOWN
  case $state in
    # The first host's word counts: it is the one that writes.
    ACTIVE) state_of_job || echo unknown ;;
    '' | SUSPENDED | FAILED) echo preempted ;;
    UNKNOWN) echo unknown ;;
    *) echo waiting ;;
  esac
}

state_of_job() {
  ask finished "${tpu[@]}" ssh "$NAME" "${place[@]}" --worker=0 \
    --command="if test -e rahf/source; then $(job state "$RUN"); else echo absent; fi"
}

wait_until_active() {
  local state
  # Quotas, networks and tokens fail now and then: asked again.
  while state=$(queue_state) || state=; [[ $state != ACTIVE ]]; do
    case $state in
      FAILED | SUSPENDING | SUSPENDED)
        say "error: $NAME is $state"
        return 1
        ;;
    esac
    if ((SECONDS > HOURS * 3600)); then
      say "error: $NAME is not ACTIVE after $HOURS hours"
      return 1
    fi
    say "$NAME: ${state:-not yet known}"
    sleep "$POLL"
  done
}

do_delete() { run "${queue[@]}" delete "$NAME" "${place[@]}" --force; }

main "$@"
