"""Every table property and feature that Delta knows: which writer is chosen, and what readers see afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, Schema
from pyspark.sql import SparkSession

from bronze.delta.ddl import create_table_statement
from bronze.delta.features import FEATURES, PROPERTIES, find_feature, find_property
from bronze.delta.tables import TableState, check_table, find_obstacle, read_table_state
from bronze.errors import ConfigError
from bronze.schema import get_bronze_spec
from tests.support.delta_log import set_properties
from tests.support.events import BAD, make_event, make_events
from tests.support.lake import Lake
from tests.support.topic import Topic

DIRECT = {name for name, row in PROPERTIES.items() if row.writer == "direct"}
# Properties that cannot be set alone: details of features that the direct writer leaves to delta-spark.
NOT_SET = {
    "delta.columnMapping.maxColumnId",
    "delta.coordinatedCommits.commitCoordinatorConf-preview",
    "delta.coordinatedCommits.tableConf-preview",
    "delta.rowTracking.materializedRowCommitVersionColumnName",
    "delta.rowTracking.materializedRowIdColumnName",
}
OTHER_VALUES = {
    "delta.checkpoint.writeStatsAsJson": "false",
    "delta.checkpoint.writeStatsAsStruct": "false",
    "delta.checkpointInterval": "7",
    "delta.dataSkippingNumIndexedCols": "3",
    "delta.dataSkippingStatsColumns": "_kafka_offset",
    "delta.dataSkippingStringPrefixLength": "8",
    "delta.enableExpiredLogCleanup": "false",
    "delta.enableFullRetentionRollback": "false",
    "delta.inCommitTimestampEnablementTimestamp": "1",
    "delta.inCommitTimestampEnablementVersion": "1",
    "delta.isolationLevel": "Serializable",
    "delta.minReaderVersion": "3",
    "delta.minWriterVersion": "7",
    "delta.parquet.format.version": "2.12.0",
    "delta.randomPrefixLength": "3",
    "delta.requireCheckpointProtectionBeforeVersion": "1",
}
# Properties that Delta accepts only together with others, or only with values other than true.
ICEBERG = {"delta.columnMapping.mode": "name", "delta.enableIcebergCompatV2": "true"}
TOGETHER = {
    "delta.checkpointPolicy": {"delta.checkpointPolicy": "v2"},
    "delta.columnMapping.mode": {"delta.columnMapping.mode": "name"},
    "delta.enableIcebergCompatV2": ICEBERG,
    "delta.enableIcebergCompatV3": {
        "delta.columnMapping.mode": "name",
        "delta.enableIcebergCompatV3": "true",
        "delta.enableRowTracking": "true",
    },
    "delta.universalFormat.enabledFormats": ICEBERG | {"delta.universalFormat.enabledFormats": "iceberg"},
    "delta.setTransactionRetentionDuration": {"delta.setTransactionRetentionDuration": "interval 30 days"},
}
# Delta cannot turn our tables into such tables, or needs classes or a catalog that the tests do not have.
NOT_CREATED = {
    "delta.enableIcebergCompatV1",
    "delta.coordinatedCommits.commitCoordinator-preview",
    "delta.redirectReaderWriter-preview",
    "delta.redirectWriterOnly-preview",
    "catalogManaged",
    "clustering",
}


def get_direct_settings() -> dict[str, str]:
    """The properties that the direct writer supports, as an owner may set them."""
    return {name: OTHER_VALUES.get(name) or guess_value(name) for name in sorted(DIRECT - NOT_SET)}


def guess_value(name: str) -> str:
    return "interval 30 days" if name.endswith("Duration") else "true"


@contextmanager
def session_defaults(spark: SparkSession, properties: Mapping[str, str]) -> Iterator[None]:
    """The properties that a session gives each new table."""
    keys = {f"spark.databricks.delta.properties.defaults.{k.removeprefix('delta.')}": v for k, v in properties.items()}
    for key, value in keys.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key in keys:
            spark.conf.unset(key)


def create(spark: SparkSession, path: Path, properties: dict[str, str] | None = None) -> TableState:
    spark.sql(create_table_statement(get_bronze_spec(), str(path), properties=properties))
    state = read_table_state(str(path), "output-path", spark)
    assert state is not None
    return state


def alter(lake: Lake, properties: dict[str, str]) -> None:
    for path in (lake.config.output_path, lake.config.dlq_path):
        set_properties(lake.spark, path, **properties)


def read_rows(lake: Lake, path: str, with_deltalake: bool) -> list[tuple[Any, ...]]:
    """Some columns of each row, as delta-spark reads them; deltalake must read the same."""
    columns = ["_kafka_partition", "_kafka_offset", "_raw_value", "_ingested_at"]
    columns += ["_dlq_date"] if path == lake.config.dlq_path else ["_event_date", "_event_hour"]
    found = to_tuples(lake.read(path).select(columns).toPandas())
    if with_deltalake:
        query = QueryBuilder().register("t", DeltaTable(path)).execute(f"SELECT {', '.join(columns)} FROM t")
        assert to_tuples(pa.table(query.read_all()).to_pandas()) == found
    return found


def to_tuples(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    rows["_ingested_at"] = pd.to_datetime(rows["_ingested_at"], utc=True).astype("datetime64[us, UTC]")
    return sorted(map(tuple, rows.values))


def assert_once(lake: Lake, valid: int, invalid: int, with_deltalake: bool = True) -> None:
    """Each reader finds each record once, in one of the tables."""
    paths = (lake.config.output_path, lake.config.dlq_path)
    bronze, dlq = (read_rows(lake, path, with_deltalake) for path in paths)
    assert (len(bronze), len(dlq)) == (valid, invalid)
    assert len({row[:2] for row in (*bronze, *dlq)}) == valid + invalid


def list_registered_properties(spark: SparkSession) -> list[str]:
    """The table properties that Delta accepts, and their alternative names."""
    jvm: Any = spark._jvm
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    configs = jvm.java.lang.Class.forName("org.apache.spark.sql.delta.DeltaConfigs$", True, loader)
    entries = next(field for field in configs.getDeclaredFields() if field.getName() == "entries")
    entries.setAccessible(True)
    names = []
    for entry in entries.get(configs.getField("MODULE$").get(None)).values():
        names += [entry.key(), *filter(None, entry.alternateKeys().mkString(",").split(","))]
    return names


def list_supported_features(spark: SparkSession) -> list[str]:
    jvm: Any = spark._jvm
    features = jvm.org.apache.spark.sql.delta.TableFeature.allSupportedFeaturesMap().values().iterator()
    names = []
    while features.hasNext():
        names.append(features.next().name())
    return names


def test_every_property_that_delta_registers_has_a_row(spark: SparkSession):
    registered = list_registered_properties(spark)
    assert len(registered) > 50
    assert set(registered) <= set(PROPERTIES)


def test_every_feature_that_delta_supports_has_a_row(spark: SparkSession):
    supported = list_supported_features(spark)
    assert len(supported) > 30
    assert set(supported) == set(FEATURES)


def test_appends_of_the_direct_writer_are_right_with_all_properties_that_allow_it(
    topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    lake.ingest()
    alter(lake, get_direct_settings())
    alter(lake, {f"delta.feature.{name}": "supported" for name, row in FEATURES.items() if row.writer == "direct"})
    topic.produce(make_events(20) + BAD)
    before = DeltaTable(lake.config.output_path).version()
    assert lake.ingest().counts.valid == 20
    assert bronze_log.messages.count("Using the direct writer (no restrictions found)") == 2
    assert_once(lake, 20, len(BAD))
    feed = lake.spark.read.option("readChangeFeed", "true").option("startingVersion", before + 1)
    changes = feed.format("delta").load(lake.config.output_path)
    assert {row["_change_type"] for row in changes.select("_change_type").collect()} == {"insert"}
    assert changes.count() == 20


def test_tables_made_with_all_properties_that_allow_it_get_the_direct_writer_and_lose_nothing(
    topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    """Then write a checkpoint of the log without statistics, and look up all records without them."""
    topic.produce(make_events(20) + BAD)
    with session_defaults(lake.spark, get_direct_settings()):
        lake.ingest()
    assert "Using the direct writer (no restrictions found)" in bronze_log.messages
    jvm: Any = lake.spark._jvm
    for path in (lake.config.output_path, lake.config.dlq_path):
        jvm.org.apache.spark.sql.delta.DeltaLog.forTable(lake.spark._jsparkSession, path).checkpoint()
    topic.produce(make_events(5, first=20))
    lake.ingest(checkpoint_path=f"{lake.config.checkpoint_path}-new")
    assert_once(lake, 25, len(BAD))


def test_manifests_and_files_are_what_a_table_asks_for_after_a_batch(topic: Topic, lake: Lake):
    topic.produce(make_events(5))
    lake.ingest()
    table = DeltaTable(lake.config.output_path)
    before = set(table.file_uris())
    alter(lake, {"delta.compatibility.symlinkFormatManifest.enabled": "true"})
    alter(lake, {"delta.writePartitionColumnsToParquet": "true"})
    topic.produce(make_events(5, first=5) + [make_event(10, event_timestamp="2026-02-01T05:00:00Z")])
    lake.ingest()
    table.update_incremental()
    manifests = Path(lake.config.output_path, "_symlink_format_manifest").rglob("manifest")
    listed = [line for manifest in manifests for line in manifest.read_text().splitlines()]
    assert sorted(Path(unquote(line)).name for line in listed) == sorted(Path(uri).name for uri in table.file_uris())
    for file in set(table.file_uris()) - before:
        assert {"_event_date", "_event_hour"} <= set(pq.read_schema(file).names)


@pytest.mark.soak
def test_tables_with_what_delta_spark_alone_serves_are_ingested_into(topic: Topic, lake: Lake):
    """All properties that a session can give a new table together; then look up all records without a checkpoint."""
    served = {name for name, row in PROPERTIES.items() if row.writer == "delta-spark"}
    asked = dict.fromkeys(served - set(TOGETHER) - NOT_CREATED, "true") | TOGETHER["delta.checkpointPolicy"]
    topic.produce(make_events(20) + BAD)
    with session_defaults(lake.spark, asked):
        lake.ingest()
    topic.produce(make_events(5, first=20))
    lake.ingest(checkpoint_path=f"{lake.config.checkpoint_path}-new")
    assert asked.items() <= DeltaTable(lake.config.output_path).metadata().configuration.items()
    assert_once(lake, 25, len(BAD), with_deltalake=False)  # deltalake cannot read all of them


def test_a_table_that_deltalake_cannot_open_is_ingested_into(topic: Topic, lake: Lake):
    topic.produce(make_events(5) + BAD)
    create(lake.spark, Path(lake.config.output_path), {"delta.feature.geospatial": "supported"})
    lake.ingest()
    topic.produce(make_events(5, first=5))
    lake.ingest(checkpoint_path=f"{lake.config.checkpoint_path}-new")
    assert_once(lake, 10, len(BAD), with_deltalake=False)


def test_arrays_that_may_hold_no_null_are_written_by_the_direct_writer(
    topic: Topic, lake: Lake, bronze_log: pytest.LogCaptureFixture
):
    spec = get_bronze_spec()
    schema = Schema.from_json(spec.schema.json().replace('"containsNull":true', '"containsNull":false'))
    DeltaTable.create(lake.config.output_path, schema, partition_by=list(spec.partition_columns))
    topic.produce([make_event(0, identity={"scopes": ["a", "b"]}), make_event(1, identity={"scopes": []})], 0)
    lake.ingest()
    assert "Using the direct writer (no restrictions found)" in bronze_log.messages
    scopes = lake.bronze.orderBy("_kafka_offset").select("identity.scopes")
    assert scopes.schema["scopes"].dataType.containsNull is False
    assert [row["scopes"] for row in scopes.collect()] == [["a", "b"], []]
    assert_once(lake, 2, 0)


def test_rows_that_break_a_rule_of_the_table_end_the_run_by_that_rule(topic: Topic, lake: Lake):
    statement = create_table_statement(get_bronze_spec(), lake.config.output_path)
    lake.spark.sql(statement.replace("`event_version` string", "`event_version` VARCHAR(3)"))
    topic.produce([make_event(event_version="1.0.0")])
    with pytest.raises(ConfigError, match=r"does not accept rows of this batch: .*length\(event_version\) <= 3"):
        lake.ingest()
    assert lake.bronze.count() == 0


@pytest.mark.parametrize("name", sorted(set(PROPERTIES) - DIRECT - NOT_CREATED))
def test_a_property_that_a_session_gives_a_new_table_is_seen(name: str, spark: SparkSession, tmp_path: Path):
    with session_defaults(spark, TOGETHER.get(name, {name: "true"})):
        state = create(spark, tmp_path / "bronze")
    if PROPERTIES[name].writer == "none":
        with pytest.raises(ConfigError, match=f"(?s)does not fit; give another path.*{name}"):
            check_table(state, get_bronze_spec(), "path", "output-path")
    assert find_property(name, state.properties[name]) == PROPERTIES[name]
    assert find_obstacle(str(tmp_path / "bronze"), state)


@pytest.mark.parametrize("name", sorted(set(FEATURES) - NOT_CREATED))
def test_a_feature_of_a_new_table_is_seen(name: str, spark: SparkSession, tmp_path: Path):
    state = create(spark, tmp_path / "bronze", {f"delta.feature.{name}": "supported"})
    assert {key for key in state.properties if key.startswith("delta.")} <= set(PROPERTIES)
    assert find_feature(name) == FEATURES[name]
    if FEATURES[name].writer == "none":
        with pytest.raises(ConfigError, match=f"(?s)does not fit; give another path.*{name}"):
            check_table(state, get_bronze_spec(), "path", "output-path")
    assert bool(find_obstacle(str(tmp_path / "bronze"), state)) == (FEATURES[name].writer != "direct")
