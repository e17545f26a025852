# One command for people and for CI alike. `make` lists what there is.
#
# Everything lives in .venv, made on first use with $(PYTHON); a target installs what it needs and no more,
# again only when pyproject.toml has changed. Needed beforehand: Python 3.11 or newer, make, a package index.

PYTHON ?= python3
ARGS   ?=

py := .venv/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.SUFFIXES:

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12 picks the Python that .venv is made with; ARGS='-k retry -x' goes to pytest."

demo: .venv/.with-demo  ## run the notebooks from top to bottom, no browser needed
	$(py) notebooks/run_demo.py $(ARGS)

lab: .venv/.with-demo .venv/.with-lab  ## open the notebooks in JupyterLab
	$(py) -m jupyterlab --notebook-dir=notebooks $(ARGS)

test: .venv/.with-test .venv/.ipykernel6  ## run the tests: make test ARGS="-k retry -x"
	$(py) -m pytest -n auto --dist worksteal $(ARGS)

fuzz: .venv/.with-test  ## try a hundred times as many made-up messages, payloads and files
	HYPOTHESIS_PROFILE=fuzz $(py) -m pytest -n auto --dist worksteal -m fuzz --timeout 3600 $(ARGS)

check: .venv/.with-dev  ## formatting, lint and types
	$(py) -m ruff format --check .
	$(py) -m ruff check .
	$(py) -m mypy

format: .venv/.with-dev  ## format the code and apply the safe fixes
	$(py) -m ruff check --fix-only --quiet .
	$(py) -m ruff format .

bench: .venv/.with-bench  ## measure on this machine, beside other queues: five minutes
	$(py) -m benchmarks --quick $(ARGS)

bench-full: .venv/.with-bench  ## the same at full size: half an hour; ARGS=--write-docs puts it into docs/benchmarks.md
	$(py) -m benchmarks $(ARGS)

chaos: .venv/.with-measure  ## kill processes 200 times while they run 20,000 jobs, and audit what became of them
	$(py) -m benchmarks.chaos $(ARGS)

clean:  ## remove .venv, caches and build products; queue files stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .ipynb_checkpoints
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The checks run on any Python, even 2.7, before anything is installed. $(1) is where it comes from.
define check_python
import os, subprocess, sys
goal = os.environ.get("GOAL") or "demo"
if sys.version_info < (3, 11):
    def runs(name):
        try:
            with open(os.devnull, "w") as null:
                return subprocess.call([name, "-c", ""], stdout=null, stderr=null) == 0
        except OSError:
            return False
    found = [n for n in ("python3.13", "python3.12", "python3.11", "python3.14") if runs(n)] + ["python3.12"]
    sys.exit("nbqueue needs Python 3.11 or newer; this is %s. Try: make %s PYTHON=%s"
             % (".".join(map(str, sys.version_info[:3])), goal, found[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("nbqueue makes a virtual environment, and this Python (%s) comes without venv or ensurepip. "
             "On Debian and Ubuntu: apt install python3-venv; or take another: make %s PYTHON=..."
             % (sys.executable, goal))
endef
export check_python
export GOAL = $(firstword $(MAKECMDGOALS))

# An existing .venv that works and is new enough is kept; one whose Python is gone is made anew.
.venv/.made:
	@if $(py) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then :; else \
	  command -v "$(PYTHON)" >/dev/null || \
	    { echo "There is no $(PYTHON) here. nbqueue needs Python 3.11 or newer: make $(GOAL) PYTHON=..." >&2; exit 1; }; \
	  "$(PYTHON)" -c "$$check_python" || exit 1; \
	  echo "Making .venv with $$("$(PYTHON)" --version)"; \
	  "$(PYTHON)" -m venv --clear .venv || { rm -rf .venv; exit 1; }; \
	fi
	@$(py) -m pip --version >/dev/null 2>&1 || $(py) -m ensurepip >/dev/null
	@touch $@

.venv/.with-%: pyproject.toml | .venv/.made
	@echo "Installing nbqueue[$*] into .venv (once; a minute or so)"
	@$(py) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

# Kernels of ipykernel 6.31 are tested too. It goes beside the newer one, and its kernelspec puts it first.
.venv/.ipykernel6: | .venv/.with-test
	@$(py) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/ipykernel6 'ipykernel==6.31.*'
	@touch $@

.PRECIOUS: .venv/.with-%
.PHONY: help demo lab test fuzz check format bench bench-full chaos clean
