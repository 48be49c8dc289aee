# `make demo` and `make test` set up all that they need below .venv and tests/azurite/node_modules.
# The one thing asked of the machine is Python 3.11 or newer, with pip and venv.

.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: help setup demo docs test test-lowest faults mutants bench check lint format clean

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$python" && break; done)
# With COVERAGE=yes, `make test` takes half as long again, and fails below this percentage of branches.
COVERAGE ?=
COVERAGE_MIN ?= 95
# Many tests wait for real time to pass: more processes than cores.
PYTEST_ARGS ?= --numprocesses 4 --dist worksteal
FAULTS_ARGS ?= --numprocesses 4 --dist load --maxschedchunk 1

# As in BENCH_ARGS="azure --rounds 3"; `.venv-bench/bin/python -m bench --help` has them all.
BENCH_ARGS ?=

BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# As text: the pip of Python 3.11 can't read dependency groups.
DEV = import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); extras = p["project"]["optional-dependencies"]; \
	print(*p["dependency-groups"]["dev"], *extras["identity"], *extras["metrics"], *extras["reload"], *extras["otel"], *extras["uvloop"], sep="\n")
DOCS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["docs"], sep="\n")
AZURITE = tests/azurite/node_modules/.package-lock.json

help: ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r target text; do \
		printf '  make %-11s %s\n' "$$target" "$$text"; done

setup: .venv/installed-dev $(AZURITE) ## install everything that tests and tools need

demo: .venv/installed ## watch jobs being enqueued, run, retried and given up
	@$(BIN)/python -m examples.demo

docs: .venv-docs/installed ## build the site of the documentation in build/site, and check its links
	@.venv-docs/bin/python docs/make_site.py

ifdef COVERAGE
test: setup
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_MIN)
else
test: setup ## run all tests; with COVERAGE=yes, measure branch coverage too
	$(BIN)/pytest $(PYTEST_ARGS)
endif

test-lowest: setup .venv-lowest/installed ## run unit and contract tests on the lowest versions that pyproject.toml admits
	.venv-lowest/bin/pytest tests/unit tests/contract $(PYTEST_ARGS)

faults: setup ## survive every fault in its full form, up to an hour, and write docs/faults.md
	$(BIN)/pytest tests -m fault --full --fault-table=docs/faults.md $(FAULTS_ARGS)

mutants: setup ## plant ten defects, one at a time: the tests of faults must see each
	$(BIN)/python tests/mutants.py --table docs/faults.md

bench: .venv-bench/installed $(AZURITE) ## measure qworker beside its peers, for half an hour, and write docs/performance.md
	.venv-bench/bin/python -m bench $(BENCH_ARGS)

check: lint ## all that has to pass before a change goes in
	@$(MAKE) test COVERAGE=yes

lint: setup ## check format, style, types and layers; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin qworker
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 qworker
	$(BIN)/lint-imports

format: setup ## format the code and fix what can be fixed by itself
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean: ## remove all that make has made
	rm -rf .venv .venv-bench .venv-docs .venv-lowest tests/azurite/node_modules build *.egg-info .coverage .coverage.* htmlcov \
		.cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find qworker tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/made:
	@'$(PYTHON)' -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "qworker needs Python 3.11 or newer, not '$(PYTHON)': make PYTHON=/path/to/python" >&2; exit 1; }
	'$(PYTHON)' -m venv .venv
	@touch $@

.venv/installed: .venv/made pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(BIN)/python -c '$(DEV)' > .venv/requirements-dev.txt
	$(INSTALL) --requirement .venv/requirements-dev.txt
	@touch $@

.venv-lowest/installed: pyproject.toml constraints.txt tests/lowest.py .venv/made
	'$(PYTHON)' -m venv --clear .venv-lowest
	@$(BIN)/python tests/lowest.py > .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-lowest/requirements.txt --editable .
	@touch $@

.venv-bench/installed: pyproject.toml constraints.txt bench/requirements.txt
	'$(PYTHON)' -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--requirement bench/requirements.txt --editable .
	@touch $@

.venv-docs/installed: pyproject.toml constraints.txt .venv/made
	'$(PYTHON)' -m venv --clear .venv-docs
	@$(BIN)/python -c '$(DOCS)' > .venv-docs/requirements.txt
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--requirement .venv-docs/requirements.txt
	@touch $@

# Node as packaged brings its own list of certificate authorities; the machine's is what its owner trusts.
$(AZURITE): tests/azurite/package-lock.json tests/azurite/package.json tests/azurite/.npmrc .venv/installed-dev
	cd tests/azurite && PATH="$(CURDIR)/$(BIN):$$PATH" NODE_USE_SYSTEM_CA=1 \
		npm ci --omit=optional --ignore-scripts --loglevel=error
	@touch $@
