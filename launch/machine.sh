# Verbs for training on machines reached by ssh; sourced.
#
# The sourcing script defines on_first COMMAND and on_all COMMAND, which run a shell
# command on the first or on all machines of a run, and to_all FILE PATH and from_first
# PATH FILE, which copy. It sets EXTRA, the extra to install, and may set
# MULTIHOST=--multihost and PREFIX, which precedes each training command. The machines
# run remote/job.sh in ~/rahf, which relative paths refer to.
# shellcheck shell=bash disable=SC2154

MULTIHOST=
PREFIX=
archive=${TMPDIR:-/tmp}/rahf-$RUN.tar.gz

# Prints the command for a verb of job.sh.
job() { words bash rahf/source/launch/remote/job.sh "$@"; }

do_install() {
  run bash "$ROOT/launch/pack.sh" "$archive"
  to_all "$archive" rahf.tar.gz
  # Unpacked next to the old checkout, which job.sh replaces if no run uses it.
  local unpack='rm -rf rahf/new && mkdir -p rahf/new'
  unpack+=' && tar -xzf rahf.tar.gz -C rahf/new'
  on_all "$unpack && bash rahf/new/launch/remote/job.sh install $EXTRA"
}

check_paths() { require DATA; }

do_run() {
  check_paths
  set_flags source/ ${MULTIHOST:+"$MULTIHOST"} "$@"
  on_all "$PREFIX$(job start "$RUN" "${flags[@]}")"
}

do_status() { on_first "$(job status "$RUN")"; }

do_logs() { on_first "$(job logs "$RUN")"; }

do_stop() { on_all "$(job stop "$RUN")"; }

do_fetch() {
  require WORKDIR
  if [[ $WORKDIR == gs://* ]]; then
    fetch_from_bucket
  else
    fetch_folder "$WORKDIR" "$RESULTS"
  fi
}

do_profile() {
  local out=profiles/$RUN
  on_all "$PREFIX$(job profile --config="source/$CONFIG" --out="$out" \
    ${MULTIHOST:+"$MULTIHOST"} "$@")"
  fetch_folder "$out" "$out"
}

# Copies a folder of ~/rahf on the first machine, without checkpoints.
#   fetch_folder REMOTE LOCAL
fetch_folder() {
  on_first "$(job pack "$1")"
  from_first rahf/packed.tar.gz "$archive"
  run mkdir -p "$2"
  run tar -xzf "$archive" -C "$2"
}
