"""The tenants of the sample events, which are always the same, and the callers that use their API keys."""

import hashlib
import random
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from sandbox.tables import GEO_FIELDS, PLACES, SDKS, TIERS, Tier

TENANTS = 40
CALLERS_PER_TENANT = 6
SCOPES = ["orders:read", "orders:write", "customers:read", "reports:read"]


class Caller(NamedTuple):
    """A user of an API key in one place: the parts of an event that are the same in every call."""

    identity: dict[str, Any]
    client: dict[str, Any]
    geo: dict[str, Any]
    gateway_region: str
    base_risk: float


class Tenant(NamedTuple):
    """A customer of the API with its plan and its callers; ``subscription`` is the event's struct."""

    tenant_id: str
    tier: Tier
    subscription: dict[str, str]
    callers: list[Caller]


@cache
def get_tenants(billing_month: str) -> tuple[list[Tenant], list[float]]:
    """Return the tenants and their cumulative weights (Zipf: the n-th tenant calls 1/n as often as the first).

    Args:
        billing_month: ``YYYY-MM``, part of the billing cycle's id.
    """
    rng = random.Random("tenants")
    tenants = [_build_tenant(rng, rank, billing_month) for rank in range(1, TENANTS + 1)]
    return tenants, list(accumulate(1 / rank for rank in range(1, TENANTS + 1)))


def _build_tenant(rng: random.Random, rank: int, billing_month: str) -> Tenant:
    tenant_id = _make_id(rng, "tnt")
    # The tenants with the most calls have enterprise plans, those in the tail have free ones.
    tier = TIERS[3 - min(3, rank // 6)]
    subscription = {
        "subscription_id": _make_id(rng, "sub"),
        "plan_tier": tier.name,
        "billing_cycle_id": f"cyc_{billing_month}",
    }
    home = rng.randrange(len(PLACES))
    callers = [_build_caller(rng, PLACES[(home + n // 3) % len(PLACES)]) for n in range(CALLERS_PER_TENANT)]
    return Tenant(tenant_id, tier, subscription, callers)


def _build_caller(rng: random.Random, place: tuple) -> Caller:
    *geo_values, address_prefix, gateway_region = place
    geo = dict(zip(GEO_FIELDS, geo_values, strict=True))
    is_vpn, is_tor = rng.random() < 0.05, rng.random() < 0.02
    geo |= {"is_vpn": is_vpn, "is_tor": is_tor, "is_proxy": is_vpn or is_tor}
    risk = 0.02 + 0.10 * geo["is_datacenter"] + 0.20 * is_vpn + 0.40 * is_tor
    client = _build_client(rng, f"{address_prefix}{rng.randrange(1, 255)}")
    return Caller(_build_identity(rng), client, geo, gateway_region, risk)


def _build_identity(rng: random.Random) -> dict[str, Any]:
    uses_oauth = rng.random() < 0.3
    return {
        "api_key_id": _make_id(rng, "key"),
        "api_key_prefix": f"sk_live_{rng.getrandbits(16):04x}",
        "user_id": _make_id(rng, "usr"),
        "auth_method": "oauth2" if uses_oauth else "api_key",
        "oauth_client_id": _make_id(rng, "oac") if uses_oauth else None,
        "scopes": SCOPES[: rng.randrange(1, len(SCOPES) + 1)],
    }


def _build_client(rng: random.Random, address: str) -> dict[str, Any]:
    name, version, user_agent, parsed = rng.choice(SDKS)
    return {
        "ip_address": address,
        "ip_address_hash": _hash(address),
        "ip_version": "6" if ":" in address else "4",
        "user_agent": user_agent,
        "user_agent_parsed": parsed,
        "sdk_name": name,
        "sdk_version": version,
    }


def _make_id(rng: random.Random, prefix: str) -> str:
    return f"{prefix}_{rng.getrandbits(48):012x}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
