# Everything starts from Python 3.11 or newer; `make` alone lists what there is to do.
PYTHON ?= python3
EPOCHS ?= 150
BIN := .venv/bin
VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "daskconv needs Python 3.11 or newer, and '$(PYTHON)' is older or missing: try 'make PYTHON=python3.12'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' lacks the venv module: install it (on Debian and Ubuntu: the package python3-venv)." >&2; exit 1; }
	@echo "Setting up .venv (once, a few minutes) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@

.venv/bench: .venv/ready
	@$(BIN)/python -m pip install -q -e '.[bench]'
	@touch $@

demo: .venv/ready ## train on handwritten digits with 2 workers under mpiexec
	@$(VENV) mpiexec -n 4 daskconv train --data digits --net mnist_cnn --epochs $(EPOCHS) --batch-size 50 \
	  --lr 0.03 --weight-decay 0.001 --schedule cosine --save digits.safetensors

# The page's test drives a real browser; as root on Debian or Ubuntu this brings one.
browser:
	@if ! which chromium chromium-browser google-chrome | grep -q . && [ "$$(id -u)" = 0 ] && which apt-get >/dev/null; then \
	  echo "Installing Chromium for the page's test ..."; apt-get -qq update && apt-get -qq install -y chromium >/dev/null || true; fi

# Tests of a module share workers, a job or a browser, so that a process gets whole files.
test: lint browser ## lint, then every test that is not slow
	@$(VENV) python -m pytest -q -n 2 --dist loadfile

test-slow: .venv/ready ## the tests that take minutes
	@$(VENV) python -m pytest -q -m slow --timeout 1800

lint: .venv/ready ## formatting, ruff and mypy
	@$(BIN)/ruff format -q --check . || { echo "Run '$(BIN)/ruff format .' to lay the files out." >&2; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary

bench: .venv/bench ## time training beside PyTorch (installs it)
	@$(VENV) python workflows/bench_train.py --quick

clean: ## remove .venv, builds and caches; trained models stay
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis dask-scratch-space
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help browser demo test test-slow lint bench clean
