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
# The state of the request that a dry run assumes.
assumed=SUSPENDED

usage() {
  cat <<END_OF_USAGE
Trains on a slice of a TPU pod, on all its hosts; spot capacity by default.

  launch/tpu_pod.sh [--dry-run] VERB [-- TRAINING_FLAG …]

  create     requests the slice; status shows when it is ACTIVE
  install    copies this checkout to all hosts and installs it
  run        starts training, which continues when the connection ends
  status     shows the state of request and training;  logs: shows the end of the log
  stop       saves a checkpoint and stops training
  resume     requests the slice again if it was preempted, waits for it, installs, and
             continues from the newest checkpoint; give it the flags of run
  watch      does the same whenever needed until training is finished; also creates the
             slice if there is none
  fetch      copies results here, without checkpoints
  profile    runs a few steps on random data and copies the first host's trace here
  delete     deletes the slice

Settings, from the environment:
$TPU_SETTINGS
  ACCELERATOR  its type (v5litepod-16)
  CAPACITY     spot, on-demand or reserved (spot)
$SETTINGS
               gs:// (no default)
  WORKDIR      gs:// (no default)
  RESULTS      local folder for fetch (runs/fetched/RUN)
  POLL         seconds between checks of resume and watch (60)
  HOURS        hours after which they give up (168)
  RESTARTS     how often watch may start training (20)
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

# The hosts share no disk, and their disks do not outlive a preemption.
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
      'failed 2') break ;; # A mistake in the settings, which no restart can fix.
      running | waiting | unknown) ;;
      *)
        ((restarts++ < RESTARTS)) || break
        # A separate process, so that a failing step (for example because the slice is
        # preempted again) does not end this one.
        bash "$0" ${dry_run:+--dry-run} resume -- "$@" ||
          say "$NAME: resume failed; trying again"
        assumed=ACTIVE
        ;;
    esac
    run sleep "$POLL"
  done
  say "error: not finished after $restarts starts and $((SECONDS / 3600)) hours;" \
    "see launch/tpu_pod.sh logs"
  return 1
}

# Prints the state of the request for the slice, nothing if there is none.
queue_state() {
  ask "$assumed" "${queue[@]}" list "${place[@]}" --filter="name~/$NAME\$" \
    --format='value(state.state)'
}

# Prints finished, running, waiting, unknown (which may be temporary), or a state that
# needs a start: preempted, absent, stopped, failed STATUS.
look() {
  local state
  state=$(queue_state) || state=UNKNOWN
  case $state in
    # The first host's state counts, as it writes the results.
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
  # Requests may fail temporarily because of quotas, networks or tokens: retry.
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
    say "$NAME: ${state:-state unknown}"
    sleep "$POLL"
  done
}

do_delete() { run "${queue[@]}" delete "$NAME" "${place[@]}" --force; }

main "$@"
