#!/usr/bin/env bash
# The kernels under AddressSanitizer and UBSan: scripts/sanitized_tests.sh PYTHON [ARGS].
# With SANITIZED=server a whole server, under the attacks of tests/soak: its clients are as usual.
#
# They are compiled in a copy in build/asan with gcc, whose runtime is loaded before Python. Python
# gets its memory from malloc, so that each object has red zones; it never frees all of it, so that
# leaks are not looked for. Pure twins are left out: they are not compiled.
set -euo pipefail

python=$(pwd)/$1
shift
bash scripts/copy_tree.sh build/asan
cd build/asan
flags="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
CC=gcc LDSHARED="gcc -shared -fsanitize=address,undefined" SYNCBRIDGE_CFLAGS=$flags \
    "$python" setup.py --quiet build_ext --inplace --parallel "$(nproc)"

# These come before the editable install on sys.path, so the instrumented kernels are imported.
variables=(
    "PYTHONPATH=$PWD/pysrc:$PWD/core_ext:$PWD/server:$PWD/tools:$PWD/clients/python"
    "LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)"
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
    PYTHONMALLOC=malloc
)
env "${variables[@]}" "$python" -c \
    'import os, syncbridge_core.hub as h; assert h.__file__.startswith(os.getcwd()), h'
if [ "${SANITIZED:-}" = server ]; then
    cd ../..
    export SYNCBRIDGE_ATTACK_WITHIN="env ${variables[*]}"
    exec "$python" -m pytest -s tests/soak/test_soak_attacks.py "$@"
fi
export "${variables[@]}"
"$python" -m pytest tests/kernels tests/unit "$@"
