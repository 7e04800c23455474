"""delta-spark reads, maintains and describes tables of either writer, and skips files by their statistics."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.delta.ddl import create_table_statement
from bronze.delta.ledger import new_note
from bronze.delta.own_table import TableLog
from bronze.delta.tables import read_table_state
from bronze.errors import BronzeError, ConfigError, NotADeltaTableError
from bronze.parquet import DataFile
from bronze.schema import get_bronze_schema, get_bronze_spec, get_dlq_schema
from bronze.writers import DirectWriter
from tests.support.delta_log import set_properties
from tests.support.events import make_event, make_events
from tests.support.lake import Lake, with_both
from tests.support.topic import Topic


def list_types(schema) -> list[tuple[str, str]]:
    return [(field.name, field.dataType.simpleString()) for field in schema]


@with_both
def test_tables_have_the_contract_s_columns_and_properties(topic: Topic, any_lake: Lake):
    any_lake.ingest()
    assert list_types(any_lake.bronze.schema) == list_types(get_bronze_schema())
    assert list_types(any_lake.dlq.schema) == list_types(get_dlq_schema())
    detail = any_lake.spark.sql(f"DESCRIBE DETAIL delta.`{any_lake.config.output_path}`").first()
    assert detail["partitionColumns"] == ["_event_date", "_event_hour"]
    assert detail["properties"]["delta.checkpointInterval"] == "100"
    assert detail["properties"]["delta.enableExpiredLogCleanup"] == "false"
    assert detail["properties"]["delta.dataSkippingStatsColumns"] == ",".join(get_bronze_spec().stats_columns)


def test_delta_spark_optimizes_vacuums_and_describes(topic: Topic, any_lake: Lake):
    topic.produce(make_events(60))
    any_lake.ingest(max_offsets_per_trigger=20)
    path = any_lake.config.output_path
    before = sorted(row["event_id"] for row in any_lake.bronze.collect())
    optimized = any_lake.spark.sql(f"OPTIMIZE delta.`{path}`").first()
    assert optimized["metrics"]["numFilesRemoved"] >= 3
    any_lake.spark.sql(f"VACUUM delta.`{path}`").collect()
    operations = [row["operation"] for row in any_lake.spark.sql(f"DESCRIBE HISTORY delta.`{path}`").collect()]
    assert {"CREATE TABLE", "WRITE", "OPTIMIZE"} <= set(operations)
    assert sorted(row["event_id"] for row in any_lake.bronze.collect()) == before


def count_scanned_files(rows: DataFrame) -> int:
    """The files that Spark opens for a query, after pruning by partitions and statistics."""
    rows.sparkSession.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        query = rows.select("event_id")
        query.collect()
        scan = query._jdf.queryExecution().executedPlan().collectLeaves().head()
        return scan.metrics().apply("numFiles").value()
    finally:
        rows.sparkSession.conf.set("spark.sql.adaptive.enabled", "true")


def test_a_query_on_an_offset_range_skips_files(topic: Topic, any_lake: Lake):
    topic.produce(make_events(60), partition=0)
    any_lake.ingest(max_offsets_per_trigger=10)
    all_files = count_scanned_files(any_lake.bronze)
    assert all_files >= 6
    assert count_scanned_files(any_lake.bronze.where(F.col("_kafka_offset").between(20, 29))) == 1
    assert count_scanned_files(any_lake.bronze.where("event_id = 'event-5'")) < all_files


def test_the_log_gets_checkpoints(topic: Topic, any_lake: Lake):
    any_lake.ingest()
    for path in (any_lake.config.output_path, any_lake.config.dlq_path):
        set_properties(any_lake.spark, path, delta__checkpointInterval="10")
    topic.produce(make_events(120), partition=0)
    any_lake.ingest(max_offsets_per_trigger=10)
    log = Path(any_lake.config.output_path, "_delta_log")
    assert list(log.glob("*.checkpoint*.parquet"))
    assert any_lake.bronze.count() == 120


def test_each_commit_carries_the_query_s_id_and_batch(topic: Topic, any_lake: Lake):
    topic.produce(make_events(30) + [b"{"] + make_events(1), partition=0)
    any_lake.ingest(max_offsets_per_trigger=10)
    query_id = json.loads(Path(any_lake.config.checkpoint_path, "metadata").read_text())["id"]
    for path, ledger in ((any_lake.config.output_path, {topic.name}), (any_lake.config.dlq_path, set())):
        state = read_table_state(path, "path", any_lake.spark)
        assert state is not None
        assert (state.note.kind, state.note.query_id, state.note.batch_id) == ("ingest", query_id, 3)
        assert state.note.offsets == {0: [(30, 31)]}
        assert state.note.counts == {"total": 2, "valid": 1, "invalid": 1, "present": 0}
        assert set(state.note.ledger) == ledger


def test_a_file_that_the_driver_does_not_see_is_not_committed(lake: Lake):
    lake.ingest()
    log = TableLog(lake.config.output_path)
    missing = DataFile(
        "_event_date=2026-01-31/part-0.parquet", 100, 0, {"_event_date": None, "_event_hour": None}, "{}"
    )
    with pytest.raises(BronzeError, match="^an executor wrote .*nothing was committed"):
        log.commit([missing], new_note("ingest"))


def test_a_table_that_is_altered_while_it_is_written_to_ends_the_run(lake: Lake):
    lake.ingest()
    log = TableLog(lake.config.output_path)
    lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` SET TBLPROPERTIES ('bronze.note' = 'ours')")
    log.check_unchanged()
    lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` ADD CONSTRAINT c CHECK (_kafka_offset >= 0)")
    with pytest.raises(BronzeError, match="was altered, replaced or deleted .*checks the table again"):
        log.commit(None, new_note("ingest"))


def test_a_table_made_anew_while_it_is_written_to_ends_the_run(lake: Lake):
    lake.ingest()
    log = TableLog(lake.config.output_path)
    shutil.rmtree(lake.config.output_path)
    lake.spark.sql(create_table_statement(get_bronze_spec(), lake.config.output_path))
    with pytest.raises(BronzeError, match="was altered, replaced or deleted"):
        log.refresh()


def test_a_column_that_takes_no_null_is_left_to_delta_spark(lake: Lake):
    statement = create_table_statement(get_bronze_spec(), lake.config.output_path)
    lake.spark.sql(statement.replace("`tenant_id` string", "`tenant_id` string NOT NULL"))
    with pytest.raises(ConfigError, match="--writer direct cannot be used: .*NOT NULL column tenant_id"):
        lake.ingest(writer="direct")


def test_a_path_with_other_files_is_refused(lake: Lake):
    path = Path(lake.config.output_path)
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(NotADeltaTableError, match="--output-path: .*bronze holds files but is not a Delta table"):
        lake.ingest()
    assert [file.name for file in path.iterdir()] == ["notes.txt"]


def test_a_table_with_other_columns_is_refused_with_the_difference(lake: Lake):
    wrong = lake.spark.range(3).withColumn("event_id", F.lit(1))
    wrong.write.format("delta").save(lake.config.output_path)
    with pytest.raises(ConfigError, match="does not fit; give another path") as refused:
        lake.ingest()
    message = str(refused.value)
    assert "column id: not expected (bigint)" in message
    assert "column event_id: expected string, found int" in message
    assert "column request.path: missing (string)" in message
    assert "partitioning: expected _event_date, _event_hour, found none" in message
    assert not Path(lake.config.dlq_path).exists()
    assert not Path(lake.config.checkpoint_path).exists()


def test_a_table_of_a_recreated_topic_is_refused(topic: Topic, lake: Lake):
    lake.ingest()
    writer = DirectWriter(lake.config.output_path)
    writer.change_ledger(topic.name, lambda known: msgspec.structs.replace(known, topic_id="another"))
    with pytest.raises(ConfigError, match="was deleted and recreated since"):
        lake.ingest()


def test_a_table_that_is_there_already_is_given_the_topic_s_id(make_topic, topic: Topic, lake: Lake):
    lake.ingest()
    other = make_topic()
    other.produce(make_events(3))
    lake.ingest(kafka_topic=other.name, checkpoint_path=lake.config.checkpoint_path + "-other")
    state = read_table_state(lake.config.output_path, "output-path")
    assert state is not None
    assert {topic.name, other.name} == {name for name, known in state.note.ledger.items() if known.topic_id}


def test_a_check_constraint_is_left_to_delta_spark(topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture):
    lake.ingest()
    table = f"delta.`{lake.config.output_path}`"
    lake.spark.sql(f"ALTER TABLE {table} ADD CONSTRAINT offset_known CHECK (_kafka_offset >= 0)")
    topic.produce(make_events(4))
    assert lake.ingest().counts.valid == 4
    assert any(
        "Using the delta-spark writer" in m and "CHECK constraint offset_known" in m for m in bronze_log.messages
    )
    with pytest.raises(ConfigError, match="--writer direct cannot be used: .*CHECK constraint offset_known"):
        lake.ingest(writer="direct")


def test_a_table_with_deletion_vectors_is_appended_to_and_read_right(topic: Topic, any_lake: Lake):
    topic.produce(make_events(10), partition=0)
    any_lake.ingest()
    table = f"delta.`{any_lake.config.output_path}`"
    any_lake.spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    any_lake.spark.sql(f"DELETE FROM {table} WHERE event_id = 'event-4'").collect()
    topic.produce(make_events(5, first=10), partition=0)
    any_lake.ingest()
    assert any_lake.bronze.count() == 14


def test_properties_that_the_session_gives_new_tables_are_regarded(topic: Topic, lake: Lake):
    mapping = "spark.databricks.delta.properties.defaults.columnMapping.mode"
    lake.spark.conf.set(mapping, "name")
    try:
        topic.produce(make_events(10))
        lake.ingest()
    finally:
        lake.spark.conf.unset(mapping)
    assert lake.bronze.where("tenant_id is not null and _kafka_offset is not null").count() == 10


@with_both
def test_a_null_partition_is_readable_and_found(topic: Topic, any_lake: Lake):
    topic.produce([b"{", make_event()])
    any_lake.ingest(dlq_path="")
    assert any_lake.bronze.where("_event_date is null and _event_hour is null").count() == 1
    assert any_lake.bronze.where("_event_hour = 22").count() == 1
