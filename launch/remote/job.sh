#!/usr/bin/env bash
# Runs on the machine that trains; the scripts of launch/ call it. In ~/rahf:
#
#   source/  the checkout        venv/  where it is installed
#   jobs/RUN/{pid,log,status}    the newest attempt of a run
#
# Relative paths in the flags of the training begin there too.
set -euo pipefail

die() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# Makes or updates an environment. Machines may have a Python that is too old: then uv
# brings one along.
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
  # Its version may be the same while its code is not.
  "$uv" pip install --python="$1/bin/python" --reinstall-package=rahf \
    "${checkout}[$3]"
}

# Puts the checkout that was copied to new/ in place.
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
  # In a session of its own it outlives the connection. A system that shuts down sends
  # SIGTERM to all processes: the shell only waits for the one in it.
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
    echo stopped # With the machine.
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

# Asks a run to save and end; ends it if it does not, as where another host is gone.
#   stop RUN
stop() {
  local pid waited=0
  if alive "$1"; then
    pid=$(<"jobs/$1/pid")
    pkill -TERM -P "$pid" || true # It may be ending by itself.
    while alive "$1" && ((waited++ < ${STOP_SECONDS:-300})); do sleep 1; done
    ! alive "$1" || pkill -KILL -s "$pid" || true
  fi
  echo "$1: $(state "$1")"
}

# Packs a folder, without checkpoints.
pack() { tar -czf packed.tar.gz --exclude=./checkpoints -C "$1" .; }

profile() { venv/bin/python source/launch/trace_steps.py "$@"; }

case ${1-} in
  venv) ;; # Where it is called: the paths are the caller's.
  install | start | state | status | logs | stop | pack | profile)
    mkdir -p "$HOME/rahf"
    cd "$HOME/rahf"
    ;;
  *) die "unknown verb ${1-}" ;;
esac
"$@"
