# make setup   a virtual environment .venv/ with ROS 2 (as wheels), our dependencies and our messages built into it
# make demo    the reactor-separator plant for two hours of plant time, ends with a report
# make test    lint, types and all tests
# make lint    ruff and mypy
# make docs    docs/ as a web site in build/docs/
# make clean   remove everything that make made
#
# Needs CPython 3.11 (PYTHON=... to choose), pip and a C++ compiler. Each step is done again only when its inputs change.

PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps

# One thread per process: agents are processes of their own. DDS stays on this machine.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

interfaces := $(wildcard msg/*.msg srv/*.srv)
installed  := $(wildcard launch/*.py config/* scripts/* rmpc_ros/*.py rmpc_ros/*/__init__.py)

.PHONY: setup demo test lint docs clean
.DELETE_ON_ERROR:

setup: $(STAMPS)/package

$(STAMPS)/environment:
	@echo "setup: virtual environment in $(VENV)/"
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "setup: needs CPython 3.11 (make PYTHON=/path/to/python3.11), found " + sys.version)'
	@"$(PYTHON)" -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

requirements := requirements.txt requirements-ros.txt requirements-dev.txt requirements-peers.txt requirements-train.txt requirements-tennessee.txt

$(STAMPS)/packages: $(requirements) constraints.txt $(STAMPS)/environment
	@echo "setup: Python packages (the first time takes a few minutes)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt $(addprefix -r ,$(requirements))
	@touch $@

$(STAMPS)/package: package.xml CMakeLists.txt tools/bring_up.py tools/link_python.cmake.in $(interfaces) $(installed) $(STAMPS)/packages
	@echo "setup: messages, nodes and the rmpc command (the first time takes half a minute)"
	@$(BIN)/python tools/bring_up.py
	@touch $@

demo: setup
	$(BIN)/rmpc run config/reactor_separator.yaml --duration 7200 --speed max

test: lint
	$(BIN)/python -m pytest -n 2 -m "not processes"
	$(BIN)/python -m pytest -m processes

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/mkdocs build --strict
	@echo "docs: open build/docs/index.html"

clean:
	rm -rf $(VENV) build install log runs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
