# make serve    run the server            make test         run all tests
# make check    format, lint, types       make bench        measure
# make format   do what check asks for    make soak         the faults of a cluster for an hour
#                                         make constraints  take newer dependencies into the image
#
# Works from a fresh clone on Debian with Python 3.11 or newer. Stamps under
# .venv make repeated runs quick; `make clean` begins anew.

# Debian's own Python first, wherever another stands in the PATH: it is built with
# profile-guided optimisation, those of version managers are not (a fifth more CPU per push).
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Arguments for the server and for pytest: make serve ARGS="--host 127.0.0.1", make test ARGS=tests/wire
ARGS ?=

# Debian packages that the tests need: a browser, Redis as a peer and a store, MariaDB as a
# store, servers in another time, strace to see the sync before the answer, a compiler for
# the C peers of bench/, ZooKeeper (the server's classes and a Java to run them), systemd to check
# the unit.
TEST_PACKAGES := chromium chromium-driver default-jre-headless faketime gcc libc6-dev libzookeeper-java \
	mariadb-server redis-server strace systemd
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Installs the Debian packages $(1), says so, and fails if it cannot.
install = echo "installing $(1)" >&2 && $(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null

.PHONY: help serve test soak check format bench constraints clean system-packages

serve: $(VENV)/.installed
	$(BIN)/encke serve $(ARGS)

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

test: system-packages $(VENV)/.installed-dev
	$(BIN)/pytest $(ARGS)

# Each round has a seed of its own. Ends with the first that fails, which says its seed, or with the time.
MINUTES ?= 60
SEED ?= 1
soak: system-packages $(VENV)/.installed-dev
	@end=$$(($$(date +%s) + $(MINUTES) * 60)); seed=$(SEED); \
	while [ $$(date +%s) -lt $$end ]; do \
		echo "seed $$seed: make soak SEED=$$seed begins here"; \
		ENCKE_TEST_FIRST_SEED=$$seed $(BIN)/pytest -q tests/cluster_e2e $(ARGS) || exit 1; \
		seed=$$((seed + 1)); \
	done

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layering.py tests/test_shipped_config.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench $(ARGS)

# What docker/constraints.txt names: the newest that pyproject.toml allows, on the Python of the image.
constraints: | $(VENV)/bin/pip
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
	$(BIN)/python -m venv "$$work/venv" && \
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
		> "$$work/wanted.txt" && \
	"$$work/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$$work/wanted.txt" && \
	{ sed -n '/^#/p' docker/constraints.txt; "$$work/venv/bin/pip" freeze --disable-pip-version-check; } \
		> "$$work/constraints.txt" && \
	cp "$$work/constraints.txt" docker/constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Editable, so that a changed file needs no new installation; only pyproject.toml does.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.installed

# A fresh Debian has no Python, or one without venv (ensurepip is a package of its own).
$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { [ $(PYTHON) = python3 ] && $(call install,python3 python3-venv); } || { \
		echo "there is no $(PYTHON), and it cannot be installed: install Python 3.11 or newer, with venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version 2>&1). Try make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call install,python3-venv); } || { \
		echo "cannot make a virtual environment: install the package python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

system-packages:
	@missing=$$(dpkg-query -W -f '$${Package} $${Status}\n' $(TEST_PACKAGES) 2>/dev/null \
		| awk '/install ok installed/ {print $$1}' \
		| (cat; echo $(TEST_PACKAGES) | tr ' ' '\n') | sort | uniq -u | tr '\n' ' '); \
	if [ -n "$$missing" ]; then \
		{ $(call install,$$missing); } || { \
			echo "cannot install: tests that need $$missing will fail" >&2; exit 1; }; \
	fi
