#!/usr/bin/env bash
# Runs on the training machine; called by the scripts in launch/. It uses ~/rahf:
#
#   source/  the checkout        venv/  its virtual environment
#   jobs/RUN/{pid,log,status}    the newest attempt of a run
#
# Relative paths in training flags are relative to ~/rahf.
set -euo pipefail

die() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# Creates or updates a virtual environment; uv installs Python if the machine's own is
# too old.
#   venv FOLDER CHECKOUT EXTRA
venv() {
  local uv checkout
  checkout=$(cd "$2" && pwd)
  uv=$(command -v uv || echo "$HOME/.local/bin/uv")
  if [[ ! -x $uv ]]; then
    curl -LsSf https://astral.sh/uv/install.sh |
      env UV_UNMANAGED_INSTALL="$HOME/.local/bin" sh
  fi
  "$uv" venv --python='>=3.11,<3.13' --allow-existing "$1"
  # The code may have changed without a new version number.
  "$uv" pip install --python="$1/bin/python" --reinstall-package=rahf \
    "${checkout}[$3]"
}

# Replaces the checkout by the one that was copied to new/.
#   install EXTRA
install() {
  local job
  for job in jobs/*/; do
    ! alive "$(basename "$job")" || die "a run uses the old checkout: $job"
  done
  rm -rf source
  mv new source
  venv venv source "$1"
}

#   start RUN FLAG…
start() {
  local run=$1 job=jobs/$1
  shift
  ! alive "$run" || die "$run is running"
  mkdir -p "$job"
  rm -f "$job/status"
  # In its own session, it outlives the connection. A system that shuts down sends SIGTERM
  # to all processes: the shell ignores it and waits for training to end.
  # shellcheck disable=SC2016
  PYTHONUNBUFFERED=1 setsid nohup bash -c '
    trap : TERM
    venv/bin/python source/launch/remote/attempt.py "$@"
    echo $? >"$0"
  ' "$job/status" "$@" >>"$job/log" 2>&1 </dev/null &
  echo $! >"$job/pid"
  echo "$run is running; its log is ~/rahf/$job/log"
}

alive() {
  [[ -e jobs/$1/pid ]] && ps -o args= -p "$(<"jobs/$1/pid")" | grep -q attempt.py
}

# Prints absent, running, finished, stopped (before its end) or failed STATUS.
#   state RUN
state() {
  local status=jobs/$1/status
  if alive "$1"; then
    echo running
  elif [[ ! -e jobs/$1/pid ]]; then
    echo absent
  elif [[ ! -s $status ]]; then
    echo stopped # The machine went down.
  else
    case $(<"$status") in
      0) echo finished ;;
      42) echo stopped ;;
      *) echo "failed $(<"$status")" ;;
    esac
  fi
}

status() {
  echo "$1: $(state "$1")"
  [[ ! -e jobs/$1/log ]] || tail -n 5 "jobs/$1/log"
  ! command -v nvidia-smi >/dev/null || nvidia-smi
}

logs() { tail -n 100 "jobs/$1/log"; }

# Asks a run to save and exit; kills it if it does not, for example if a host is gone.
#   stop RUN
stop() {
  local pid waited=0
  if alive "$1"; then
    pid=$(<"jobs/$1/pid")
    pkill -TERM -P "$pid" || true # It may have just ended.
    while alive "$1" && ((waited++ < ${STOP_SECONDS:-300})); do sleep 1; done
    ! alive "$1" || pkill -KILL -s "$pid" || true
  fi
  echo "$1: $(state "$1")"
}

# Packs a folder, without checkpoints.
pack() { tar -czf packed.tar.gz --exclude=./checkpoints -C "$1" .; }

profile() { venv/bin/python source/launch/trace_steps.py "$@"; }

case ${1-} in
  venv) ;; # Runs in the caller's folder, to which its paths refer.
  install | start | state | status | logs | stop | pack | profile)
    mkdir -p "$HOME/rahf"
    cd "$HOME/rahf"
    ;;
  *) die "unknown verb ${1-}" ;;
esac
"$@"
