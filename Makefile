# `make` prints the help. Everything runs in .venv; the first target that needs it creates it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# The first Python that can create the environment; if none can, the first one found, and setup says what is missing.
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
S3_READY := .venv/.s3-ready
AZURE_READY := .venv/.azure-ready
AZURITE := azurite@3.35.0
DEPLOY_READY := .venv/.deploy-ready
# Archive of the classes that Spark loads at every start; a JVM that cannot use it ignores it: lib/sandbox/classes.py.
CLASSES := .venv/spark-classes.jsa
ifneq ($(wildcard $(CLASSES)),)
ifneq ($(origin SPARK_SUBMIT_OPTS),environment)
export SPARK_SUBMIT_OPTS := -XX:SharedArchiveFile="$(CURDIR)/$(CLASSES)" -Xlog:cds*=off
endif
endif
# An environment from environment.yml has its own Java, which Spark's scripts look for on PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Parameters of the targets below: make produce COUNT=1000, make ingest ARGS="--with-metrics"
COUNT ?= 20000
TOPIC ?= api-usage-events.v1
PORT ?= 9092
DATA ?= data
ARGS ?=
NOTEBOOK ?= ingestion
PARAMS ?=
# Parallel test processes, each with its own Spark and broker; the tests of a file stay together.
WORKERS ?= 2
SOAK_MINUTES ?= 15
KILLS ?= 25
TIERS ?= faults s3 azure secured monitoring clusters integration notebooks unit
export SANDBOX_PORT := $(PORT)
export SANDBOX_DATA_DIR := $(DATA)/sandbox
# Notebooks treat data/ as the sandbox's folder; another folder must be named.
ifneq ($(DATA),data)
export SANDBOX_TABLES_DIR := $(DATA)
endif

TABLES = --checkpoint-path $(DATA)/checkpoint --output-path $(DATA)/bronze --dlq-path $(DATA)/dlq
RUN = $(BIN)/python -m bronze.notebook.run notebooks
# A variable, because `make -n` would run a recipe line that names MAKE.
SUBMAKE = $(MAKE)
# Prints a title between the outputs of the notebooks.
SAY = @printf '\n\033[1m%s\033[0m\n' '$(1)'
COMMA := ,
START ?=
PLACES = -p kafka_topic $(TOPIC) -p output_path $(DATA)/bronze -p dlq_path $(DATA)/dlq
PARALLEL = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SOURCE = --kafka-brokers 127.0.0.1:$(PORT) --kafka-topic $(TOPIC)

help: ## Show this help
	@awk 'BEGIN {FS = ":[^#]*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z0-9-]+:[^#]*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Setup

setup: $(READY) ## Create .venv with all packages and fetch the jars (USE_CONDA=1: from environment.yml)

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[sandbox,notebooks,metrics,lineage,dev]"
endif
	$(BIN)/python -m bronze.runtime.jars --fetch
	@touch $(READY)

fast-start: $(CLASSES) ## Store the classes that Spark loads (200 MB), so that it starts faster; the tests use them

$(CLASSES): $(READY)
	@echo "Archiving the classes that Spark loads, so that it starts faster: about a minute, once"
	@$(BIN)/python -m sandbox.classes "$(CURDIR)/$@" && test -e $@ || { echo "This Java cannot archive classes: Spark starts as usual" >&2; touch $@; }

env-archive: setup ## Pack the executors' Python packages into dist/bronze-env.tar.gz, for --archives on a cluster
	rm -rf build/env dist/bronze-env.tar.gz
	mkdir -p build/env dist
	$(BIN)/python -m bronze.runtime.jars --executor-requirements > build/executor-requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --target build/env \
		-r build/executor-requirements.txt
	tar -czf dist/bronze-env.tar.gz -C build/env .
	@echo "dist/bronze-env.tar.gz: submit with --archives dist/bronze-env.tar.gz#env --conf spark.executorEnv.PYTHONPATH=env"

##@ Demo

demo: setup ## Kafka, 20,000 sample events, all notebooks with papermill, the audit: tables in data/, notebooks in runs/
	@$(BIN)/python -m sandbox up
	@$(BIN)/python -m sandbox produce --count $(COUNT) --booked 20 --topic $(TOPIC)
	@$(BIN)/python -m sandbox.jvm $(SUBMAKE) notebooks \
		START="$$(test -e $(DATA)/checkpoint || $(BIN)/python -m sandbox late-start --topic $(TOPIC))"
	@printf '%s\n' '' 'Try next:' \
		'  make demo          again: the same number of new events, no duplicates' \
		'  make lab           the notebooks in JupyterLab' \
		'  make submit        the same ingestion with spark-submit' \
		'  make audit         prove again that every record is in the tables once' \
		'  make sandbox-down  stop Kafka'

# In an operator's order: the backfill adds the records that a late start skipped, and the replay takes the booked
# records once their timestamps are no longer too far in the future. The audit must be last, because a command does
# not stop its Spark context in the demo's JVM.
notebooks: setup ## Run all notebooks with papermill on the sandbox, and the audit
	$(call SAY,Ingestion$(if $(START),: it starts late in one partition))
	$(RUN)/ingestion.ipynb $(PLACES) -p checkpoint_path $(DATA)/checkpoint -p starting_offsets '$(START)'
	$(call SAY,Backfill: records of the topic that the tables lack)
	$(RUN)/backfill.ipynb $(PLACES) -p checkpoint_path $(DATA)/checkpoint
	$(call SAY,Monitoring: freshness$(COMMA) lag and alerts)
	$(RUN)/table_monitoring.ipynb $(PLACES) -p checkpoint_path $(DATA)/checkpoint
	$(call SAY,DLQ: the reasons$(COMMA) and a replay of the records that have become valid)
	@$(BIN)/python -m sandbox wait --topic $(TOPIC)
	$(RUN)/dlq_inspection.ipynb $(PLACES) -p dry_run False
	$(call SAY,Audit: is each record in the tables exactly once?)
	$(BIN)/bronze audit $(SOURCE) $(TABLES)

lab: setup ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

##@ Sandbox

sandbox-up: setup ## Start the sandbox's Apache Kafka on 127.0.0.1:$(PORT)
	@$(BIN)/python -m sandbox up

sandbox-down: setup ## Stop the sandbox's Kafka; the topics stay
	@$(BIN)/python -m sandbox down

$(S3_READY): $(READY)
	@echo "Installing the S3 server (47 MB)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[s3test]'
	@touch $@

s3-up: $(S3_READY) ## Start the sandbox's S3 server on 127.0.0.1:9000
	@$(BIN)/python -m sandbox s3 up

s3-down: setup ## Stop the sandbox's S3 server; the objects stay
	@$(BIN)/python -m sandbox s3 down

produce: setup ## Produce COUNT sample events to TOPIC
	@$(BIN)/python -m sandbox produce --count $(COUNT) --topic $(TOPIC)

##@ Run

ingest: setup ## Ingest the sandbox's topic until it is empty: bronze ingest --available-now ARGS
	$(BIN)/bronze ingest $(SOURCE) $(TABLES) --available-now --with-metrics $(ARGS)

# python is that of .venv, which is first on PATH: Spark's scripts do not accept a path with a space here.
submit: setup ## The same, with spark-submit and lib/bronze_ingestion.py on local[2]
	PYSPARK_PYTHON=python $(BIN)/spark-submit --master 'local[2,4]' \
		--packages $$($(BIN)/python -m bronze.runtime.jars --packages) \
		lib/bronze_ingestion.py $(SOURCE) $(TABLES) --available-now --with-metrics $(ARGS)

audit: setup ## Prove that every record is exactly once in bronze or in the DLQ
	$(BIN)/bronze audit $(SOURCE) $(TABLES) $(ARGS)

notebook: setup ## Run NOTEBOOK with papermill and PARAMS="-p name value"; unknown names fail
	$(BIN)/python -m bronze.notebook.run notebooks/$(NOTEBOOK).ipynb $(PARAMS)

##@ Test

test: setup $(CLASSES) ## Unit, integration and notebook tests
	$(PARALLEL) tests/notebooks tests/integration tests/unit $(ARGS)

test-unit: setup ## Unit tests, without Kafka
	$(BIN)/python -m pytest tests/unit $(ARGS)

test-notebooks: setup $(CLASSES) ## Notebook tests, with nbmake and papermill
	$(BIN)/python -m pytest tests/notebooks $(ARGS)

# The largest file first: started last, it would run alone at the end.
test-faults: setup $(CLASSES) ## Fault tests: crashes, stops, concurrent writers, failures of Kafka and storage; see docs/reliability.md
	$(PARALLEL) $$(ls -S tests/faults/test_*.py) $(ARGS)

test-monitoring: setup $(CLASSES) ## Tests with Prometheus, promtool, node_exporter and Kafka's tools: metrics, alerts, dashboard, lineage
	$(PARALLEL) $$(ls -S tests/monitoring/test_*.py) $(ARGS)

test-s3: $(S3_READY) $(CLASSES) ## Tests on an S3 server: every command, crashes, several drivers, a faulty network
	$(PARALLEL) $$(ls -S tests/s3/test_*.py) $(ARGS)

$(AZURE_READY): $(READY)
	@command -v npm >/dev/null || { echo "Azurite needs npm (Debian: apt-get install npm)." >&2; exit 2; }
	@echo "Installing Azure's emulator (npm, 190 MB)"
	npm install --prefix .venv/azurite --silent --no-audit --no-fund $(AZURITE)
	@touch $@

# Not part of CI, which has no time for it.
test-azure: $(AZURE_READY) $(CLASSES) ## Tests on Azure's emulator: the direct writer, crashes, several writers; needs npm
	$(BIN)/python -m pytest tests/azure -m soak $(ARGS)

$(DEPLOY_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[deploytest]'
	@touch $@

test-clusters: $(S3_READY) $(DEPLOY_READY) $(CLASSES) ## Tests on a standalone cluster of two workers, and of the examples in docs/deploy
	$(BIN)/python -m pytest tests/clusters $(ARGS)

test-newest: ## Unit tests, an ingestion, a notebook and a spark-submit on the newest Python and Java of this machine
	.ci/newest

test-secured: setup $(CLASSES) ## Tests on a secured Kafka: TLS, mTLS, SASL, OAuth, ACLs, and the message of each wrong setting
	$(BIN)/python -m pytest tests/secured $(ARGS)

# One process per tier: those of s3 and clusters have another Spark session.
test-soak: $(S3_READY) $(DEPLOY_READY) $(if $(filter azure,$(TIERS)),$(AZURE_READY)) $(CLASSES) ## All that CI has no time for: SOAK_MINUTES=15 of load, KILLS=25 at random moments, the other writer; hours
	@failed=; for tier in $(TIERS); do SOAK_MINUTES=$(SOAK_MINUTES) KILLS=$(KILLS) \
		$(BIN)/python -m pytest tests/$$tier -m soak -s $(ARGS) || test $$? = 5 || failed="$$failed $$tier"; done; \
		test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

##@ Benchmarks

bench: setup $(CLASSES) ## Compare the ingestion with other ways: benchmarks/results.json and results.png (ARGS=--quick: a trial)
	$(BIN)/python benchmarks/ingest.py $(ARGS)

bench-s3: $(S3_READY) ## Compare the ways to ingest into S3, on a local server
	$(BIN)/python benchmarks/s3.py $(ARGS)

bench-long: setup ## Measure what needs a long run: latency, the age of a run, a large backlog, a large audit; an hour
	$(BIN)/python benchmarks/long.py $(ARGS)

##@ Code

lint: setup ## Run ruff, mypy, import-linter and codespell, and check that notebooks have no outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/nbstripout --verify notebooks/*.ipynb

log-store: setup ## Compile the log store for S3 (lib/bronze/runtime/java)
	$(BIN)/python -m sandbox.log_store

format: setup ## Apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

strip: setup ## Remove the outputs from the notebooks
	$(BIN)/nbstripout notebooks/*.ipynb

clean: ## Stop the sandbox; remove tables, runs and caches, but keep .venv
	@test ! -x $(BIN)/python || $(BIN)/python -m sandbox down
	rm -rf $(DATA) runs/* dist build .pytest_cache .ruff_cache .mypy_cache spark-warehouse metastore_db derby.log

.PHONY: help setup log-store test-s3 test-azure test-monitoring test-clusters test-secured test-newest s3-up s3-down fast-start env-archive demo notebooks lab sandbox-up sandbox-down produce ingest submit audit notebook test test-unit test-notebooks test-faults test-soak bench bench-s3 bench-long lint format strip clean
