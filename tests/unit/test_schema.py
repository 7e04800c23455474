"""The shape of the event and of the two tables, compared with tables written independently of the code."""

import pytest
from pyspark.sql import types as T

from bronze.delta.ddl import create_table_statement
from bronze.schema import TableSpec, get_bronze_spec, get_dlq_spec, get_event_schema

BRONZE_NAMES = [
    "event_id",
    "event_version",
    "event_timestamp",
    "tenant_id",
    "subscription",
    "identity",
    "request",
    "response",
    "client",
    "geo",
    "rate_limiting",
    "abuse_signals",
    "gateway",
    "billing",
    "_raw_value",
    "_is_valid",
    "_kafka_topic",
    "_kafka_partition",
    "_kafka_offset",
    "_kafka_timestamp",
    "_ingested_at",
    "_row_hash",
    "_event_date",
    "_event_hour",
]
BRONZE_TYPES = {
    **dict.fromkeys(["event_id", "event_version", "event_timestamp", "tenant_id", "_raw_value"], "string"),
    "_is_valid": "boolean",
    "_kafka_topic": "string",
    "_kafka_partition": "int",
    "_kafka_offset": "bigint",
    "_kafka_timestamp": "timestamp",
    "_ingested_at": "timestamp",
    "_row_hash": "bigint",
    "_event_date": "date",
    "_event_hour": "int",
}
DLQ_COLUMNS = [
    ("_raw_bytes", "binary"),
    ("_raw_value", "string"),
    ("_kafka_key", "binary"),
    ("_kafka_topic", "string"),
    ("_kafka_partition", "int"),
    ("_kafka_offset", "bigint"),
    ("_kafka_timestamp", "timestamp"),
    ("_ingested_at", "timestamp"),
    ("_error_type", "string"),
    ("_error_detail", "string"),
    ("_batch_id", "bigint"),
    ("_dlq_date", "date"),
]
EVENT_FIELDS = {
    "": [
        *["event_id", "event_version", "event_timestamp", "ingestion_timestamp", "processing_timestamp"],
        *["sequence_number bigint", "tenant_id"],
    ],
    "subscription": ["subscription_id", "plan_tier", "billing_cycle_id"],
    "identity": [
        *["api_key_id", "api_key_prefix", "user_id", "auth_method", "oauth_client_id"],
        "scopes array<string>",
    ],
    "request": [
        *["request_id", "trace_id", "span_id", "method", "path", "path_raw", "query_params_hash", "api_version"],
        *["endpoint_id", "received_at", "content_length bigint", "content_type"],
    ],
    "response": [
        *["status_code int", "status_category", "content_length bigint", "latency_ms double"],
        *["upstream_latency_ms double", "cache_status", "error_code", "error_message"],
    ],
    "client": [
        *["ip_address", "ip_address_hash", "ip_version", "user_agent"],
        *["user_agent_parsed map<string,string>", "sdk_name", "sdk_version"],
    ],
    "geo": [
        *["country_code", "country_name", "region", "city", "postal_code", "latitude double", "longitude double"],
        *["timezone", "asn int", "as_org", "is_datacenter boolean", "is_vpn boolean", "is_tor boolean"],
        "is_proxy boolean",
    ],
    "rate_limiting": [
        *["limit int", "remaining int", "reset_at", "window_size_seconds int", "was_rate_limited boolean"],
        *["rate_limit_policy", "quota_used_percent double"],
    ],
    "abuse_signals": [
        *["risk_score double", "risk_factors array<string>", "velocity_1min int", "velocity_5min int"],
        *["velocity_1hour int", "unique_ips_24h int", "unique_endpoints_1h int", "is_suspicious boolean"],
        *["action_taken", "fingerprint_hash"],
    ],
    "gateway": ["gateway_id", "gateway_region", "gateway_version", "upstream_service", "upstream_instance"],
    "billing": ["billable boolean", "billing_units double", "pricing_tier", "cost_estimate_usd double"],
    "metadata": ["source", "environment", "partition_key", "retention_days int"],
}
STRUCTS = [name for name in EVENT_FIELDS if name not in ("", "metadata")]
BOTH = pytest.mark.parametrize("spec", [get_bronze_spec(), get_dlq_spec()], ids=["bronze", "dlq"])


def describe(fields: T.StructType) -> list[tuple[str, str]]:
    return [(f.name, f.dataType.simpleString()) for f in fields]


def expect(names: list[str]) -> list[tuple[str, str]]:
    return [(name, kind or "string") for name, _, kind in (line.partition(" ") for line in names)]


def test_bronze_has_its_24_columns_in_order():
    assert get_bronze_spec().schema.names == BRONZE_NAMES
    assert len(BRONZE_NAMES) == 24


@pytest.mark.parametrize("name", BRONZE_NAMES)
def test_each_bronze_column_has_its_type(name: str):
    found = get_bronze_spec().schema[name].dataType
    if name in STRUCTS:
        assert describe(found) == expect(EVENT_FIELDS[name])
    else:
        assert found.simpleString() == BRONZE_TYPES[name]


def test_dlq_has_its_12_columns_in_order_with_their_types():
    assert describe(get_dlq_spec().schema) == DLQ_COLUMNS
    assert len(DLQ_COLUMNS) == 12


def test_tables_are_partitioned_by_event_hour_and_by_dlq_date():
    assert get_bronze_spec().partition_columns == ("_event_date", "_event_hour")
    assert get_dlq_spec().partition_columns == ("_dlq_date",)


def test_the_event_has_the_envelope_the_objects_the_attributes_and_the_metadata_in_order():
    envelope = [name for name, _ in expect(EVENT_FIELDS[""])]
    assert get_event_schema().names == [*envelope, *STRUCTS, "custom_attributes", "metadata"]
    assert get_event_schema()["custom_attributes"].dataType.simpleString() == "map<string,string>"


@pytest.mark.parametrize("owner", EVENT_FIELDS)
def test_each_object_of_the_event_has_its_fields(owner: str):
    schema = get_event_schema()
    found = describe(schema[owner].dataType if owner else schema)
    assert found[: len(EVENT_FIELDS[owner])] == expect(EVENT_FIELDS[owner])
    assert not owner or len(found) == len(EVENT_FIELDS[owner])


@BOTH
def test_every_column_may_be_null(spec: TableSpec):
    assert all(f.nullable for f in spec.schema)


@BOTH
def test_statistics_are_kept_of_positions_and_times_but_not_of_partition_columns(spec: TableSpec):
    listed = spec.properties["delta.dataSkippingStatsColumns"].split(",")
    assert {"_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_ingested_at"} <= set(listed)
    assert set(listed) <= set(spec.schema.names) - set(spec.partition_columns)


def test_bronze_keeps_statistics_of_the_ids_that_are_looked_up():
    assert {"event_id", "event_timestamp", "tenant_id"} <= set(get_bronze_spec().stats_columns)


@BOTH
def test_the_statement_creates_a_partitioned_delta_table_only_where_it_is_missing(spec: TableSpec):
    text = create_table_statement(spec, "/lake/table")
    assert text.startswith("CREATE TABLE IF NOT EXISTS delta.`/lake/table` (\n")
    assert "\nUSING DELTA\n" in text
    assert f"\nPARTITIONED BY ({', '.join(spec.partition_columns)})\nLOCATION '/lake/table'\n" in text


@BOTH
def test_the_statement_has_a_comment_for_every_column(spec: TableSpec):
    text = create_table_statement(spec, "/lake/table")
    for name, kind in describe(spec.schema):
        assert f"`{name}` {kind} COMMENT '" in text
    assert text.count(" COMMENT '") == len(spec.schema)
    assert "COMMENT ''" not in text


def test_the_statement_sets_the_table_properties_and_those_it_is_given():
    text = create_table_statement(get_dlq_spec(), "/lake/dlq", properties={"bronze.topicId.t": "abc"})
    assert "'delta.checkpointInterval' = '100'" in text
    assert "'bronze.topicId.t' = 'abc'" in text


def test_a_table_with_a_catalog_name_is_created_by_that_name():
    text = create_table_statement(get_bronze_spec(), "/lake/bronze", table="main.events.bronze")
    assert text.startswith("CREATE TABLE IF NOT EXISTS main.events.bronze (")
    assert "LOCATION '/lake/bronze'" in text
    assert "delta.`" not in text


@pytest.mark.parametrize(
    ("path", "identifier", "literal"),
    [
        ("/lake/o'neil", "delta.`/lake/o'neil`", r"'/lake/o\'neil'"),
        ("/lake/back`tick", "delta.`/lake/back``tick`", "'/lake/back`tick'"),
        ("/lake/back\\slash", "delta.`/lake/back\\slash`", r"'/lake/back\\slash'"),
    ],
)
def test_quotes_in_a_path_are_escaped(path: str, identifier: str, literal: str):
    text = create_table_statement(get_bronze_spec(), path)
    assert f"EXISTS {identifier} (" in text
    assert f"LOCATION {literal}\n" in text


def test_quotes_in_a_property_are_escaped():
    text = create_table_statement(get_bronze_spec(), "/lake/bronze", properties={"it's": "so'so"})
    assert r"'it\'s' = 'so\'so'" in text
