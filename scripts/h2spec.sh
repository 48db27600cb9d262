#!/usr/bin/env bash
# Builds h2spec, the conformance tests of HTTP/2, from the Go module proxy once; prints where it is.
# It goes to ~/.cache/syncbridge. Needs Go. Two at a time wait for each other.
set -euo pipefail

MODULE=github.com/summerwind/h2spec/cmd/h2spec
VERSION=v2.2.1+incompatible
FOLDER=${XDG_CACHE_HOME:-$HOME/.cache}/syncbridge
BINARY=$FOLDER/h2spec-$VERSION

mkdir -p "$FOLDER"
exec 9> "$FOLDER/h2spec.lock"
flock 9
if [ ! -x "$BINARY" ]; then
    command -v go > /dev/null || { echo "h2spec: Go is needed to build it" >&2; exit 3; }
    part=$(mktemp -d "$FOLDER/build.XXXX")
    trap 'rm -rf "$part"' EXIT
    GOBIN=$part GOFLAGS=-mod=mod nice -n 15 go install "$MODULE@$VERSION" >&2
    mv "$part/h2spec" "$BINARY"
fi
echo "$BINARY"
