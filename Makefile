# Two commands matter: `make lab` opens the course, `make test` checks all of it. `make` alone lists the rest.

PYTHON ?= python3
VENV ?= .venv
PORT ?=
LAB_ARGS ?=
NOTEBOOKS ?= $(sort $(wildcard notebooks/*.ipynb))

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NBVAL := $(BIN)/pytest --nbval --nbval-current-env --nbval-cell-timeout=120 \
	--nbval-sanitize-with tests/nbval_sanitize.cfg -n 2 --dist loadscope -p no:cacheprovider
PATIENT = $(subst timeout=120,timeout=300,$(NBVAL))  # without vector units a cell of a minute is no wonder

# A function of make and not a shell line, so that a refusal is one line and nothing else is tried.
python_version = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.version_info >= (3, 11))' 2>/dev/null)
require_python = $(if $(filter True,$(python_version)),,$(error qlab needs Python 3.11 or newer, and $(PYTHON) is \
	$(or $(filter-out False,$(python_version)),not there). Install one and name it: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11))

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-portable bench notebooks exercises figures format clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## create .venv and install the pinned dependencies (PYTHON=python3.12 names another Python)

# pip is the last thing that venv writes: a creation that was cut off is repeated.
$(BIN)/pip:
	$(require_python)@$(PYTHON) -m venv $(VENV)

# The first start of Lab would show a news popup, and nbgrader, which makes the exercises, a teacher's panels.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV): a few minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lab,test]' -c constraints.txt
	@$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements 2>/dev/null
	@if [ -d $(VENV)/share/jupyter/labextensions/@jupyter/nbgrader ]; then \
		$(BIN)/jupyter labextension disable --level=sys_prefix @jupyter/nbgrader 2>/dev/null; fi
	@touch $(STAMP)

# Without PORT, Lab takes 8888 or the next free port; a PORT that was asked for and is busy is an error that says so.
# A browser opens on a desktop; as root or without a display Lab prints its address and serves.
lab: setup  ## open the course in JupyterLab (PORT=8890; LAB_ARGS=--ip=0.0.0.0 serves beyond this machine)
	@$(BIN)/python -m qlab.learn.workspace
	@set -- --ServerApp.root_dir="$(CURDIR)/work" --LabApp.default_url=/lab/tree/00_start_here.ipynb; \
	if [ -n "$(PORT)" ]; then set -- "$$@" --ServerApp.port="$(PORT)" --ServerApp.port_retries=0; fi; \
	if [ "$$(id -u)" = 0 ]; then set -- "$$@" --allow-root --no-browser; \
	elif [ "$$(uname)" != Darwin ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ]; then set -- "$$@" --no-browser; fi; \
	exec $(BIN)/python -m jupyterlab "$$@" $(LAB_ARGS)

test: setup  ## run every check, test and lesson
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --durations 40 tests
	$(if $(NOTEBOOKS),OMP_NUM_THREADS=1 $(NBVAL) $(NOTEBOOKS),@echo "notebooks/ holds no lesson yet")

test-portable: setup  ## run the lessons as on the plainest x86-64 processor (NOTEBOOKS="notebooks/01_memory_math.ipynb")
	$(if $(NOTEBOOKS),ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(PATIENT) $(NOTEBOOKS),@echo "notebooks/ holds no lesson yet")

bench: setup  ## measure the seconds and bytes that the course promises
	@$(BIN)/python -m qlab.bench.seconds
	@$(BIN)/python -m qlab.bench.nf4
	@$(BIN)/python -m qlab.bench.gptq
	@$(BIN)/python -m qlab.bench.stream

notebooks: setup  ## execute the lessons again, in place
	$(if $(NOTEBOOKS),$(BIN)/python -m qlab.learn.notebooks execute $(NOTEBOOKS),@echo "notebooks/ holds no lesson yet")

exercises: setup  ## make the learner's exercises/ from the masters in solutions/
	@$(BIN)/python -m qlab.learn.release

figures: setup  ## draw the figure of the README again
	$(BIN)/python -m qlab.plots

format: setup  ## put the code in its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and screenshots; .venv and the learner's work/ stay
	rm -rf build/screenshots dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './work/*' -prune -exec rm -rf {} +
