"""Compile the kernels of core_ext/. Everything static is in pyproject.toml.

Environment:

* SYNCBRIDGE_TRACE=1 makes a line-tracing build for coverage; its .c files stay beside the .pyx,
  where Cython.Coverage looks for them;
* SYNCBRIDGE_EXT=name[,name] builds only those modules, for work on one of them; `none` builds none;
* SYNCBRIDGE_CFLAGS replaces the compiler's options, for a sanitizer or a quick build.

Every header of the package counts as a source of every module: a change to one compiles again.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

TRACE = bool(os.environ.get("SYNCBRIDGE_TRACE"))
ONLY = {name for name in os.environ.get("SYNCBRIDGE_EXT", "").split(",") if name}
CFLAGS = os.environ.get("SYNCBRIDGE_CFLAGS", "-O0 -g" if TRACE else "-O3 -g0").split()
SOURCES = Path("core_ext/syncbridge_core")


def extension(path: Path) -> Extension:
    """The compiled module of one .pyx file."""
    return Extension(
        f"syncbridge_core.{path.stem}",
        [str(path)],
        depends=sorted(map(str, SOURCES.glob("*.h"))),
        define_macros=[("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
        extra_compile_args=CFLAGS,
        include_dirs=[str(SOURCES)],
    )


setup(
    ext_modules=cythonize(
        [extension(p) for p in sorted(SOURCES.glob("*.pyx")) if not ONLY or p.stem in ONLY],
        include_path=["core_ext"],
        build_dir=None if TRACE else "build/cython",
        compiler_directives={"language_level": "3", "linetrace": TRACE},
    )
)
