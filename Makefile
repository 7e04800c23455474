# `make` alone prints this help. Everything runs in .venv, which the first target that needs it makes.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# The first Python that can make the environment; where none can, the first there is, and setup says what it lacks.
PYTHONS := python3.11 python3.12 python3.13 python3
ifndef PYTHON
PYTHON := $(shell for p in $(PYTHONS); do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
PYTHON := $(or $(PYTHON),$(firstword $(foreach p,$(PYTHONS),$(shell command -v $(p) 2>/dev/null))))
endif
CONDA ?= $(firstword $(foreach c,micromamba mamba conda,$(shell command -v $(c) 2>/dev/null)))
USE_CONDA ?=
BIN := .venv/bin
READY := .venv/.ready
# What Spark loads at every start, as the JVM maps it; one that cannot use it ignores it: lib/sandbox/classes.py.
CLASSES := .venv/spark-classes.jsa
ifneq ($(origin SPARK_SUBMIT_OPTS),environment)
export SPARK_SUBMIT_OPTS := -XX:SharedArchiveFile="$(CURDIR)/$(CLASSES)" -Xlog:cds*=off
endif
# From environment.yml it has a Java of its own, which Spark's scripts look for on PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Parameters of the targets below: make produce COUNT=1000, make ingest ARGS="--with-metrics"
COUNT ?= 20000
TOPIC ?= api-usage-events.v1
PORT ?= 9092
DATA ?= data
ARGS ?=
NOTEBOOK ?= ingestion
PARAMS ?=
# Test processes at once, each with a Spark and a broker of its own; the tests of a file stay together.
WORKERS ?= 2
SOAK_MINUTES ?= 15
KILLS ?= 25
export SANDBOX_PORT := $(PORT)
export SANDBOX_DATA_DIR := $(DATA)/sandbox
# Notebooks take data/ for the sandbox's own; another folder must be named.
ifneq ($(DATA),data)
export SANDBOX_TABLES_DIR := $(DATA)
endif

TABLES = --checkpoint-path $(DATA)/checkpoint --output-path $(DATA)/bronze --dlq-path $(DATA)/dlq
RUN = $(BIN)/python -m bronze.notebook.run notebooks
# Not named in a recipe: `make -n` would run the line.
SUBMAKE = $(MAKE)
# A title among what the notebooks print.
SAY = @printf '\n\033[1m%s\033[0m\n' '$(1)'
COMMA := ,
START ?=
PLACES = -p kafka_topic $(TOPIC) -p output_path $(DATA)/bronze -p dlq_path $(DATA)/dlq
PARALLEL = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SOURCE = --kafka-brokers 127.0.0.1:$(PORT) --kafka-topic $(TOPIC)

help: ## Show this help
	@awk 'BEGIN {FS = ":[^#]*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z-]+:[^#]*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Setup

setup: $(READY) $(CLASSES) ## Make .venv with all packages and fetch the jars (USE_CONDA=1: from environment.yml)

$(READY): pyproject.toml environment.yml
	@test -n "$(PYTHON)$(USE_CONDA)" || { echo "No Python found: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)." >&2; exit 2; }
	@test -n "$(USE_CONDA)" || $(PYTHON) -c 'import sys; v = sys.version_info; \
		sys.exit(0 if v >= (3, 11) else f"$(PYTHON) is Python {v[0]}.{v[1]}, 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@test -n "$(USE_CONDA)" || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv)." >&2; exit 2; }
	@test -n "$(USE_CONDA)" || PYTHONPATH=lib $(PYTHON) -m bronze.runtime.jars --check
	@echo "Setting up .venv; the first time takes a few minutes"
ifneq ($(USE_CONDA),)
	@test -n "$(CONDA)" || { echo "USE_CONDA is set, but there is no micromamba, mamba or conda on PATH." >&2; exit 2; }
	$(CONDA) env create --yes --quiet --prefix .venv --file environment.yml
else
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[sandbox,notebooks,dev]"
endif
	$(BIN)/python -m bronze.runtime.jars --fetch
	@touch $(READY)

$(CLASSES): $(READY)
	@echo "Keeping the classes that Spark loads, so that it starts faster: about a minute, once"
	@$(BIN)/python -m sandbox.classes "$(CURDIR)/$@" && test -e $@ || { echo "This Java keeps none: Spark starts as ever" >&2; touch $@; }

env-archive: setup ## Pack what executors need into dist/bronze-env.tar.gz, for --archives on a cluster
	rm -rf build/env dist/bronze-env.tar.gz
	mkdir -p build/env dist
	$(BIN)/python -m bronze.runtime.jars --executor-requirements > build/executor-requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --target build/env \
		-r build/executor-requirements.txt
	tar -czf dist/bronze-env.tar.gz -C build/env .
	@echo "dist/bronze-env.tar.gz: submit with --archives dist/bronze-env.tar.gz#env --conf spark.executorEnv.PYTHONPATH=env"

##@ Demo

demo: setup ## Kafka, 20,000 sample events, all notebooks by papermill, the audit: tables in data/, notebooks in runs/
	@$(BIN)/python -m sandbox up
	@$(BIN)/python -m sandbox produce --count $(COUNT) --booked 20 --topic $(TOPIC)
	@$(BIN)/python -m sandbox.jvm $(SUBMAKE) notebooks \
		START="$$(test -e $(DATA)/checkpoint || $(BIN)/python -m sandbox late-start --topic $(TOPIC))"
	@printf '%s\n' '' 'Try next:' \
		'  make demo          again: as many new events, nothing twice' \
		'  make lab           the notebooks in JupyterLab' \
		'  make submit        the same ingestion by spark-submit' \
		'  make audit         prove once more that every record is there once' \
		'  make sandbox-down  stop Kafka'

# In the order of an operator: what was left out is added, what came too early waits until its time is in reach, and is
# replayed. The audit is the last: a command keeps its context in the demo's JVM.
notebooks: setup ## Run all notebooks by papermill on the sandbox, and the audit
	$(call SAY,Ingestion$(if $(START),: it starts late in one partition))
	$(RUN)/ingestion.ipynb $(PLACES) -p checkpoint_path $(DATA)/checkpoint -p starting_offsets '$(START)'
	$(call SAY,Backfill: what the tables lack of the topic)
	$(RUN)/backfill.ipynb $(PLACES) -p checkpoint_path $(DATA)/checkpoint
	$(call SAY,Monitoring: are the tables as they should be?)
	$(RUN)/table_monitoring.ipynb $(PLACES) -p checkpoint_path $(DATA)/checkpoint
	$(call SAY,DLQ: why records are invalid$(COMMA) and a replay of those that are valid by now)
	@$(BIN)/python -m sandbox wait --topic $(TOPIC)
	$(RUN)/dlq_inspection.ipynb $(PLACES) -p dry_run False
	$(call SAY,Audit: is every record there once?)
	$(BIN)/bronze audit $(SOURCE) $(TABLES)

lab: setup ## Open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

##@ Sandbox

sandbox-up: setup ## Start the sandbox's Apache Kafka on 127.0.0.1:$(PORT)
	@$(BIN)/python -m sandbox up

sandbox-down: setup ## Stop it; the topics stay
	@$(BIN)/python -m sandbox down

produce: setup ## Produce COUNT sample events to TOPIC
	@$(BIN)/python -m sandbox produce --count $(COUNT) --topic $(TOPIC)

##@ Run

ingest: setup ## Ingest the sandbox's topic until it is empty: bronze ingest --available-now ARGS
	$(BIN)/bronze ingest $(SOURCE) $(TABLES) --available-now --with-metrics $(ARGS)

submit: setup ## The same by spark-submit of lib/bronze_ingestion.py on local[2]
	PYSPARK_PYTHON=$(CURDIR)/$(BIN)/python $(BIN)/spark-submit --master 'local[2,4]' \
		--packages $$($(BIN)/python -m bronze.runtime.jars --packages) \
		lib/bronze_ingestion.py $(SOURCE) $(TABLES) --available-now --with-metrics $(ARGS)

audit: setup ## Prove that every record is exactly once in bronze or in the DLQ
	$(BIN)/bronze audit $(SOURCE) $(TABLES) $(ARGS)

notebook: setup ## Run NOTEBOOK by papermill with PARAMS="-p name value": unknown names fail
	$(BIN)/python -m bronze.notebook.run notebooks/$(NOTEBOOK).ipynb $(PARAMS)

##@ Test

test: setup ## Unit, integration and notebook tests; the fault tests are test-faults
	$(PARALLEL) tests/notebooks tests/integration tests/unit $(ARGS)

test-unit: setup ## Without Kafka
	$(BIN)/python -m pytest tests/unit $(ARGS)

test-notebooks: setup ## The notebooks, by nbmake and by papermill
	$(BIN)/python -m pytest tests/notebooks $(ARGS)

# The largest file first: begun last it would leave one process alone at the end.
test-faults: setup ## Crashes, stops, concurrent writers, failures of Kafka and storage: see docs/reliability.md
	$(PARALLEL) $$(ls -S tests/faults/test_*.py) -m "not soak" $(ARGS)

test-soak: setup ## The same for hours: SOAK_MINUTES=15 of load with random restarts, KILLS=25 at random moments
	SOAK_MINUTES=$(SOAK_MINUTES) KILLS=$(KILLS) $(BIN)/python -m pytest tests/faults -m soak -s $(ARGS)

##@ Code

lint: setup ## ruff and mypy, and no outputs in notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify notebooks/*.ipynb

format: setup ## ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

strip: setup ## Strip the notebooks of outputs
	$(BIN)/nbstripout notebooks/*.ipynb

clean: ## Remove tables, runs and caches; .venv stays (the sandbox is stopped first)
	@test ! -x $(BIN)/python || $(BIN)/python -m sandbox down
	rm -rf $(DATA) runs dist build .pytest_cache .ruff_cache .mypy_cache spark-warehouse metastore_db derby.log

.PHONY: help setup env-archive demo notebooks lab sandbox-up sandbox-down produce ingest submit audit notebook test test-unit test-notebooks test-faults test-soak lint format strip clean
