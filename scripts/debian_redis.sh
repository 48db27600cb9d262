#!/usr/bin/env bash
# The redis-server of another Debian release: bash scripts/debian_redis.sh FOLDER [SUITE] [MIRROR]
#
# An apt with a configuration of its own fetches it, with all libraries that it needs, and checks
# the archive's signature; the packages are unpacked below FOLDER, and nothing is installed.
# FOLDER/bin is then for PATH: its redis-server runs with those libraries. One that is there
# already is left as it is.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
suite=${2:-trixie}
mirror=${3:-http://deb.debian.org/debian}
program=$folder/bin/redis-server

if [ ! -x "$program" ]; then
    mkdir -p "$folder"/{state/lists/partial,archives/partial,root,bin}
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $mirror $suite main" > "$folder/sources.list"
    own=(-qq -o "Dir::State=$folder/state" -o Dir::State::status=/dev/null
        -o "Dir::Cache::archives=$folder/archives"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    apt-get "${own[@]}" update
    apt-get "${own[@]}" install --yes --no-install-recommends --download-only redis-server
    for package in "$folder"/archives/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
    rm -r "$folder/archives"

    # The loader of those libraries runs the program: this machine's would take its own libc.
    loader=$(find "$folder/root" -name 'ld-linux*.so.*' -type f -print -quit)
    libraries=$(find "$folder/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd :)
    printf '#!/bin/sh\nexec "%s" --library-path "%s" --argv0 redis-server "%s" "$@"\n' \
        "$loader" "$libraries" "$folder/root/usr/bin/redis-server" > "$program.new"
    chmod +x "$program.new"
    mv "$program.new" "$program"
fi
"$program" --version
