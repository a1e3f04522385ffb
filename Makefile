# Everything starts here. A fresh clone needs nothing but Python 3.11 or newer: the targets below set up the rest.
#
#   PYTHON=/path/to/python make …    choose the interpreter for .venv
#   make test ARGS="-k fair -x"      hand arguments to pytest

PYTHON ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for servers and workers, so several files run at a time; each run has RabbitMQ servers of its own.
# A test that fails is tried once more, and its name is listed: servers are killed here by the hundred, and RabbitMQ
# itself does not always come back whole (docs/guides/when-it-breaks.md).
PYTEST := $(BIN)/python -m pytest --durations=15 -n 3 --dist loadfile --reruns 1 -rR

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types docs bench format system clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.installed ## See dibs at work: three workers, one of them killed (sets up .venv first)
	$(BIN)/dibs demo

test: system $(VENV)/.installed-dev ## Run all tests (sets up .venv, RabbitMQ and Go first)
	$(PYTEST) $(ARGS)

check: lint types docs test ## The whole gate: format, lint, types, docs, tests

lint: $(VENV)/.installed-dev ## Check format and style
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/.installed-dev ## Check types with mypy (strict) and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-dev ## Build the site into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html docs docs/_build/html

bench: system $(VENV)/.installed ## Measure dibs and its peers side by side; takes hours, then writes docs/benchmarks.md
	$(BIN)/python -m bench $(if $(ARGS),$(ARGS),--docs docs)

format: $(VENV)/.installed-dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

system: ## Install what the tests need from the system: RabbitMQ, Go, amqp-tools, tmux; RabbitMQ 4.x into .rabbitmq4
	@tools/setup system

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) .bench docs/_build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	[ ! -e .rabbitmq4 ] || rm -rf --one-file-system .rabbitmq4  # nothing is mounted there, unless you did it

# The stamps stand in .venv, so that they go when it goes.
$(VENV)/.installed: pyproject.toml tools/setup
	@tools/setup venv rabbitmq
	@touch $@

$(VENV)/.installed-dev: pyproject.toml tools/setup
	@tools/setup venv dev
	@touch $@ $(VENV)/.installed
