"""The alerting rules: what promtool says of them, and whether anything about them is left out."""

import re
from collections import defaultdict
from dataclasses import fields

import pytest
import yaml

from bronze.config import StatusConfig
from bronze.delta.log_cleanup import LATE
from bronze.observe.metrics import METRICS
from bronze.ops.alerts import _RULES as STATUS_RULES
from bronze.schema import get_bronze_spec
from tests.support.pages import read_page, read_section
from tests.support.paths import ROOT
from tests.support.prometheus import run_promtool

FILE = ROOT / "monitoring" / "alerts.yml"
RULES = {rule["alert"]: rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]}
TESTS = yaml.safe_load((ROOT / "monitoring" / "alerts_test.yml").read_text())["tests"]
STATUS = StatusConfig(kafka_brokers="k:9092", output_path="/lake/b")

each_rule = pytest.mark.parametrize("name", RULES)


def test_promtool_accepts_the_rules():
    assert f"{len(RULES)} rules found" in run_promtool("check", "rules", str(FILE))


def test_the_rules_fire_and_stay_silent_as_their_tests_say():
    assert "SUCCESS" in run_promtool("test", "rules", str(ROOT / "monitoring" / "alerts_test.yml"))


def test_a_rule_that_can_never_fire_is_found(tmp_path):
    (tmp_path / "alerts.yml").write_text(FILE.read_text().replace("bronze_audit_complete == 0", "bronze_audit == 0"))
    (tmp_path / "alerts_test.yml").write_text((ROOT / "monitoring" / "alerts_test.yml").read_text())
    with pytest.raises(AssertionError, match="AuditFailed"):
        run_promtool("test", "rules", str(tmp_path / "alerts_test.yml"))


@each_rule
def test_each_rule_has_its_four_cases(name: str):
    cases = defaultdict(list)
    for test in TESTS:
        rule, _, case = test["name"].partition(": ")
        cases[rule].append(case)
    assert set(cases) == set(RULES)
    assert set(cases[name]) == {"fires", "silent", "reset", "absent"}


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test["name"])
def test_each_case_asks_for_its_own_rule_and_gives_series_unless_they_are_absent(test: dict):
    rule, _, case = test["name"].partition(": ")
    (expected,) = test["promql_expr_test"]
    assert f'alertname="{rule}"' in expected["expr"]
    assert (test["input_series"] == []) == (case == "absent")
    assert expected["exp_samples"] or case != "fires"
    assert case not in ("silent", "reset") or not expected["exp_samples"]


@each_rule
def test_each_rule_uses_only_metrics_that_the_product_has(name: str):
    used = re.findall(r"\bbronze_\w+", RULES[name]["expr"])
    known = {*METRICS, *(f"{metric}_{part}" for metric in METRICS for part in ("count", "sum", "bucket"))}
    assert used
    assert set(used) <= known


@each_rule
def test_each_rule_says_how_bad_it_is_what_it_means_and_which_command_helps(name: str):
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert 20 < len(rule["annotations"]["summary"]) < 120
    assert re.search(r"`bronze (ingest|status|audit|replay|checkpoint|maintain)\b", rule["annotations"]["description"])


@each_rule
def test_each_rule_has_a_section_in_the_troubleshooting(name: str):
    assert RULES[name]["annotations"]["runbook"] == f"docs/troubleshooting.md#{name.lower()}"
    section = read_section(read_page("docs/troubleshooting.md"), f"### {name}")
    assert "**What it means.**" in section
    assert "**What to do.**" in section
    assert "bronze " in section


# Threshold of bronze status, by rule: the parameter, and its unit in the unit of the metric.
SHARED = {
    "HighProcessingTime": ("max_batch_seconds", 1),
    "InvalidRecordSpike": ("alert_invalid_ratio", 1),
    "LagGrowing": ("max_lag", 1),
    "Stale": ("max_staleness_minutes", 60),
    "DataLossHeadroom": ("min_headroom_hours", 3600),
    "DlqWaiting": ("max_dlq_waiting", 1),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_threshold_that_bronze_status_has_too_is_its_default(name: str):
    parameter, unit = SHARED[name]
    threshold = getattr(STATUS, parameter) * unit
    compared = [float(number) for number in re.findall(r"[<>] ([\d.]+)", RULES[name]["expr"])]
    assert threshold in compared


def test_every_threshold_of_bronze_status_is_in_a_rule():
    assert {parameter for parameter, _ in SHARED.values()} == set(STATUS_RULES)
    assert set(STATUS_RULES) <= {field.name for field in fields(StatusConfig)}


def test_a_log_is_too_long_for_the_rule_when_it_is_for_bronze_status():
    interval = int(get_bronze_spec().properties["delta.checkpointInterval"])
    assert f"bronze_log_uncheckpointed_commits >= {LATE * interval}\n" in RULES["LogTooLong"]["expr"]
