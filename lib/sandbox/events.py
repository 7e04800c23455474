"""Sample events of an API-usage topic. The same arguments give the same bytes; a known share is invalid."""

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from itertools import count as count_from
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from sandbox.invalid import corrupt
from sandbox.tables import ENDPOINTS, ERRORS, SUCCESS, Endpoint, Tier
from sandbox.tenants import Caller, Tenant, get_tenants

WINDOW = timedelta(hours=3)
MINUTE, HOUR = 60_000, 3_600_000  # milliseconds
# Delay of an event's arrival: cumulative share of the events, minimum, maximum (ms).
LATENESS = [
    (0.955, 20, 1_500),
    (0.985, 2 * MINUTE, HOUR),
    (0.997, HOUR, 8 * HOUR),
    (1.0, 24 * HOUR, 48 * HOUR),
]
BURST_SHARE = 0.0006  # share of calls that start a burst of 30 to 150 calls
ERROR_SHARE = 0.06
ERROR_WEIGHTS = list(accumulate(weight for _, _, weight in ERRORS.values()))
ENDPOINT_WEIGHTS = list(accumulate(endpoint.weight for endpoint in ENDPOINTS))

_encode = msgspec.json.Encoder().encode


class SampleRecord(NamedTuple):
    """A Kafka record to produce: ``timestamp`` in ms since 1970; ``error_type`` is None for a valid event."""

    key: bytes
    value: bytes | None
    timestamp: int
    error_type: str | None


class Call(NamedTuple):
    """One API call: ``pressure`` is the used share of the rate limit, 0 to 1; times are ms since 1970."""

    tenant: Tenant
    caller: Caller
    endpoint: Endpoint
    status: int
    pressure: float
    happened_at: int
    arrived_at: int


def generate_events(
    count: int,
    seed: int,
    start_time: datetime,
    invalid_ratio: float = 0.01,
    window: timedelta = WINDOW,
) -> Iterator[SampleRecord]:
    """Yield sample records in order of arrival, evenly over the window that begins at ``start_time``.

    A few per cent of the events arrive minutes to two days after they happened. A record's timestamp is the time of
    its arrival; event times are never later. Each tenant's sequence numbers start at ``seed + 1``: with the number of
    records in the topic as seed, a second run continues above the first.

    Args:
        count: Number of records, invalid ones included.
        seed: Seed of all random values; different seeds give different event ids.
        start_time: Arrival of the first record; needs a zone.
        invalid_ratio: Exactly ``round(count * invalid_ratio)`` records are invalid, evenly spread, with all error
            types in turn.
        window: Time from the first arrival to the last.
    """
    rng = random.Random(seed)
    start, length = int(start_time.timestamp() * 1000), window // timedelta(milliseconds=1)
    invalid, turns = round(count * invalid_ratio), count_from()
    sequences: defaultdict[str, Iterator[int]] = defaultdict(lambda: count_from(seed + 1))
    callers = _draw_callers(rng, f"{start_time:%Y-%m}")
    for position in range(count):
        call = _draw_call(rng, *next(callers), start + length * position // count)
        tenant_id = call.tenant.tenant_id
        event = _encode(_build_event(rng, call, next(sequences[tenant_id])))
        is_invalid = (position + 1) * invalid // count > position * invalid // count
        value, error_type = corrupt(event, next(turns)) if is_invalid else (event, None)
        yield SampleRecord(tenant_id.encode(), value, call.arrived_at, error_type)


def generate_booked(count: int, seed: int, clock: datetime) -> Iterator[SampleRecord]:
    """Yield booked events: their event time is a day ahead of the producer's clock, the most that the decoder accepts.

    The producer's clock is ahead. Until the ingestion's clock has reached that time, the events are too far in the
    future (``invalid_timestamp``); after that they are valid.

    Args:
        count: Number of records.
        seed: As in ``generate_events``.
        clock: Time on the producer's clock, with a zone.
    """
    for record in generate_events(count, seed, clock, invalid_ratio=0, window=timedelta(0)):
        event = msgspec.json.decode(record.value or b"")
        event["event_timestamp"] = _format_time(record.timestamp + 24 * HOUR)
        yield record._replace(value=_encode(event), error_type="invalid_timestamp")


def _draw_callers(rng: random.Random, billing_month: str) -> Iterator[tuple[Tenant, Caller, float]]:
    """Yield the next caller and the used share of its rate limit; some callers send bursts until they are refused."""
    tenants, weights = get_tenants(billing_month)
    while True:
        tenant = rng.choices(tenants, cum_weights=weights)[0]
        caller = tenant.callers[int(rng.random() * len(tenant.callers))]
        if rng.random() > BURST_SHARE:
            yield tenant, caller, 0.6 * rng.random()
        else:
            length = rng.randrange(30, 150)
            yield from ((tenant, caller, 0.4 + call / length) for call in range(length))


def _draw_call(rng: random.Random, tenant: Tenant, caller: Caller, pressure: float, arrived_at: int) -> Call:
    endpoint = rng.choices(ENDPOINTS, cum_weights=ENDPOINT_WEIGHTS)[0]
    status = SUCCESS[endpoint.method]
    if pressure >= 1:
        status = 429
    elif rng.random() < ERROR_SHARE:
        status = rng.choices(list(ERRORS), cum_weights=ERROR_WEIGHTS)[0]
    return Call(tenant, caller, endpoint, status, pressure, arrived_at - _draw_lateness(rng), arrived_at)


def _draw_lateness(rng: random.Random) -> int:
    drawn = rng.random()
    shortest, longest = next((low, high) for share, low, high in LATENESS if drawn < share)
    return shortest + int((longest - shortest) * rng.random())


def _build_event(rng: random.Random, call: Call, sequence_number: int) -> dict[str, Any]:
    tenant, caller = call.tenant, call.caller
    return {
        "event_id": str(UUID(int=rng.getrandbits(128), version=4)),
        "event_version": "1.2.0",
        "event_timestamp": _format_time(call.happened_at),
        "ingestion_timestamp": _format_time(call.arrived_at - 8),
        "processing_timestamp": _format_time(call.arrived_at - 2),
        "sequence_number": sequence_number,
        "tenant_id": tenant.tenant_id,
        "subscription": tenant.subscription,
        "identity": caller.identity,
        "request": _build_request(rng, call),
        "response": _build_response(rng, call),
        "client": caller.client,
        "geo": caller.geo,
        "rate_limiting": _build_rate_limiting(call),
        "abuse_signals": _build_abuse_signals(rng, call),
        "gateway": _build_gateway(call, instance=int(rng.random() * 8)),
        "billing": _build_billing(call.tenant.tier, call.endpoint, call.status),
        "custom_attributes": {"segment": tenant.tier.name, "cost_center": tenant.tenant_id[-4:]},
        "metadata": {
            "source": "api-gateway",
            "environment": "production",
            "partition_key": tenant.tenant_id,
            "retention_days": 90,
        },
    }


def _build_request(rng: random.Random, call: Call) -> dict[str, Any]:
    ids = f"{rng.getrandbits(384):096x}"
    endpoint = call.endpoint
    has_body = endpoint.method in ("POST", "PATCH")
    return {
        "request_id": f"req_{ids[:24]}",
        "trace_id": ids[24:56],
        "span_id": ids[56:72],
        "method": endpoint.method,
        "path": endpoint.path,
        "path_raw": endpoint.path.replace("{id}", ids[72:84]),
        "query_params_hash": ids[84:],
        "api_version": "2025-06-01",
        "endpoint_id": endpoint.endpoint_id,
        "received_at": _format_time(call.happened_at),
        "content_length": 120 + int(rng.random() * 2_400) if has_body else 0,
        "content_type": "application/json" if has_body else "text/plain",
    }


def _build_response(rng: random.Random, call: Call) -> dict[str, Any]:
    status, endpoint = call.status, call.endpoint
    code, message, _ = ERRORS.get(status, (None, None, 0))
    is_hit = status == 200 and rng.random() < 0.35
    # The cache and the rate limiter answer within a few milliseconds, without the upstream.
    upstream = 0.0 if is_hit or status == 429 else endpoint.latency_ms * (0.6 + 0.4 * rng.expovariate(1))
    return {
        "status_code": status,
        "status_category": f"{status // 100}xx",
        "content_length": 310 if code else int(endpoint.response_bytes * (0.5 + rng.random())),
        "latency_ms": round(upstream + 1 + 4 * rng.random(), 3),
        "upstream_latency_ms": round(upstream, 3),
        "cache_status": "HIT" if is_hit else "MISS" if endpoint.method == "GET" else "BYPASS",
        "error_code": code,
        "error_message": message,
    }


def _build_rate_limiting(call: Call) -> dict[str, Any]:
    limit = call.tenant.tier.limit_per_minute
    used = min(limit, int(limit * call.pressure))
    return {
        "limit": limit,
        "remaining": limit - used,
        "reset_at": _format_time(call.happened_at // MINUTE * MINUTE + MINUTE),
        "window_size_seconds": 60,
        "was_rate_limited": call.status == 429,
        "rate_limit_policy": f"{call.tenant.tier.name}-sliding",
        "quota_used_percent": round(100 * used / limit, 2),
    }


def _build_abuse_signals(rng: random.Random, call: Call) -> dict[str, Any]:
    geo, per_minute = call.caller.geo, int(call.tenant.tier.limit_per_minute * call.pressure)
    risk = min(1.0, call.caller.base_risk + 0.5 * max(0.0, call.pressure - 0.6) + 0.05 * rng.random())
    signs = {"high_velocity": call.pressure > 0.8, "tor_exit": geo["is_tor"], "vpn": geo["is_vpn"]}
    return {
        "risk_score": round(risk, 4),
        "risk_factors": [sign for sign, is_set in signs.items() if is_set],
        "velocity_1min": per_minute,
        "velocity_5min": per_minute * 4,
        "velocity_1hour": per_minute * 31,
        "unique_ips_24h": 1 + int(rng.random() * 12),
        "unique_endpoints_1h": 1 + int(rng.random() * len(ENDPOINTS)),
        "is_suspicious": risk > 0.4,
        "action_taken": "throttle" if call.status == 429 else "flag" if risk > 0.4 else "allow",
        "fingerprint_hash": call.caller.client["ip_address_hash"],
    }


def _build_gateway(call: Call, instance: int) -> dict[str, str]:
    region, service = call.caller.gateway_region, call.endpoint.service
    return {
        "gateway_id": f"gw-{instance % 3}",
        "gateway_region": region,
        "gateway_version": "2.31.4",
        "upstream_service": f"{service}-service",
        "upstream_instance": f"{service}-{instance}",
    }


def _build_billing(tier: Tier, endpoint: Endpoint, status: int) -> dict[str, Any]:
    """Callers pay for successful calls only, and not on the free plan."""
    units = endpoint.billing_units if status < 400 else 0.0
    return {
        "billable": units > 0 and tier.unit_price_usd > 0,
        "billing_units": units,
        "pricing_tier": f"{tier.name}-2025",
        "cost_estimate_usd": round(units * tier.unit_price_usd, 6),
    }


def _format_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")[:23] + "Z"
