#!/usr/bin/env bash
# Packs the files tracked by git, including uncommitted changes, into an archive.
#
#   launch/pack.sh FILE.tar.gz
set -euo pipefail
archive=${1:?the archive to write, which ends in .tar or .tar.gz}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

git ls-files --others --exclude-standard | while IFS= read -r file; do
  printf 'warning: %s is not copied: git does not track it\n' "$file" >&2
done
# A commit on no branch, or nothing if there are no changes. git requires an author.
changes=$(git -c user.name=rahf -c user.email=rahf@localhost stash create)
git archive --output="$archive" "${changes:-HEAD}"
