"""The dashboard: every expression of it returns data from a real Prometheus that scrapes a real stream."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bronze import audit, status
from bronze.config import AuditConfig, StatusConfig
from bronze.observe.metrics import METRICS
from sandbox.system import find_free_port
from tests.support.dashboard import list_expressions, list_panels
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake
from tests.support.prometheus import Prometheus, run_node_exporter, run_prometheus
from tests.support.topic import Topic
from tests.support.waiting import wait_until


def test_the_dashboard_has_the_rows_that_an_operator_looks_for():
    rows = [panel["title"] for panel in list_panels() if panel["type"] == "row"]
    assert rows == ["Flow", "Lag and headroom", "Errors", "Batches", "Tables"]


def test_panels_do_not_overlap_and_have_unique_ids():
    panels = list_panels()
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("name", [name for name in METRICS if not name.startswith(("bronze_run", "bronze_build"))])
def test_each_metric_is_in_the_dashboard_or_in_a_rule(name: str):
    rules = (Path(__file__).parents[2] / "monitoring" / "alerts.yml").read_text()
    texts = [*list_expressions().values(), rules]
    assert name == "bronze_audit_findings" or any(re.search(rf"\b{name}(_sum|_count|_bucket)?\b", t) for t in texts)


def test_each_expression_of_the_dashboard_returns_data(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path
):
    config = replace(lake.config, available_now=False, trigger_interval="1 second", http_port=find_free_port())
    folder = tmp_path / "textfiles"
    folder.mkdir()
    topic.produce(make_events(50) + BAD)
    start(config).wait_for("total=")
    status(lake.configure(StatusConfig, metrics_file=str(folder / "status.prom")), lake.spark)
    audit(lake.configure(AuditConfig, metrics_file=str(folder / "audit.prom")), lake.spark)
    with run_node_exporter(folder) as node:
        targets = {"bronze": f"127.0.0.1:{config.http_port}", "node": node}
        with run_prometheus(tmp_path, targets) as prometheus:
            wait_until(lambda: prometheus.query("bronze_kafka_up == 1"), 60)
            topic.produce(make_events(200) + BAD)
            wait_until(lambda: not find_empty(prometheus), 60)
            assert find_empty(prometheus) == []
            assert prometheus.query("up == 0") == []


def find_empty(prometheus: Prometheus) -> list[str]:
    """The titles of the panels with an expression that returns nothing, or no number."""
    return [
        title
        for title, expression in list_expressions().items()
        if not any(each["value"][1] != "NaN" for each in prometheus.query(expression))
    ]
