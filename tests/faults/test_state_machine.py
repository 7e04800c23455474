"""Random sequences of commands and faults on real tables; after each step every row is counted.

The suite runs the same few sequences each time, so that its result depends only on the code; ``make test-soak`` runs
new ones each time. BRONZE_SEED repeats a run, BRONZE_EXAMPLES sets the number of sequences of the soak.
"""

import os
import random
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from pyspark.sql import SparkSession

from sandbox.kafka import KafkaSandbox
from tests.support.machine import IngestionMachine

SEED = os.environ.get("BRONZE_SEED")
EXAMPLES = int(os.environ.get("BRONZE_EXAMPLES") or 40)


def run_machine(kafka: KafkaSandbox, spark: SparkSession, folder: Path, examples: int, steps: int, seed: int) -> None:
    seed = int(SEED or seed)
    print(f"BRONZE_SEED={seed}")
    places = {"brokers": kafka.brokers, "spark": spark, "root": folder}
    machine = hypothesis.seed(seed)(type("Machine", (IngestionMachine,), places))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=False,
            print_blob=True,
            phases=[Phase.generate],  # shrinking a failure takes an hour
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_happens_every_record_is_there_once_or_told(kafka: KafkaSandbox, spark: SparkSession, tmp_path: Path):
    run_machine(kafka, spark, tmp_path, examples=4, steps=12, seed=1)


@pytest.mark.soak
def test_the_same_for_many_sequences(kafka: KafkaSandbox, spark: SparkSession, tmp_path: Path):
    run_machine(kafka, spark, tmp_path, EXAMPLES, steps=15, seed=random.randrange(2**32))
