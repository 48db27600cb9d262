#!/usr/bin/env bash
# Copy the project's files, as git knows them, into an empty folder: scripts/copy_tree.sh FOLDER.
#
# For builds that must not touch the working tree: what is compiled there stays there.
set -euo pipefail

rm -rf "$1"
mkdir -p "$1"
git ls-files -z --cached --others --exclude-standard \
    | while IFS= read -r -d '' name; do [ -e "$name" ] && printf '%s\0' "$name"; done \
    | xargs -0 cp --parents --target-directory "$1"
