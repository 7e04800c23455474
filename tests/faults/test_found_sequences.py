"""The shortest sequences with which the state machine found a bug: the same rules and counts, without randomness."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sandbox.kafka import KafkaSandbox
from tests.support.machine import IngestionMachine

INGEST = {"writer": "direct", "accept": False}


@pytest.fixture
def machine(kafka: KafkaSandbox, spark: SparkSession, tmp_path: Path) -> Iterator[IngestionMachine]:
    """The machine after its first run; at the end all rows are counted once more and audited."""
    made = type("Machine", (IngestionMachine,), {"brokers": kafka.brokers, "spark": spark, "root": tmp_path})()
    made.begin()
    made.every_position_is_counted()
    yield made
    made.every_position_is_counted()
    made.teardown()


@pytest.mark.parametrize("name", ["other-dlq", ""])
def test_a_dlq_that_is_changed_just_before_a_commit_gets_nothing_twice(machine: IngestionMachine, name: str):
    machine.run_two_at_once(writer="direct", other="direct", number=2, name=name, is_backfill=False, share=1.0)
    assert not machine.count().wrong


@pytest.mark.soak
def test_a_replay_after_a_rollback_warns_of_it(machine: IngestionMachine):
    for _ in range(2):
        machine.ingest_all(valid=5, invalid=3, **INGEST)
        machine.every_position_is_counted()
    machine.restore(name="bronze", share=0.5, asks=True)
    assert machine.rolled_back
    machine.replay(writer="direct", odd=0, name="dlq")
    assert not machine.rolled_back


def test_a_rollback_of_an_earlier_dlq_is_warned_of(machine: IngestionMachine):
    machine.ingest_all(valid=5, invalid=3, **INGEST)
    machine.every_position_is_counted()
    machine.change_dlq(writer="direct", name="other-dlq", by_backfill=False)
    machine.every_position_is_counted()
    machine.restore(name="dlq", share=0.0, asks=True)
    assert machine.rolled_back
    machine.ingest_all(valid=0, invalid=0, **INGEST)


def test_the_audit_names_a_hole_that_the_checkpoint_has_not_reached(machine: IngestionMachine):
    machine.ingest_all(valid=5, invalid=3, **INGEST)
    machine.produce(partition=0, valid=6, invalid=0, transaction="")
    machine.backfill_some(writer="direct", start=0.9, end=1.0)
    machine.source.delete_before(0, 13)
    machine.every_position_is_counted()
    assert machine.facts.find_holes(machine.count())
    machine.check_audit()


def test_a_run_on_an_empty_topic_is_where_the_ingestion_begins(machine: IngestionMachine):
    machine.produce(partition=0, valid=6, invalid=0, transaction="")
    machine.source.delete_before(0, 4)
    machine.change_checkpoint(action="remove")
    machine.ingest_all(valid=0, invalid=0, **INGEST)
