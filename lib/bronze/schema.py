"""The schemas of the JSON event, the bronze table and the DLQ table.

All other types derive from them: the decoder's, the Arrow and Parquet types, the DDL and the check of an existing
table.
"""

from dataclasses import dataclass
from functools import cache

from pyspark.sql import types as T

_STRINGS = T.ArrayType(T.StringType())
_STRING_MAP = T.MapType(T.StringType(), T.StringType())
_JSON_TYPES: dict[str, T.DataType] = {
    "string": T.StringType(),
    "int": T.IntegerType(),
    "long": T.LongType(),
    "double": T.DoubleType(),
    "boolean": T.BooleanType(),
    "array<string>": _STRINGS,
    "map<string,string>": _STRING_MAP,
}

# One line per object of the event; a name without a type is a string.
_EVENT_OBJECTS = {
    "subscription": "subscription_id plan_tier billing_cycle_id",
    "identity": "api_key_id api_key_prefix user_id auth_method oauth_client_id scopes:array<string>",
    "request": "request_id trace_id span_id method path path_raw query_params_hash api_version endpoint_id"
    " received_at content_length:long content_type",
    "response": "status_code:int status_category content_length:long latency_ms:double"
    " upstream_latency_ms:double cache_status error_code error_message",
    "client": "ip_address ip_address_hash ip_version user_agent user_agent_parsed:map<string,string>"
    " sdk_name sdk_version",
    "geo": "country_code country_name region city postal_code latitude:double longitude:double timezone"
    " asn:int as_org is_datacenter:boolean is_vpn:boolean is_tor:boolean is_proxy:boolean",
    "rate_limiting": "limit:int remaining:int reset_at window_size_seconds:int was_rate_limited:boolean"
    " rate_limit_policy quota_used_percent:double",
    "abuse_signals": "risk_score:double risk_factors:array<string> velocity_1min:int velocity_5min:int"
    " velocity_1hour:int unique_ips_24h:int unique_endpoints_1h:int is_suspicious:boolean"
    " action_taken fingerprint_hash",
    "gateway": "gateway_id gateway_region gateway_version upstream_service upstream_instance",
    "billing": "billable:boolean billing_units:double pricing_tier cost_estimate_usd:double",
}
_ENVELOPE = (
    "event_id event_version event_timestamp ingestion_timestamp processing_timestamp sequence_number:long tenant_id"
)
_METADATA = "source environment partition_key retention_days:int"

_COMMENTS = {
    "event_id": "Identifier the producer gave the event",
    "event_version": "Version of the event's layout",
    "event_timestamp": "Time of the API call as the producer sent it (RFC 3339)",
    "tenant_id": "Tenant that made the call; also the Kafka key",
    "subscription": "Plan and billing cycle of the tenant",
    "identity": "API key, user and scopes of the caller",
    "request": "The API request",
    "response": "The API response, latencies in milliseconds",
    "client": "Address, user agent and SDK of the client",
    "geo": "Location of the client's address",
    "rate_limiting": "Rate limit that applied and what remained of it",
    "abuse_signals": "Risk score and velocities",
    "gateway": "Gateway and upstream that served the call",
    "billing": "Units to bill and their price",
    "_raw_value": "The Kafka value as text; bytes that are not UTF-8 are backslash-escaped",
    "_raw_bytes": "The exact Kafka value",
    "_kafka_key": "The exact Kafka key",
    "_is_valid": "False only for invalid records kept here because no DLQ is configured",
    "_kafka_topic": "Kafka topic of the record",
    "_kafka_partition": "Kafka partition of the record",
    "_kafka_offset": "Kafka offset of the record",
    "_kafka_timestamp": "Kafka timestamp of the record",
    "_ingested_at": "Start of the batch that wrote the row (UTC, milliseconds)",
    "_row_hash": "xxhash64 of the Kafka value",
    "_event_date": "UTC date of event_timestamp",
    "_event_hour": "UTC hour of event_timestamp",
    "_error_type": "Why the record is invalid, one of a closed set",
    "_error_detail": "The field, the expected value and the actual value",
    "_batch_id": "Batch of the streaming query that wrote the row",
    "_dlq_date": "UTC date of _ingested_at",
}


def _parse_fields(line: str) -> list[T.StructField]:
    pairs = [field.partition(":") for field in line.split()]
    return [T.StructField(name, _JSON_TYPES[kind or "string"]) for name, _, kind in pairs]


def get_event_schema() -> T.StructType:
    """Return the event as producers send it, with JSON names and types; every field may be absent or null."""
    objects = [T.StructField(name, T.StructType(_parse_fields(line))) for name, line in _EVENT_OBJECTS.items()]
    metadata = T.StructField("metadata", T.StructType(_parse_fields(_METADATA)))
    attributes = T.StructField("custom_attributes", _STRING_MAP)
    return T.StructType([*_parse_fields(_ENVELOPE), *objects, attributes, metadata])


def get_bronze_schema() -> T.StructType:
    """Return the bronze table's columns: 14 parsed ones, the raw value, and the record's origin."""
    event = get_event_schema()
    names = ["event_id", "event_version", "event_timestamp", "tenant_id", *_EVENT_OBJECTS]
    lineage = [
        ("_raw_value", T.StringType()),
        ("_is_valid", T.BooleanType()),
        ("_kafka_topic", T.StringType()),
        ("_kafka_partition", T.IntegerType()),
        ("_kafka_offset", T.LongType()),
        ("_kafka_timestamp", T.TimestampType()),
        ("_ingested_at", T.TimestampType()),
        ("_row_hash", T.LongType()),
        ("_event_date", T.DateType()),
        ("_event_hour", T.IntegerType()),
    ]
    return _with_comments([*((name, event[name].dataType) for name in names), *lineage])


def get_dlq_schema() -> T.StructType:
    """Return the DLQ table's columns: the exact record, its origin, and why it is not in bronze."""
    return _with_comments(
        [
            ("_raw_bytes", T.BinaryType()),
            ("_raw_value", T.StringType()),
            ("_kafka_key", T.BinaryType()),
            ("_kafka_topic", T.StringType()),
            ("_kafka_partition", T.IntegerType()),
            ("_kafka_offset", T.LongType()),
            ("_kafka_timestamp", T.TimestampType()),
            ("_ingested_at", T.TimestampType()),
            ("_error_type", T.StringType()),
            ("_error_detail", T.StringType()),
            ("_batch_id", T.LongType()),
            ("_dlq_date", T.DateType()),
        ]
    )


def _with_comments(columns: list[tuple[str, T.DataType]]) -> T.StructType:
    return T.StructType([T.StructField(n, t, metadata={"comment": _COMMENTS[n]}) for n, t in columns])


# This table property says that ``bronze maintain`` cleans the log. Without it, Delta's own property decides.
CLEANED_BY = "bronze.logCleanedBy"


@dataclass(frozen=True)
class TableSpec:
    """The specification of one of the two tables."""

    name: str
    schema: T.StructType
    partition_columns: tuple[str, ...]
    stats_columns: tuple[str, ...]
    distinct_columns: frozenset[str]  # most rows have different values, so a dictionary would only cost time

    @property
    def properties(self) -> dict[str, str]:
        """Delta table properties set at creation.

        Statistics cover the columns of look-ups (Delta's default, the first 32 leaf columns, ends within ``request``).
        The log gets a checkpoint every 100 commits, because each checkpoint takes a second. The audit reads the log, so
        only ``bronze maintain`` cleans it, and not a commit of Spark that writes a checkpoint.
        """
        return {
            "delta.dataSkippingStatsColumns": ",".join(self.stats_columns),
            "delta.checkpointInterval": "100",
            "delta.enableExpiredLogCleanup": "false",
            CLEANED_BY: "maintain",
        }


@cache
def get_bronze_spec() -> TableSpec:
    """Return the bronze table's specification."""
    ids = ("event_id", "event_timestamp", "tenant_id")
    stats, hours = (*_POSITION, *ids), ("_event_date", "_event_hour")
    return TableSpec("bronze", get_bronze_schema(), hours, stats, frozenset(_DISTINCT.split()))


@cache
def get_dlq_spec() -> TableSpec:
    """Return the DLQ table's specification."""
    stats = (*_POSITION, "_error_type", "_batch_id")
    return TableSpec("DLQ", get_dlq_schema(), ("_dlq_date",), stats, frozenset(_DISTINCT.split()))


_POSITION = ("_kafka_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_ingested_at")
_DISTINCT = (
    "event_id event_timestamp request.request_id request.trace_id request.span_id request.path_raw"
    " request.query_params_hash request.received_at response.content_length response.latency_ms"
    " response.upstream_latency_ms rate_limiting.remaining _raw_value _raw_bytes _kafka_key _kafka_offset"
    " _kafka_timestamp _row_hash"
)

ERROR_TYPES = (
    "tombstone",
    "empty",
    "invalid_utf8",
    "malformed_json",
    "not_an_object",
    "schema_mismatch",
    "missing_required",
    "invalid_timestamp",
)
