# Sourced by the scripts in this folder.
#
# Must work in bash 3.2 (macOS), where "${array[@]}" is an error for an empty array.
# shellcheck shell=bash disable=SC2034,SC2016
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CONFIG=${CONFIG:-configs/augmented_prompt.py}
RUN=${RUN:-$(basename "${CONFIG%%:*}" .py)}
DATA=${DATA:-}
WORKDIR=${WORKDIR:-}
RESULTS=${RESULTS:-runs/fetched/$RUN}
dry_run=
# Commands are printed to this descriptor, even within $(…).
exec 3>&1

SETTINGS='  CONFIG       a file of configs/ (configs/augmented_prompt.py)
  RUN          name of the run (that of the config)
  DATA         the --out folder of `python -m rahf.data prepare`:'

# Ends with status 2: a mistake in the command line or the settings.
fail() {
  printf 'error: %s; see launch/%s --help\n' "$1" "$(basename "$0")" >&2
  exit 2
}

say() { printf '%s\n' "$*" >&2; }

# Fails unless every variable named is set.
require() {
  local name missing='' example=''
  for name; do
    if [[ -z ${!name} ]]; then
      missing="$missing $name"
      example="$example $name=…"
    fi
  done
  [[ -z $missing ]] || fail "not set:$missing (for example: export$example)"
}

# Fails unless every variable named is a path in a bucket.
require_bucket() {
  local name
  require "$@"
  for name; do
    [[ ${!name} == gs://* ]] || fail "$name=${!name} must begin with gs://"
  done
}

# Prints one word, quoted for a shell if necessary, with --name= before the quotes.
quoted() {
  local flag=''
  if [[ $1 =~ ^--[A-Za-z0-9_.-]+= ]]; then flag=${BASH_REMATCH[0]}; fi
  case ${1#"$flag"} in
    '' | *[!A-Za-z0-9_./:=@%+,-]*)
      printf "%s'%s'" "$flag" "$(printf '%s' "${1#"$flag"}" | sed "s/'/'\\\\''/g")"
      ;;
    *) printf '%s' "$1" ;;
  esac
}

# Prints words as one command line.
words() {
  local word space=''
  for word; do
    printf '%s' "$space"
    quoted "$word"
    space=' '
  done
}

# Runs a command; a dry run prints it.
run() {
  if [[ -n $dry_run ]]; then
    printf '%s\n' "$(words "$@")" >&3
  else
    "$@" 3>&-
  fi
}

# Runs a command and prints its output; a dry run prints the first argument instead.
ask() {
  local answer=$1
  shift
  run "$@" || return
  [[ -z $dry_run ]] || printf '%s\n' "$answer"
}

# Parses the command line and calls do_VERB. $VERBS lists the verbs; `check` validates
# the settings. Training flags follow --.
main() {
  local verb=''
  while (($#)); do
    case $1 in
      --dry-run) dry_run=1 ;;
      -h | --help) usage && exit ;;
      --) shift && break ;;
      -*) fail "unknown option $1 (training flags follow --)" ;;
      *)
        [[ -z $verb ]] || fail "give one verb, not both $verb and $1"
        verb=$1
        ;;
    esac
    shift
  done
  [[ -n $verb ]] || fail "give a verb, one of: $VERBS"
  [[ " $VERBS " == *" $verb "* ]] || fail "unknown verb $verb; choose from: $VERBS"
  case $verb in
    run | resume | watch | profile) ;;
    *) (($# == 0)) || fail "$verb takes no training flags" ;;
  esac
  check
  "do_$verb" "$@"
}

# Sets `flags` to the training flags, from the settings and the command line.
#   set_flags FOLDER FLAG…    FOLDER/ contains the checkout
set_flags() {
  local folder=$1
  shift
  flags=(
    --config="$folder$CONFIG" --workdir="$WORKDIR" --config.data.dir="$DATA" "$@"
  )
}

# Copies a run's results from a bucket.
fetch_from_bucket() {
  run mkdir -p "$RESULTS"
  run gcloud storage rsync --recursive --exclude='checkpoints/.*' "$WORKDIR" "$RESULTS"
}
