#!/usr/bin/env bash
# Line coverage of the .pyx files: scripts/trace_coverage.sh PYTHON [pytest arguments].
#
# A tracing build is slow, and Cython.Coverage wants each .c file beside its .pyx. Both stay away
# from the working tree: the sources are copied to build/trace, compiled and tested there. Functions
# that run without the GIL take it to be traced. Inline functions of .pxd files are left out: the
# plugin cannot report them. The headers in C are the fuzzers' matter.
set -euo pipefail

python=$(pwd)/$1
shift
copy=build/trace
bash scripts/copy_tree.sh "$copy"
cd "$copy"

SYNCBRIDGE_TRACE=1 "$python" setup.py --quiet build_ext --inplace
cat > trace.coveragerc <<'RC'
[run]
plugins = Cython.Coverage
source = core_ext/syncbridge_core
omit = *.pxd
RC
# These come before the editable install on sys.path, so the traced copies are what is imported.
export PYTHONPATH=$PWD/pysrc:$PWD/core_ext:$PWD/server
"$python" -m coverage run --rcfile=trace.coveragerc -m pytest tests/kernels tests/unit "$@"
"$python" -m coverage report --rcfile=trace.coveragerc --include='*.pyx'
