# Needs Python 3.11 or newer and make; everything else is installed into .venv/.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.14 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
COMPILE = $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links
REQUIREMENTS := requirements/runtime.txt requirements/test.txt
PYTEST_ARGS ?=
# uv is several times faster, but does not read certificates and indexes from pip's own configuration.
INSTALL = install() { $(UV) pip install --quiet --python $(BIN)/python "$$@" \
	|| { echo "uv could not install; trying again with pip" >&2; $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$@"; }; }; install

.DEFAULT_GOAL := help

.PHONY: help
help: ## Explain the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(VENV)/.ready ## Create .venv/ with the programs wvs and wvsctl and the test tools

$(VENV)/.tools: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.tools $(REQUIREMENTS) pyproject.toml
	@$(INSTALL) --require-hashes $(addprefix -r ,$(REQUIREMENTS))
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.ready requirements/dev.txt
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: lint
lint: $(VENV)/.dev ## Static checks: ruff, pyright, import contracts, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/vulture

.PHONY: format
format: $(VENV)/.dev ## Let ruff fix and format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# They need other packages than the tests (and a Java runtime, which comes with them), so they have an environment of their own.
GENERATORS := build/client-generators

.PHONY: client-generators
client-generators: $(GENERATORS)/.ready ## Install the programs that make clients of the OpenAPI document, for the tests

$(GENERATORS)/.ready: $(VENV)/.tools requirements/client-generators.txt
	@$(PYTHON) -m venv --clear $(GENERATORS)
	@$(UV) pip install --quiet --python $(GENERATORS)/bin/python --require-hashes -r requirements/client-generators.txt \
		|| $(GENERATORS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/client-generators.txt
	@touch $@

# What agents run: some tests start it in a live tree. Installed by test-deps where node, npm and their registries are there.
AGENT_TOOLS := build/agent-tools

.PHONY: agent-tools
agent-tools: $(AGENT_TOOLS)/.ready ## Install pnpm, vite, pyright and watchdog, which tests run in a live tree

$(AGENT_TOOLS)/.ready: $(VENV)/.tools $(wildcard requirements/agent-tools/*)
	@mkdir -p $(AGENT_TOOLS)
	@cp requirements/agent-tools/package.json requirements/agent-tools/package-lock.json $(AGENT_TOOLS)
	@cd $(AGENT_TOOLS) && npm ci --silent --no-audit --no-fund
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(AGENT_TOOLS)/python --require-hashes \
		-r requirements/agent-tools/python.txt
	@touch $@

.PHONY: test
test: setup client-generators ## All tests on the embedded PostgreSQL 18 (PYTEST_ARGS='-k name' narrows)
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

# A shim of pyenv is not an interpreter; therefore this also looks into pyenv's versions directory.
PYTHONS ?= $(foreach minor,11 12 13 14,$(firstword $(wildcard $(HOME)/.pyenv/versions/3.$(minor).*/bin/python3.$(minor) \
	/usr/bin/python3.$(minor) /usr/local/bin/python3.$(minor))))

.PHONY: test-python
test-python: $(VENV)/.tools ## Install the pinned packages for each Python here and run the unit tests (PYTHONS='/path/to/python3.13 …')
	@for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') || exit 1; \
		echo "== Python $$version ($$python)"; \
		$$python -m venv --clear build/python-$$version || exit 1; \
		$(UV) pip install --quiet --python build/python-$$version/bin/python --require-hashes \
			$(addprefix -r ,$(REQUIREMENTS) requirements/build.txt) || exit 1; \
		$(UV) pip install --quiet --python build/python-$$version/bin/python --no-deps --no-build-isolation --editable . || exit 1; \
		build/python-$$version/bin/python -m pytest -q -p no:cacheprovider -n auto tests/unit $(PYTEST_ARGS) || exit 1; \
	done

.PHONY: test-deps
test-deps: ## Install the programs that tests use (Debian, root or sudo); quick when all are there
	@requirements/install-test-programs
	@$(MAKE) --no-print-directory agent-tools || echo "test-deps: without npm and PyPI, the tests of pnpm, vite, pyright and watchdog are skipped"

PG15_BIN ?= /usr/lib/postgresql/15/bin

.PHONY: test-pg15
test-pg15: setup client-generators ## The same tests on Debian's PostgreSQL 15, if its binaries are installed
	@if [ -x $(PG15_BIN)/postgres ]; then WVS_TEST_POSTGRES_BIN=$(PG15_BIN) $(BIN)/python -m pytest -n auto $(PYTEST_ARGS); \
	else echo "skipped: no $(PG15_BIN)/postgres; say make test-deps, or make test-pg15 PG15_BIN=/path/to/bin"; fi

.PHONY: coverage-domain
coverage-domain: setup ## Run the unit tests of the domain; fail unless they take every branch
	$(BIN)/coverage erase
	$(BIN)/coverage run --source=wvs.domain -m pytest -q tests/unit/domain $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=100 --show-missing

PROPERTY_EXAMPLES ?= 3000
PROPERTY_ROUNDS ?= 20
PROPERTY_SEED ?= $(shell date +%y%m%d%H)

.PHONY: property
property: setup ## Run the property tests with many random examples (PROPERTY_EXAMPLES=3000 PROPERTY_ROUNDS=20 PROPERTY_SEED=n)
	WVS_PROPERTY_EXAMPLES=$(PROPERTY_EXAMPLES) WVS_PROPERTY_ROUNDS=$(PROPERTY_ROUNDS) WVS_PROPERTY_SEED=$(PROPERTY_SEED) \
		$(BIN)/python -m pytest -n auto --timeout=0 tests/property $(PYTEST_ARGS)

CONTRACT_EXAMPLES ?= 200
CONTRACT_SEED ?= $(shell date +%y%m%d%H)

.PHONY: contract
contract: setup ## Send hundreds of valid and invalid requests to each operation of the OpenAPI document (CONTRACT_EXAMPLES=200 CONTRACT_SEED=n)
	WVS_CONTRACT_EXAMPLES=$(CONTRACT_EXAMPLES) WVS_CONTRACT_SEED=$(CONTRACT_SEED) \
		$(BIN)/python -m pytest -n auto --timeout=0 tests/integration/http/test_contract.py $(PYTEST_ARGS)

.PHONY: streams
streams: setup ## Open 200 live streams at once: each client gets every event once, in bounded memory
	$(BIN)/python -m pytest -m campaign tests/integration/http/test_stream.py $(PYTEST_ARGS)

.PHONY: faults
faults: setup ## Kill, stop and cut off a real executor at every failpoint on every engine (needs root)
	WVS_FAULTS=all $(BIN)/python -m pytest -n auto tests/integration/executor/test_failpoints.py $(PYTEST_ARGS)

POWER_CUTS ?= 300

.PHONY: powercut
powercut: setup ## Replay a recorded disk up to a power cut, at POWER_CUTS=300 moments for each filesystem (needs root)
	WVS_POWER_CUTS=$(POWER_CUTS) $(BIN)/python -m pytest tests/integration/executor/test_power_cut.py $(PYTEST_ARGS)

FREEZE_SNAPSHOTS ?= 200
FREEZE_UNFROZEN ?= 60

.PHONY: freeze
freeze: setup ## Take snapshots of busy programs on every engine, kill every program at every step of a freeze, switch 100 times (needs root)
	WVS_FREEZE_SNAPSHOTS=$(FREEZE_SNAPSHOTS) WVS_FREEZE_UNFROZEN=$(FREEZE_UNFROZEN) \
		$(BIN)/python -m pytest tests/integration/agent/test_engines.py $(PYTEST_ARGS)
	WVS_ATTACHED_SNAPSHOTS=100 $(BIN)/python -m pytest --timeout 1800 tests/integration/agent/test_attach_on_engines.py $(PYTEST_ARGS)
	WVS_SWITCHES=100 $(BIN)/python -m pytest tests/integration/executor/test_many_switches.py $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n 2 -m 'campaign or not campaign' tests/integration/agent/test_never_stuck.py $(PYTEST_ARGS)

RACE_S ?= 60
RACE_CRASHES ?= 20

.PHONY: race
race: setup ## Run many writers beside followers of the log, for a minute, and crash the server under them (RACE_S=seconds RACE_CRASHES=n)
	WVS_RACE_S=$(RACE_S) WVS_RACE_CRASHES=$(RACE_CRASHES) $(BIN)/python -m pytest \
		tests/integration/eventlog/test_race.py tests/integration/eventlog/test_crashes.py -s

.PHONY: storage
storage: setup ## Clone, stamp and remove trees of 100,000 files with every clone engine (needs root)
	$(BIN)/python -m pytest -m campaign tests/integration/engines $(PYTEST_ARGS)

.PHONY: bench-storage
bench-storage: setup ## Compare each clone engine with a rival program on the same tree; print the table (needs root)
	$(BIN)/python -m benchmarks.storage

BENCHMARKS := cold_start commands claim positions snapshot aggregate history console_help http_boundary projections stream freeze

.PHONY: bench $(addprefix bench-,$(BENCHMARKS))
bench: $(addprefix bench-,$(BENCHMARKS)) ## Measure the figures of docs/benchmarks.md, one after the other (bench-NAME for one)
$(addprefix bench-,$(BENCHMARKS)): bench-%: setup
	@echo "== $*"; $(BIN)/python -m benchmarks.$*

.PHONY: docs
docs: setup ## Generate the pages and pictures of docs/ that come from the code
	$(BIN)/python docs/state_machines.py > docs/state-machines.md.new
	mv docs/state-machines.md.new docs/state-machines.md
	$(BIN)/python docs/architecture.py > docs/architecture.svg.new
	mv docs/architecture.svg.new docs/architecture.svg

.PHONY: schema
schema: setup ## Write db/schema.sql and missing files of db/functions from the migrations (TAKE=1 overwrites edits without a migration)
	$(BIN)/python -m tools.schema write $(if $(TAKE),--take)

.PHONY: migration
migration: setup ## Write a migration with the present text of functions of db/functions (NAME=x FUNCTIONS="a b")
	$(BIN)/python -m tools.schema migration $(NAME) $(FUNCTIONS)

.PHONY: release-fixture
release-fixture: setup ## Make tests/releases/VERSION: a filled database, volume and export of this release (once)
	$(BIN)/python -m tools.release_fixture

SWAGGER_UI := src/wvs/http/swagger_ui
SWAGGER_UI_VERSION ?= $(shell cat $(SWAGGER_UI)/VERSION)
SWAGGER_UI_FILES := LICENSE NOTICE swagger-ui.css swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt

.PHONY: swagger-ui
swagger-ui: ## Fetch Swagger UI from npm and check the hashes of its files (SWAGGER_UI_VERSION=n fetches another version)
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	npm pack --silent --pack-destination "$$scratch" swagger-ui-dist@$(SWAGGER_UI_VERSION) >/dev/null; \
	tar --extract --gzip --no-same-owner --strip-components=1 --directory "$$scratch" --file "$$scratch"/*.tgz; \
	cd "$$scratch"; \
	if [ "$(SWAGGER_UI_VERSION)" = "$$(cat $(CURDIR)/$(SWAGGER_UI)/VERSION)" ]; then \
		sha256sum --check --strict $(CURDIR)/$(SWAGGER_UI)/SHA256SUMS; \
	else \
		sha256sum $(SWAGGER_UI_FILES) > SHA256SUMS; \
		echo $(SWAGGER_UI_VERSION) > VERSION; \
		install -m 644 SHA256SUMS VERSION $(CURDIR)/$(SWAGGER_UI); \
		echo "$(SWAGGER_UI_VERSION) is another version: look at the new SHA256SUMS before you commit them"; \
	fi; \
	install -m 644 $(SWAGGER_UI_FILES) $(CURDIR)/$(SWAGGER_UI)

.PHONY: plans
plans: setup ## Explain every claim and list query on 1,000,000 tasks and 100,000 snapshots
	$(BIN)/python -m pytest -m campaign --timeout 1800 tests/integration/plans $(PYTEST_ARGS)

.PHONY: demo
demo: setup ## Show the main job on real files, in a scratch directory
	$(BIN)/wvsctl demo

.PHONY: requirements
requirements: $(VENV)/.tools ## Compile pyproject.toml and requirements/*.in into hashed requirements/*.txt (newest versions)
	$(COMPILE) --all-extras pyproject.toml -o requirements/runtime.txt
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) requirements/test.in -o requirements/test.txt
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/client-generators.in -o requirements/client-generators.txt
	$(COMPILE) requirements/agent-tools/python.in -o requirements/agent-tools/python.txt
	cd requirements/agent-tools && npm update --package-lock-only --silent --no-audit --no-fund

.PHONY: clean
clean: ## Remove .venv/ and every cache
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
