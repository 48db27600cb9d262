#!/usr/bin/env bash
# The store's tests on another server: scripts/on_redis.sh bookworm|trixie|valkey [ARGS].
#
# `valkey` is the one in the wheel; else the name is a Debian release, whose redis-server is fetched
# and not installed. Scripts, devices, commands of the specifications, rollbacks, Sentinel, Cluster,
# durability and the history checker run on it.
set -euo pipefail
cd "$(dirname "$0")/.."

server=$1
shift
folder=$PWD/build/redis/$server
if [ "$server" = valkey ]; then
    mkdir -p "$folder/bin"
    find_bundled='from syncbridge_server.redis.link import embedded; print(embedded._bundled())'
    ln -sf "$(.venv/bin/python -c "$find_bundled")" "$folder/bin/redis-server"
else
    bash scripts/debian_redis.sh "$folder" "$server" > /dev/null
fi
export PATH="$folder/bin:$PATH"
printf '==== %s\n' "$(redis-server --version)"
.venv/bin/python -m pytest -k "not valkey" tests/contract tests/fault/test_history.py \
    tests/fault/store/test_redis_{sentinel,cluster,cluster_nodes,durability,readiness,bus}.py \
    tests/integration/sessions/test_{rollback,rollback_races,two_devices,nodes}.py \
    tests/integration/rest/test_spec_commands.py "$@"
