# Everything a newcomer runs. Needs Python 3.11 or newer, make and a shell; the rest installs itself into .venv.
PYTHON_BIN := .venv/bin/python
ARGS ?=
SECONDS ?= 600
SEED ?= $(shell od -An -N2 -tu2 /dev/urandom | tr -d ' ')

.PHONY: help setup setup-dev run test test-fast soak check format bench bench-setup bench-compare load fuzz docs lock clean
.PHONY: firmware-sim firmware-test firmware-fuzz

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: ## install the packages `make run` needs into .venv (with hashes; instant the second time)
	@sh scripts/setup.sh up

setup-dev: ## the same with the tools for tests and checks
	@sh scripts/setup.sh dev

run: setup ## start everything on this machine and print the address (ARGS="--port 9000 --no-demo")
	@exec $(PYTHON_BIN) -m towline up $(ARGS)

# Four processes on two cores: many tests wait, and waiting overlaps. Whole stacks come last, two at a time (tests/conftest.py).
test: setup-dev ## every test: installs the system packages it needs as root on Debian, else names them
	@sh scripts/system_packages.sh
	@sh scripts/device_uis.sh
	$(PYTHON_BIN) -m pytest -n 4 --dist loadgroup --no-loadscope-reorder $(ARGS)

# Those drive whole stacks, browsers and other programs, some as root.
WHOLE := browser cluster connect deployment device_uis firmware fuzz hostile integration networks testbed
FAST := $(WHOLE:%=--ignore=tests/%) -m "not database and not soak"

test-fast: setup-dev ## the tests that need no whole stack, no database and no other program: about a minute
	$(PYTHON_BIN) -m pytest tests $(FAST) -n 4 --dist worksteal $(ARGS)

# Six at once, also on two cores: nearly all of it waits. The run writes the table of docs/reliability.md.
SOAK = TOWLINE_SEED=$(SEED) TOWLINE_SOAK_DOCUMENT=1 $(PYTHON_BIN) -m pytest -p tests.soak_report

# What only waits runs six at once; then, one after the other, what wants the machine to itself.
soak: setup-dev ## the tests that take long, as root, about an hour and a half: figures to docs/reliability.md (SEED=… repeats)
	@sh scripts/setup.sh load .venv-load
	@sh scripts/system_packages.sh
	@echo "soak: seed $(SEED); about 90 minutes"
	$(SOAK) -m "soak and not alone" -n 6 --dist worksteal $(ARGS); first=$$?; \
	TOWLINE_SOAK_GO_ON=1 $(SOAK) -m "soak and alone" $(ARGS) && exit $$first

fuzz: setup-dev ## fuzz the tunnel's decoder and machine (SECONDS=600); what it finds goes to ./build/fuzz
	@mkdir -p build/fuzz
	$(PYTHON_BIN) -m tests.fuzz.fuzz_decoder build/fuzz tests/fuzz/corpus -max_total_time=$(SECONDS) -max_len=4096

# The firmware (firmware/README.md): each kind of build in a folder of its own under ./build/firmware.
firmware-sim: setup ## build the device simulator, build/firmware/sim/port/towline-device
	@sh scripts/system_packages.sh firmware-sim
	$(PYTHON_BIN) scripts/build_firmware.py sim

firmware-test: setup-dev ## the firmware's own tests: units, rv32, sizes, ESP port, simulator
	@sh scripts/system_packages.sh firmware-test
	$(PYTHON_BIN) -m pytest tests/firmware -n 2 --dist loadgroup $(ARGS)

firmware-fuzz: setup ## fuzz the firmware's decoders in turn (SECONDS=600 each); what it finds goes to ./build/fuzz
	@sh scripts/system_packages.sh firmware-fuzz
	$(PYTHON_BIN) scripts/build_firmware.py fuzz --seconds $(SECONDS) $(ARGS)

check: setup-dev ## ruff, mypy --strict, import contracts, file sizes
	$(PYTHON_BIN) -m ruff check .
	$(PYTHON_BIN) -m ruff format --check .
	$(PYTHON_BIN) -m mypy
	$(PYTHON_BIN) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
	$(PYTHON_BIN) scripts/check_sizes.py

format: setup-dev ## put the code into the form `make check` wants
	$(PYTHON_BIN) -m ruff check --fix .
	$(PYTHON_BIN) -m ruff format .

bench-setup: setup-dev
	@sh scripts/system_packages.sh bench
	@sh scripts/setup.sh bench-peers .venv-bench-peers

bench: bench-setup ## measure beside nginx, haproxy, ssh -R, snitun: JSON, tables, plot in docs/ (ARGS="--only c32,c1" prints some)
	$(PYTHON_BIN) -m loadtests $(ARGS)

bench-compare: bench-setup ## measure, and show the change against the last committed result (ARGS="--run FILE")
	$(PYTHON_BIN) -m loadtests.compare $(ARGS)

load: setup-dev ## visitors by locust over many tunnels (ARGS="--users 50 --time 60"; HOST=http://… for a stack that runs)
	@sh scripts/setup.sh load .venv-load
	$(PYTHON_BIN) -m loadtests.load $(if $(HOST),--host $(HOST)) $(if $(TIME),--time $(TIME)) $(ARGS)

docs: setup-dev ## write docs/settings.md, metrics.md, api-reference.md and commands.md from the code
	$(PYTHON_BIN) -m towline.documents docs

lock: ## lock the dependencies of pyproject.toml again (needs uv)
	@sh scripts/lock.sh

clean: ## remove what was installed and built (keeps ./data)
	rm -rf .venv .venv-bench-peers .venv-load build/device-uis build/firmware .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
