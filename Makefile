# The commands of SyncBridge. `make help` lists them; `make run` and `make test` are the two to know.
#
# Everything lives in .venv (packages, and one stamp file for each step that is done) and in build/
# (what can be thrown away). A stamp is older than what it depends on exactly when its step has to
# run again, so a second call does nothing that the first has done. All paths are relative: the
# clone may lie anywhere, in a folder with spaces too.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.NOTPARALLEL:

# The first Python on PATH that is new enough; `make PYTHON=/opt/python3.12/bin/python3 run` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 30
PROOF_WRITES ?= 100000
PROOF_EVENTS ?= 5000
# Passed on to the program that a target starts: make test ARGS="-k hub -x"
ARGS ?=

PY := .venv/bin/python
DONE := .venv/done
PIP := $(PY) -m pip --disable-pip-version-check
HEADERS := $(wildcard core_ext/syncbridge_core/*.h)
KERNELS := $(wildcard core_ext/syncbridge_core/*.pyx core_ext/syncbridge_core/*.px[di]) $(HEADERS)
PACKAGING := pyproject.toml setup.py clients/python/pyproject.toml
FUZZERS := frames document merge canonical
PROTO := pysrc/syncbridge/proto

.PHONY: help run test test-pure proof lint format proto fuzz bench bench-more bench-quick coverage trace dist check-wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(DONE)/run $(DONE)/kernels  ## a development server on 127.0.0.1:8080, with its own Redis
	@exec .venv/bin/syncbridge dev $(ARGS)

test: $(DONE)/test $(DONE)/kernels  ## every test, on a real Redis
	$(PY) -m pytest $(ARGS)

test-pure: $(DONE)/test $(DONE)/kernels  ## the kernel and domain tests again, on the pure-Python twins
	SYNCBRIDGE_PURE_PYTHON=1 $(PY) -m pytest tests/kernels tests/unit $(ARGS)

proof: $(DONE)/test $(DONE)/kernels  ## PROOF_WRITES=100000 writes and PROOF_EVENTS=5000 voice events under faults
	SYNCBRIDGE_HISTORY_OPERATIONS=$(PROOF_WRITES) SYNCBRIDGE_VOICE_EVENTS=$(PROOF_EVENTS) \
		$(PY) -m pytest -s tests/unit/test_history_checker.py tests/fault/test_history.py \
		tests/unit/voice/test_voice_truth.py tests/fault/test_voice_random.py $(ARGS)

lint: $(DONE)/lint $(DONE)/kernels  ## ruff, cython-lint, mypy --strict, stubs against the compiled modules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint core_ext
	$(PY) -m mypy
	$(PY) -m mypy tests/typing
	MYPYPATH=core_ext $(PY) -m mypy.stubtest syncbridge_core --ignore-disjoint-bases --ignore-unused-allowlist \
		--allowlist tests/typing/stubtest_allowlist.txt

format: $(DONE)/lint  ## let ruff rewrite imports and layout
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

proto: $(DONE)/test  ## generate the protobuf modules again from the .proto file
	$(PY) -m grpc_tools.protoc -I $(PROTO) --python_out=$(PROTO) --pyi_out=$(PROTO) \
		syncbridge/v1/syncbridge.proto

fuzz: $(FUZZERS:%=build/fuzz/%)  ## libFuzzer with sanitizers, FUZZ_SECONDS=30 for each harness
	@for name in $(FUZZERS); do \
		mkdir -p "build/fuzz/found/$$name" "tests/fuzz/corpus/$$name"; \
		echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
		"build/fuzz/$$name" -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
			-verbosity=0 -print_final_stats=1 -artifact_prefix="build/fuzz/$$name-" \
			"build/fuzz/found/$$name" "tests/fuzz/corpus/$$name" 2>&1 \
			| sed '/# Uses: /d; /recommended dictionary/d'; \
	done

# The seeds in tests/fuzz/corpus stay as they are; what a run finds goes to build/fuzz/found.
build/fuzz/%: tests/fuzz/fuzz_%.c $(HEADERS)
	@mkdir -p $(@D)
	$(FUZZ_CC) -std=c11 -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -I core_ext/syncbridge_core $< -o $@

bench: $(DONE)/test $(DONE)/kernels  ## every benchmark; writes benchmarks/RESULTS.md
	$(PY) benchmarks/run.py $(ARGS)

bench-more: $(DONE)/test $(DONE)/kernels  ## REST and voice; writes benchmarks/RESULTS_MORE.md
	$(PY) benchmarks/run_more.py $(ARGS)

bench-quick: $(DONE)/test $(DONE)/kernels  ## a short pass over the benchmarks; changes no file in the tree
	$(PY) benchmarks/run.py --quick $(ARGS)

coverage: $(DONE)/test $(DONE)/kernels  ## line and branch coverage of the Python files
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage combine
	$(PY) -m coverage report

trace: $(DONE)/test  ## line coverage of the Cython files, from a tracing build in a copy
	bash scripts/trace_coverage.sh $(PY) $(ARGS)

dist: $(DONE)/test  ## sdists, and the wheels that they build, of the server and the client, in dist/
	rm -rf dist
	$(PY) -m build --outdir dist
	$(PY) -m build --outdir dist clients/python

check-wheel: dist  ## install the wheels with their real dependencies, and serve from one
	$(PY) scripts/check_wheel.py dist

clean:  ## remove what was built; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage .coverage.*
	rm -rf pysrc/*.egg-info clients/python/*.egg-info clients/python/build
	rm -f core_ext/syncbridge_core/*.so $(DONE)/kernels
	find pysrc core_ext server tools clients tests benchmarks scripts -name __pycache__ -type d -prune \
		-exec rm -rf {} +

# ---------------------------------------------------------------- steps, one stamp file each

$(DONE)/venv: scripts/preflight.py
	@test -n '$(PYTHON)' || { echo "SyncBridge needs Python 3.11 or newer on PATH" >&2; exit 1; }
	@'$(PYTHON)' scripts/preflight.py
	'$(PYTHON)' -m venv .venv
	@mkdir -p $(DONE)
	$(PIP) install --quiet --upgrade pip
	@touch $@

# What pyproject.toml says is needed to build stays installed: rebuilding a kernel is then one
# compiler call and not a new build environment.
$(DONE)/build: $(DONE)/venv pyproject.toml
	$(PY) scripts/build_requires.py > $(DONE)/build.txt
	$(PIP) install --quiet --requirement $(DONE)/build.txt
	@touch $@

$(DONE)/run: $(DONE)/build $(PACKAGING)
	$(PIP) install --quiet --no-build-isolation --editable '.[embedded]' --editable ./clients/python
	@touch $@

$(DONE)/test: $(DONE)/build $(PACKAGING)
	$(PIP) install --quiet --no-build-isolation --editable '.[embedded,bench,test]' --editable ./clients/python
	@touch $(DONE)/run $@

$(DONE)/lint: $(DONE)/test $(PACKAGING)
	$(PIP) install --quiet --no-build-isolation --editable '.[embedded,bench,test,lint]' --editable ./clients/python
	@touch $(DONE)/run $(DONE)/test $@

# Order-only on the build tools: a later install is no reason to compile again.
$(DONE)/kernels: $(KERNELS) setup.py | $(DONE)/build
	$(PY) setup.py --quiet build_ext --inplace --parallel "$$(nproc)"
	@touch $@
