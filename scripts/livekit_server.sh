#!/usr/bin/env bash
# Builds livekit-server from the Go module proxy once, and prints where it is.
#
# bash scripts/livekit_server.sh            the server; the first time a few minutes, 1 GB of caches
# bash scripts/livekit_server.sh recorder  a stand-in for its Egress worker
#
# Both go to ~/.cache/syncbridge. Needs Go. Two at a time wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."

MODULE=github.com/livekit/livekit-server
VERSION=v1.13.5
RECORDER=tests/support/voice/egress_worker/main.go
FOLDER=${XDG_CACHE_HOME:-$HOME/.cache}/syncbridge
WANTED=${1:-server}

case "$WANTED" in
    server) BINARY=$FOLDER/livekit-server-$VERSION ;;
    recorder) BINARY=$FOLDER/livekit-recorder-$VERSION-$(sha256sum "$RECORDER" | cut -c -12) ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

mkdir -p "$FOLDER"
exec 9> "$FOLDER/livekit-$WANTED.lock"
flock 9
if [ ! -x "$BINARY" ]; then
    command -v go > /dev/null || { echo "livekit-server: Go is needed to build it" >&2; exit 3; }
    part=$(mktemp -d "$FOLDER/build.XXXX")
    trap 'rm -rf "$part"' EXIT
    if [ "$WANTED" = server ]; then
        GOBIN=$part GOFLAGS=-mod=mod nice -n 15 go install "$MODULE/cmd/server@$VERSION" >&2
        mv "$part/server" "$BINARY"
    else
        told=$(cd "$part" && go mod download -json "$MODULE@$VERSION")
        sources=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<< "$told")
        install -m 600 "$sources/go.mod" "$sources/go.sum" "$part"
        cp "$RECORDER" "$part"
        (cd "$part" && nice -n 15 go build -mod=mod -o recorder . >&2)
        mv "$part/recorder" "$BINARY"
    fi
fi
echo "$BINARY"
