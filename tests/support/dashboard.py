"""The Grafana dashboard, and its expressions as Grafana sends them to Prometheus."""

import json
from typing import Any

from tests.support.paths import ROOT

FILE = ROOT / "monitoring" / "dashboard.json"


def list_panels() -> list[dict[str, Any]]:
    return json.loads(FILE.read_text())["panels"]


def list_expressions(topic: str = ".*", interval: str = "1m") -> dict[str, str]:
    """Each expression by the title of its panel, with the variables replaced."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$topic", topic)
        .replace("$__rate_interval", interval)
        for panel in list_panels()
        for target in panel.get("targets", [])
    }
