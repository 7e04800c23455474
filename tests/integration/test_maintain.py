"""Maintenance does not change any row, and deletes nothing unless requested."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from bronze.config import CreateTablesConfig
from bronze.errors import ConfigError, InvalidOptionError
from bronze.ops.create_tables import create_tables
from tests.support.delta_log import set_properties
from tests.support.events import BAD, make_event, make_events
from tests.support.lake import Lake
from tests.support.maintenance import add_stray_file, run_maintenance
from tests.support.topic import Topic


def count_parts(lake: Lake, condition: str) -> int:
    """Files that a query of bronze reads."""
    return lake.bronze.where(condition).select("_metadata.file_path").distinct().count()


def make_old(lake: Lake, days: int) -> None:
    """Make the DLQ's records look as if they had been ingested days ago."""
    earlier = {"_ingested_at": F.col("_ingested_at") - F.expr(f"INTERVAL {days} DAYS")}
    old = lake.dlq.withColumns(earlier).withColumn("_dlq_date", F.to_date("_ingested_at"))
    old.write.format("delta").mode("overwrite").save(lake.config.dlq_path)


def add_replayed(lake: Lake, count: int) -> None:
    """Append the bronze rows that a replay of the DLQ's first records would append."""
    rows = lake.dlq.orderBy("_kafka_offset").limit(count).select("_kafka_topic", "_kafka_partition", "_kafka_offset")
    model = lake.bronze.limit(1).drop(*rows.columns).withColumn("_ingested_at", F.current_timestamp())
    rows.crossJoin(model).select(lake.bronze.columns).write.format("delta").mode("append").save(lake.config.output_path)


def test_closed_hours_are_compacted_the_open_one_and_all_rows_stay(topic: Topic, lake: Lake):
    now = datetime.now(UTC).isoformat()
    for number in range(3):
        topic.produce([*make_events(4, 4 * number), make_event(100 + number, event_timestamp=now)], partition=0)
        lake.ingest()
    before, closed = lake.positions(), "_event_date = '2026-01-31'"
    summary = run_maintenance(lake)
    assert (summary.compacted, summary.files_before, summary.files_after) == (1, 3, 1)
    assert (count_parts(lake, closed), count_parts(lake, f"NOT ({closed})")) == (1, 3)
    assert lake.positions() == before


def test_vacuum_lists_what_is_old_enough_and_deletes_it_only_when_asked(topic: Topic, lake: Lake):
    topic.produce(make_events(4))
    lake.ingest()
    stray, before = add_stray_file(lake, days=2), lake.positions()
    assert run_maintenance(lake).unreferenced == 0
    listed = run_maintenance(lake, retention_hours=24, force=True)
    assert (listed.unreferenced, listed.unreferenced_bytes, stray.exists()) == (1, 4, True)
    assert run_maintenance(lake, retention_hours=24, force=True, vacuum=True).unreferenced == 1
    assert not stray.exists()
    assert lake.positions() == before


def test_vacuum_keeps_what_the_table_s_own_setting_keeps(topic: Topic, lake: Lake):
    lake.ingest()
    properties = {"delta.deletedFileRetentionDuration": "interval 30 days"}
    set_properties(lake.spark, lake.config.output_path, **properties)
    add_stray_file(lake, days=20)
    assert run_maintenance(lake).unreferenced == 0
    with pytest.raises(
        InvalidOptionError, match="--retention-hours: expected at least delta.deletedFileRetentionDuration"
    ):
        run_maintenance(lake, retention_hours=200)


@pytest.mark.soak
def test_replayed_dlq_records_stay_however_old_also_where_their_deletion_is_asked_for(
    topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    """The last release had this option."""
    topic.produce(make_events(3) + BAD, partition=0)
    lake.ingest()
    make_old(lake, days=10)
    add_replayed(lake, 5)
    run_maintenance(lake, delete_replayed_days=7)
    assert lake.dlq.count() == 8
    assert sum("--delete-replayed-days is ignored" in message for message in bronze_log.messages) == 1


@pytest.mark.soak
def test_max_minutes_is_ignored_with_a_warning(topic: Topic, lake: Lake, bronze_log):
    for number in range(2):
        topic.produce(make_events(2, 2 * number), partition=0)
        lake.ingest()
    assert run_maintenance(lake, max_minutes=1e-9).compacted == 1
    assert sum("--max-minutes is ignored" in message for message in bronze_log.messages) == 1


def test_without_a_bronze_table_it_says_so(lake: Lake):
    with pytest.raises(ConfigError, match="there is no table at .*; ingest first"):
        run_maintenance(lake)


def test_tables_are_created_once_and_ingestion_uses_them(topic: Topic, lake: Lake):
    config = CreateTablesConfig(output_path=lake.config.output_path, dlq_path=lake.config.dlq_path)
    assert [line.rpartition(": ")[2] for line in create_tables(config, lake.spark)] == ["created", "created"]
    again = create_tables(config, lake.spark)
    assert [line.rpartition(": ")[2] for line in again] == ["already exists and fits"] * 2
    topic.produce(make_events(3) + BAD)
    lake.ingest(writer="direct")
    assert len(lake.positions()) == 11


def test_a_table_gets_a_catalog_s_name_new_or_with_rows(topic: Topic, lake: Lake):
    name = f"bronze_{topic.name.replace('-', '_')}"
    config = CreateTablesConfig(output_path=lake.config.output_path, bronze_table=f"default.{name}")
    topic.produce(make_events(3))
    lake.ingest()
    assert f"known as default.{name}" in create_tables(config, lake.spark)[0]
    assert lake.spark.table(name).count() == 3
    elsewhere = replace(config, output_path=f"{lake.config.output_path}-2")
    with pytest.raises(ConfigError, match=f"default.{name} is the table at .*/bronze, not at"):
        create_tables(elsewhere, lake.spark)
    assert not Path(elsewhere.output_path).exists()
    lake.spark.sql(f"DROP TABLE {name}")


def test_a_table_that_does_not_fit_is_not_created_over(lake: Lake):
    lake.spark.range(3).write.format("delta").save(lake.config.output_path)
    with pytest.raises(ConfigError, match="(?s)does not fit; give another path.*column id: not expected"):
        create_tables(CreateTablesConfig(output_path=lake.config.output_path), lake.spark)
