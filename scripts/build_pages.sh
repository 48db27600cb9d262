#!/usr/bin/env bash
# Builds the demo and the dashboard into the server's package: bash scripts/build_pages.sh
#
# Needs an npm registry the first time, and a Node that find_node finds. What it is doing stands in
# the file `progress`, which a server shows meanwhile. The built pages appear all at once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/find_node.sh
target=server/syncbridge_server/pages
NPM_SECONDS=300
BUILD_SECONDS=120
FAILED='their build failed, and `make pages` says why'

tell() { printf '%s\n' "$1" > "$target/progress"; }
trap 'tell "$FAILED"' ERR

mkdir -p "$target" build
tell "looking for Node"
find_node
if [ pages/package-lock.json -nt pages/node_modules/.done ]; then
    tell "fetching what the build needs"
    (cd pages && timeout "$NPM_SECONDS" npm ci --omit=dev --no-audit --no-fund --loglevel=error)
    touch pages/node_modules/.done
fi
tell "compiling"
(cd pages && timeout "$BUILD_SECONDS" npm run --silent build -- --logLevel warn)
rm -rf "$target/built"
mv build/pages "$target/built"
rm -f "$target/progress"
