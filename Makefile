# Postferry: install, run, test. `make` alone explains.

PYTHON ?= python3
UV ?= uv
DATA ?= .postferry
BIN := .venv/bin
FUZZ := .venv/fuzz
AUDIT := .venv/audit
PROFILE := .venv/profile
QUIETLY := -qq --no-compile --disable-pip-version-check
STAMP := .venv/installed
COMPILE := pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help install run test check audit bench soak profile chaos hosts matrix fuzz contract lock env clean

help: ## this page
	@echo "Postferry, a self-hosted email relay. Two commands are enough:"
	@echo
	@echo "  make run     installs what is missing, starts everything, prints what to paste"
	@echo "  make test    all tests, on a real PostgreSQL, Valkey and sockets"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: PYTHON=$(PYTHON) (3.11 or newer), DATA=$(DATA) (where make run keeps its data)."

install: $(STAMP) ## .venv with everything from deploy/requirements.lock, and the command .venv/bin/postferry

# Compiled once, here: else each process of ours does it at its start, and does it again where no bytecode may be written.
$(STAMP): deploy/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Postferry needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into .venv (once) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv >.venv.log 2>&1 \
		|| { cat .venv.log >&2; rm -rf .venv .venv.log; \
		echo "Python cannot make environments here. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@rm -f .venv.log
	@$(BIN)/pip install -qq --no-compile --disable-pip-version-check --require-hashes -r deploy/requirements.lock
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib relay workers api
	@touch $@

run: $(STAMP) ## PostgreSQL, Valkey and every role, until Ctrl-C
	@exec $(BIN)/postferry up --data $(DATA)

test: $(STAMP) ## unit, store, net, api and flow tests
	$(BIN)/pytest -n auto --dist worksteal

check: $(STAMP) audit ## style, types and dependencies: ruff, mypy --strict, pip-audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(AUDIT)/installed ## known vulnerabilities of what deploy/*.lock pins; says what could not be looked up
	$(AUDIT)/bin/python deploy/audit.py --tool $(AUDIT)/bin/pip-audit

bench: $(STAMP) ## speed on this machine, beside Postfix where it is installed; writes bench.json
	$(BIN)/python -m tests.bench

soak: $(STAMP) ## half an hour at 70 % of what is possible: memory, latency and tables stay flat; SOAK_SECONDS
	$(BIN)/python -m tests.bench.soak

profile: $(PROFILE)/installed ## where each role's time goes under load, as tables; must be allowed to look at processes
	PATH="$(PROFILE)/bin:$$PATH" $(BIN)/python -m tests.bench.profiles

chaos: $(STAMP) ## two minutes of storms, then peace, until both ledgers can be reconciled; CHAOS_SECONDS, CHAOS_SEED
	$(BIN)/python -m tests.chaos

hosts: $(STAMP) ## two hosts in network namespaces, one is cut off and returns; then what two carry; HOSTS_SECONDS
	$(BIN)/python -m tests.chaos.hosts

matrix: $(STAMP) ## each role killed at each point of the natural path; a table of what came of it; ONLY=word
	$(BIN)/python -m tests.matrix

fuzz: $(FUZZ)/installed ## coverage-guided fuzzing, Linux on x86_64; FUZZ_SECONDS (40 at least) for all targets, ONLY=word
	@$(FUZZ)/bin/python -m tests.fuzz

contract: $(FUZZ)/installed ## every call of the API held to its OpenAPI document; CONTRACT_SECONDS, CONTRACT_SEED
	@$(FUZZ)/bin/python -m tests.contract

# Tools that drag much along have environments of their own: the tests need none of it.
$(FUZZ)/installed: deploy/fuzz.lock pyproject.toml $(STAMP)
	@echo "Installing into $(FUZZ) (once) ..."
	@$(BIN)/python -m venv --clear $(FUZZ)
	@$(FUZZ)/bin/pip install $(QUIETLY) --only-binary atheris --require-hashes -r deploy/fuzz.lock
	@$(FUZZ)/bin/pip install $(QUIETLY) --no-deps --no-build-isolation --editable .
	@touch $@

$(AUDIT)/installed $(PROFILE)/installed: .venv/%/installed: deploy/%.lock $(STAMP)
	@echo "Installing into .venv/$* (once) ..."
	@$(BIN)/python -m venv --clear .venv/$*
	@.venv/$*/bin/pip install $(QUIETLY) --require-hashes -r deploy/$*.lock
	@touch $@

lock: ## deploy/*.lock anew from pyproject.toml (needs uv): all of it, and what a running Postferry needs
	$(UV) pip compile $(COMPILE) --upgrade --extra embedded --extra dev --output-file deploy/requirements.lock
	$(UV) pip compile $(COMPILE) --constraint deploy/requirements.lock --output-file deploy/runtime.lock
	$(UV) pip compile $(COMPILE) --upgrade --extra embedded --extra dev --extra fuzz \
		--constraint deploy/requirements.lock --output-file deploy/fuzz.lock
	for group in audit profile; do $(UV) pip compile --group pyproject.toml:$$group \
		$(filter-out pyproject.toml,$(COMPILE)) --upgrade --output-file deploy/$$group.lock || exit 1; done
	@! grep -nE '://|index-url|find-links' deploy/*.lock

env: $(STAMP) ## deploy/env.example and README's table of settings anew from relay/settings.py
	$(BIN)/python deploy/env_example.py > deploy/env.example
	$(BIN)/python deploy/settings_table.py README.md

clean: ## removes .venv and caches; the data of make run stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist bench.json bench-*.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
