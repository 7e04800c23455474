"""An alert fires beyond its threshold, is unknown without a value, and off without a threshold."""

import math
from dataclasses import replace

import pytest

from bronze.config import StatusConfig
from bronze.errors import AlertsFiringError
from bronze.ops.alerts import check_alerts, evaluate_alerts, list_alerts

CONFIG = StatusConfig(kafka_brokers="k:9092", output_path="/lake/b", max_lag=100)
CALM = {
    "max_batch_seconds": 60.0,
    "alert_invalid_ratio": 0.01,
    "max_dlq_waiting": 10_000.0,
    "max_lag": 100.0,
    "max_staleness_minutes": 60.0,
    "min_headroom_hours": 24.0,
}


def find_state(parameter: str, value: float | None, config: StatusConfig = CONFIG) -> str:
    alerts = evaluate_alerts(config, {**CALM, parameter: value})
    return alerts[list(CALM).index(parameter)].state


def test_a_value_at_its_threshold_is_well():
    assert [alert.state for alert in evaluate_alerts(CONFIG, CALM)] == ["ok"] * 6


@pytest.mark.parametrize("parameter", [name for name in CALM if name.startswith("max_")])
def test_a_value_above_a_maximum_fires(parameter: str):
    assert find_state(parameter, CALM[parameter] * 1.01) == "firing"


def test_headroom_fires_below_its_threshold_and_never_where_it_has_no_end():
    assert find_state("min_headroom_hours", 23.9) == "firing"
    assert find_state("min_headroom_hours", math.inf) == "ok"


@pytest.mark.parametrize("parameter", CALM)
def test_a_value_that_is_not_known_is_neither_well_nor_firing(parameter: str):
    assert find_state(parameter, None) == "unknown"


@pytest.mark.parametrize("parameter", CALM)
def test_a_threshold_of_zero_turns_an_alert_off(parameter: str):
    assert find_state(parameter, 0.0, replace(CONFIG, **{parameter: type(getattr(CONFIG, parameter))(0)})) == "off"


def test_firing_alerts_end_the_run_with_6_and_say_what_to_do():
    alerts = evaluate_alerts(CONFIG, {**CALM, "max_lag": 5_000.0, "alert_invalid_ratio": 0.5})
    with pytest.raises(
        AlertsFiringError, match=r"2 of the alerts are firing: invalid share 0\.5.*lag \(records\) 5,000"
    ):
        check_alerts(alerts, fail_on_alert=True)
    assert AlertsFiringError.exit_code == 6


def test_nothing_ends_the_run_unless_it_is_asked_for_and_an_alert_fires():
    check_alerts(evaluate_alerts(CONFIG, {**CALM, "max_lag": 5_000.0}), fail_on_alert=False)
    check_alerts(evaluate_alerts(CONFIG, {**CALM, "max_lag": None}), fail_on_alert=True)


def test_what_to_do_is_said_of_firing_alerts_only_and_fits_into_a_notebook_s_table():
    listed = list_alerts(evaluate_alerts(CONFIG, {name: -1.0 if name.startswith("min_") else 1e9 for name in CALM}))
    assert listed["what to do"].map(len).between(20, 120).all()
    assert (list_alerts(evaluate_alerts(CONFIG, CALM))["what to do"] == "").all()
