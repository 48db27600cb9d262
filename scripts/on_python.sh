#!/usr/bin/env bash
# The tests of rules, kernels, scripts and shell on one Python: scripts/on_python.sh 3.13 [ARGS].
#
# Everything happens in a copy in build/matrix/VERSION, with an environment of its own. The Python
# is found on PATH, else among pyenv's.
set -euo pipefail

version=$1
shift
find_python() {
    local root=${PYENV_ROOT:-$HOME/.pyenv} is="import sys; sys.exit('%d.%d' % sys.version_info[:2]"
    for python in "python$version" python3 "$root/versions/$version".*/bin/python3; do
        if "$python" -c "$is != '$version')" 2> /dev/null; then
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    echo "there is no Python $version on PATH or in $root/versions" >&2
    return 1
}

python=$(find_python)
echo "==== Python $version: $("$python" -VV | head -n 1)"
bash scripts/copy_tree.sh "build/matrix/$version"
cd "build/matrix/$version"
make PYTHON="$python" test ARGS="tests/unit tests/kernels tests/contract tests/server $*"
