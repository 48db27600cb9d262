#!/usr/bin/env bash
# What .ci/run and .ci/long share. Sourced from the top of the checkout, with `set -euo pipefail`.

. scripts/find_node.sh

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
export SYNCBRIDGE_TEST_BROWSER=1

begin() {
    step=$1
    printf '\n==== %s (%s s)\n' "$step" "$SECONDS"
}

# Debian's packages, as root; elsewhere they must be there. No service is to start by itself: every
# test starts the Redis that it needs.
install_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
        apt-get -qq update
        local get=(apt-get -qq install --yes --no-install-recommends)
        "${get[@]}" ca-certificates git make gcc libc6-dev python3 python3-dev python3-venv \
            redis-server prometheus nginx haproxy clang chromium firefox-esr curl \
            apache2-utils "$@" > /dev/null
        # The sanitizers' runtime has the compiler's version in its name.
        "${get[@]}" "libclang-rt-$(clang -dumpversion | cut -d . -f 1)-dev" > /dev/null
    fi
    local tool
    for tool in python3 gcc make git redis-server promtool clang chromium firefox-esr curl "$@"; do
        command -v "$tool" > /dev/null || { echo "ci: $tool is needed" >&2; return 1; }
    done
    python3 --version
    redis-server --version
    clang --version | sed 1q
}

# Go, which builds the LiveKit server for its tests: that of PATH, else Debian's as root.
find_go() {
    if ! command -v go > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        apt-get -qq install --yes --no-install-recommends golang-go > /dev/null
    fi
    go version || echo "ci: NO GO: the tests on a real LiveKit will be skipped" >&2
}
