"""The sample events: deterministic, complete, and invalid exactly where they are marked as invalid."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bronze.decode import Event, Invalid, decode
from bronze.schema import ERROR_TYPES
from sandbox.events import WINDOW, SampleRecord, generate_booked, generate_events
from sandbox.invalid import FLAVOURS

START = datetime(2025, 6, 1, 9, 30, tzinfo=UTC)
ENVELOPE = (
    "event_id event_version event_timestamp ingestion_timestamp processing_timestamp sequence_number"
    " tenant_id custom_attributes"
)
STRUCTS = {
    "subscription": "subscription_id plan_tier billing_cycle_id",
    "identity": "api_key_id api_key_prefix user_id auth_method oauth_client_id scopes",
    "request": "request_id trace_id span_id method path path_raw query_params_hash api_version endpoint_id"
    " received_at content_length content_type",
    "response": "status_code status_category content_length latency_ms upstream_latency_ms cache_status"
    " error_code error_message",
    "client": "ip_address ip_address_hash ip_version user_agent user_agent_parsed sdk_name sdk_version",
    "geo": "country_code country_name region city postal_code latitude longitude timezone asn as_org"
    " is_datacenter is_vpn is_tor is_proxy",
    "rate_limiting": "limit remaining reset_at window_size_seconds was_rate_limited rate_limit_policy"
    " quota_used_percent",
    "abuse_signals": "risk_score risk_factors velocity_1min velocity_5min velocity_1hour unique_ips_24h"
    " unique_endpoints_1h is_suspicious action_taken fingerprint_hash",
    "gateway": "gateway_id gateway_region gateway_version upstream_service upstream_instance",
    "billing": "billable billing_units pricing_tier cost_estimate_usd",
    "metadata": "source environment partition_key retention_days",
}
FIELDS = set(ENVELOPE.split()) | {f"{s}.{field}" for s, fields in STRUCTS.items() for field in fields.split()}
ONLY_SOMETIMES = {"identity.oauth_client_id", "response.error_code", "response.error_message"}


@pytest.fixture(scope="module")
def records() -> list[SampleRecord]:
    return list(generate_events(8_000, seed=7, start_time=START, invalid_ratio=0.1))


@pytest.fixture(scope="module")
def events(records: list[SampleRecord]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(record.value or b"") for record in records if record.error_type is None]


def flatten(event: dict[str, Any]) -> dict[str, Any]:
    structs = {f"{s}.{field}": value for s in STRUCTS for field, value in event[s].items()}
    return structs | {name: value for name, value in event.items() if name not in STRUCTS}


def parse_milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_same_arguments_give_the_same_bytes(records: list[SampleRecord]) -> None:
    assert list(generate_events(8_000, seed=7, start_time=START, invalid_ratio=0.1)) == records


def test_another_seed_gives_other_event_ids_of_the_same_tenants(events: list[dict[str, Any]]) -> None:
    others = [msgspec.json.decode(r.value or b"") for r in generate_events(8_000, 8, START, invalid_ratio=0)]
    assert not {e["event_id"] for e in events} & {e["event_id"] for e in others}
    assert {e["tenant_id"] for e in events} == {e["tenant_id"] for e in others}


def test_a_run_seeded_with_the_records_so_far_continues_the_sequence_numbers() -> None:
    first, second = ([msgspec.json.decode(r.value or b"") for r in generate_events(99, s, START, 0)] for s in (0, 99))
    assert max(e["sequence_number"] for e in first) < min(e["sequence_number"] for e in second)


@pytest.mark.parametrize(("count", "ratio"), [(1_000, 0.01), (999, 0.5), (10, 0.04), (50, 1.0), (50, 0.0), (0, 0.5)])
def test_exactly_the_asked_share_is_invalid(count: int, ratio: float) -> None:
    records = list(generate_events(count, 1, START, ratio))
    assert len(records) == count
    assert sum(record.error_type is not None for record in records) == round(count * ratio)


def test_every_error_type_occurs_equally_often(records: list[SampleRecord]) -> None:
    assert Counter(r.error_type for r in records if r.error_type) == dict.fromkeys(ERROR_TYPES, 100)


def test_every_flavour_of_every_error_type_occurs(records: list[SampleRecord]) -> None:
    longest = max(len(flavours) for flavours in FLAVOURS.values())
    assert longest * len(FLAVOURS) <= sum(r.error_type is not None for r in records)


def test_invalid_records_are_spread_over_the_stream(records: list[SampleRecord]) -> None:
    for tenth in range(0, 8_000, 800):
        assert sum(r.error_type is not None for r in records[tenth : tenth + 800]) == 80


def test_only_a_tombstone_has_no_value_and_only_an_empty_one_no_bytes(records: list[SampleRecord]) -> None:
    assert {r.error_type for r in records if r.value is None} == {"tombstone"}
    assert {r.error_type for r in records if r.value == b""} == {"empty"}


def test_records_are_as_valid_as_they_say(records: list[SampleRecord]) -> None:
    for record in records:
        arrived_at = record.timestamp * 1000
        outcome = decode(record.value, kafka_timestamp=arrived_at, ingested_at=arrived_at)
        assert getattr(outcome, "error_type", None) == record.error_type


def test_an_event_has_every_field_of_the_schema_and_no_other(events: list[dict[str, Any]]) -> None:
    for event in events:
        assert set(flatten(event)) == FIELDS


def test_fields_are_filled_wherever_they_apply(events: list[dict[str, Any]]) -> None:
    filled = Counter(name for event in events for name, value in flatten(event).items() if value not in (None, ""))
    sometimes = {name for name in FIELDS if filled[name] < len(events)}
    assert sometimes == ONLY_SOMETIMES
    assert all(filled[name] > 0 for name in ONLY_SOMETIMES)


def test_an_event_is_about_as_long_as_in_production(records: list[SampleRecord]) -> None:
    sizes = [len(record.value or b"") for record in records if record.error_type is None]
    assert min(sizes) > 2_000
    assert max(sizes) < 2_800


def test_records_are_keyed_by_tenant(records: list[SampleRecord]) -> None:
    for record in records:
        if record.error_type is None:
            assert msgspec.json.decode(record.value or b"")["tenant_id"].encode() == record.key


def test_a_few_tenants_make_most_of_the_calls(records: list[SampleRecord]) -> None:
    calls = [number for _, number in Counter(record.key for record in records).most_common()]
    assert len(calls) == 40
    assert sum(calls[:8]) > sum(calls) / 2


def test_no_event_happens_after_its_record_arrived(records: list[SampleRecord]) -> None:
    for record in records:
        if record.error_type is None:
            assert parse_milliseconds(msgspec.json.decode(record.value or b"")["event_timestamp"]) < record.timestamp


def test_arrivals_go_up_through_the_window(records: list[SampleRecord]) -> None:
    arrivals = [record.timestamp for record in records]
    start = int(START.timestamp() * 1000)
    assert arrivals == sorted(arrivals)
    assert start == arrivals[0] < arrivals[-1] < start + WINDOW / timedelta(milliseconds=1)


def test_some_events_are_minutes_and_a_few_are_days_late(events: list[dict[str, Any]]) -> None:
    lateness = [parse_milliseconds(e["ingestion_timestamp"]) - parse_milliseconds(e["event_timestamp"]) for e in events]
    assert 0.02 < sum(late > 60_000 for late in lateness) / len(events) < 0.08
    assert 0 < sum(late > 86_000_000 for late in lateness) / len(events) < 0.01


def test_sequence_numbers_go_up_per_tenant() -> None:
    last: dict[str, int] = {}
    for record in generate_events(500, 0, START, invalid_ratio=0):
        event = msgspec.json.decode(record.value or b"")
        assert event["sequence_number"] == last.get(event["tenant_id"], 0) + 1
        last[event["tenant_id"]] = event["sequence_number"]


def test_a_call_over_the_limit_is_refused_and_not_billed(events: list[dict[str, Any]]) -> None:
    refused = [event for event in events if event["response"]["status_code"] == 429]
    assert refused
    for event in refused:
        assert event["rate_limiting"]["remaining"] == 0
        assert event["rate_limiting"]["was_rate_limited"]
        assert not event["billing"]["billable"]


def test_errors_carry_a_code_and_successes_none(events: list[dict[str, Any]]) -> None:
    for event in events:
        response = event["response"]
        assert (response["error_code"] is not None) == (response["status_code"] >= 400)


def test_booked_usage_is_invalid_until_the_clock_of_its_producer_is_reached() -> None:
    """From then on it is valid if its Kafka timestamp is used, so a replay takes it."""
    records = list(generate_booked(20, seed=7, clock=START))
    clock = round(START.timestamp() * 1_000_000)
    assert len({record.value for record in records}) == 20
    for record in records:
        assert (record.timestamp * 1_000, record.error_type) == (clock, "invalid_timestamp")
        outcomes = [decode(record.value, clock, clock + later) for later in (-1_000, 0, 90_000_000)]
        assert [type(outcome) for outcome in outcomes] == [Invalid, Event, Event]
        assert outcomes[0][0] == "invalid_timestamp"


def test_booked_usage_continues_the_sequence_numbers() -> None:
    numbers = [msgspec.json.decode(r.value or b"")["sequence_number"] for r in generate_booked(20, 300, START)]
    assert min(numbers) == 301
