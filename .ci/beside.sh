#!/usr/bin/env bash
# Steps beside others. Sourced from the top of the checkout, with `set -euo pipefail`.
#
#   beside NAME COMMAND [ARGUMENTS]   starts it; its output is kept in build/NAME.log
#   finish NAME                       waits for it and shows its output; returns its exit code
#   end_all                           interrupts what is not finished, and shows its output; what
#                                     does not end is killed
#
# Each is a process group of its own, so that nothing that it started is left over.

declare -A groups=()
END_SECONDS=30

beside() {
    local name=$1
    shift
    mkdir -p build
    # Without job control it would share this script's group, and ignore interrupts.
    set -m
    "$@" < /dev/null > "build/$name.log" 2>&1 &
    set +m
    groups[$name]=$!
}

finish() {
    local status=0
    [ -n "${groups[$1]:-}" ] || return 0
    wait "${groups[$1]}" || status=$?
    cat "build/$1.log"
    unset "groups[$1]"
    return "$status"
}

end_all() {
    local name group until=$((SECONDS + END_SECONDS))
    for group in "${groups[@]}"; do
        kill -INT -- "-$group" 2> /dev/null || true
    done
    for name in "${!groups[@]}"; do
        group=${groups[$name]}
        while kill -0 -- "-$group" 2> /dev/null && [ "$SECONDS" -lt "$until" ]; do sleep 0.2; done
        kill -KILL -- "-$group" 2> /dev/null || true
        printf '\n==== beside it, not finished: %s\n' "$name"
        cat "build/$name.log"
    done
}
