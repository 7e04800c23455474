"""The constants behind the sample events: plan tiers, endpoints, errors, places and SDKs."""

from typing import NamedTuple


class Tier(NamedTuple):
    """A plan: how many requests a minute it allows and what one billing unit costs in USD."""

    name: str
    limit_per_minute: int
    unit_price_usd: float


class Endpoint(NamedTuple):
    """An API operation with its typical latency (ms) and response size (bytes), its price and its share."""

    endpoint_id: str
    method: str
    path: str
    service: str
    latency_ms: float
    response_bytes: int
    billing_units: float
    weight: int


TIERS = [
    Tier("free", 60, 0.0),
    Tier("starter", 600, 0.0004),
    Tier("pro", 3_000, 0.0003),
    Tier("enterprise", 12_000, 0.0002),
]

ENDPOINTS = [
    Endpoint("ep_orders_list", "GET", "/v2/orders", "orders", 48.0, 14_200, 1.0, 20),
    Endpoint("ep_orders_get", "GET", "/v2/orders/{id}", "orders", 22.0, 2_900, 1.0, 26),
    Endpoint("ep_orders_create", "POST", "/v2/orders", "orders", 135.0, 1_450, 3.0, 8),
    Endpoint("ep_customers_get", "GET", "/v2/customers/{id}", "customers", 18.0, 1_900, 1.0, 18),
    Endpoint("ep_customers_update", "PATCH", "/v2/customers/{id}", "customers", 64.0, 1_950, 2.0, 5),
    Endpoint("ep_search", "POST", "/v2/search", "search", 210.0, 22_800, 5.0, 9),
    Endpoint("ep_reports_export", "GET", "/v2/reports/{id}/export", "reports", 1_850.0, 486_000, 25.0, 1),
    Endpoint("ep_webhooks_delete", "DELETE", "/v2/webhooks/{id}", "webhooks", 41.0, 0, 1.0, 2),
    Endpoint("ep_embeddings", "POST", "/v2/embeddings", "inference", 320.0, 12_400, 10.0, 11),
]

SUCCESS = {"GET": 200, "POST": 201, "PATCH": 200, "DELETE": 204}
# Status -> error code, message, relative frequency. 429 is 0, because the rate limiter decides it.
ERRORS = {
    400: ("invalid_request", "The parameter 'limit' must be between 1 and 100.", 24),
    401: ("invalid_api_key", "The API key provided is expired or revoked.", 9),
    403: ("insufficient_scope", "The API key lacks the scope required for this operation.", 6),
    404: ("resource_not_found", "No such resource exists for this tenant.", 30),
    409: ("idempotency_conflict", "The idempotency key was used with another request body.", 4),
    422: ("validation_failed", "The field 'currency' is not an ISO 4217 code.", 11),
    429: ("rate_limit_exceeded", "Too many requests; retry after the window resets.", 0),
    500: ("internal_error", "An unexpected error occurred; it has been reported.", 6),
    502: ("bad_gateway", "The upstream closed the connection before responding.", 3),
    503: ("service_unavailable", "The upstream is overloaded; retry with backoff.", 4),
    504: ("upstream_timeout", "The upstream did not respond within 30 seconds.", 3),
}

# fmt: off
GEO_FIELDS = ("country_code", "country_name", "region", "city", "postal_code", "latitude", "longitude",
              "timezone", "asn", "as_org", "is_datacenter")
# The geo fields, the prefix of the callers' addresses (from the ranges that RFC 5737 and RFC 3849 reserve for
# documentation), and the nearest gateway region.
PLACES: list[tuple] = [
    ("US", "United States", "Virginia", "Ashburn", "20147", 39.0438, -77.4874, "America/New_York",
     14618, "Amazon.com, Inc.", True, "192.0.2.", "us-east-1"),
    ("US", "United States", "California", "San José", "95113", 37.3382, -121.8863, "America/Los_Angeles",
     7922, "Comcast Cable Communications, LLC", False, "198.51.100.", "us-west-2"),
    ("BR", "Brazil", "São Paulo", "São Paulo", "01310-100", -23.5505, -46.6333, "America/Sao_Paulo",
     27699, "TELEFÔNICA BRASIL S.A", False, "203.0.113.", "sa-east-1"),
    ("GB", "United Kingdom", "England", "London", "EC2A 4NE", 51.5072, -0.1276, "Europe/London",
     2856, "British Telecommunications PLC", False, "198.51.100.", "eu-west-1"),
    ("DE", "Germany", "Bayern", "München", "80331", 48.1351, 11.5820, "Europe/Berlin",
     3320, "Deutsche Telekom AG", False, "203.0.113.", "eu-central-1"),
    ("DE", "Germany", "Sachsen", "Falkenstein", "08223", 50.4779, 12.3713, "Europe/Berlin",
     24940, "Hetzner Online GmbH", True, "2001:db8:4f8::", "eu-central-1"),
    ("IN", "India", "Maharashtra", "Mumbai", "400001", 19.0760, 72.8777, "Asia/Kolkata",
     55836, "Reliance Jio Infocomm Limited", False, "2001:db8:405::", "ap-south-1"),
    ("JP", "Japan", "Tōkyō", "東京", "100-0001", 35.6762, 139.6503, "Asia/Tokyo",
     2516, "KDDI CORPORATION", False, "192.0.2.", "ap-northeast-1"),
]

# Name, version, the User-Agent header and its parsed form.
SDKS = [
    ("acme-python", "3.8.1", "acme-python/3.8.1 (CPython 3.11.9; Linux x86_64) httpx/0.27.2",
     {"client": "acme-python", "os": "Linux"}),
    ("acme-node", "5.2.0", "acme-node/5.2.0 (Node.js v20.17.0; linux x64) undici/6.19.8",
     {"client": "acme-node", "os": "Linux"}),
    ("acme-js", "4.0.2", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/128.0",
     {"client": "Chrome", "os": "macOS"}),
]
# fmt: on
