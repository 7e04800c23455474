"""Which partitions are compacted, which settings are refused, and which steps are retried."""

from datetime import datetime

import pandas as pd
import pytest
from delta.exceptions import ConcurrentAppendException

from bronze.config import CreateTablesConfig, MaintainConfig
from bronze.errors import BronzeError, ConfigError, InvalidOptionError
from bronze.ops.create_tables import list_statements
from bronze.ops.maintain import format_partition, retry, select_closed
from tests.support.commands import run_bronze

NOON = datetime(2026, 1, 31, 12)


def select(*partitions: tuple[str | None, str | None, int]) -> list[tuple[str, str]]:
    frame = pd.DataFrame(partitions, columns=["_event_date", "_event_hour", "small"])
    selected = select_closed(frame.assign(modified=pd.Timestamp("2026-01-31 11:59")), NOON)
    return list(zip(selected["_event_date"], selected["_event_hour"], strict=True))


def test_hours_that_ended_are_compacted_the_ones_with_the_most_small_files_first():
    hours = [("2026-01-31", "9", 3), ("2026-01-31", "11", 8), ("2026-01-31", "12", 9), ("2026-02-01", "1", 9)]
    assert select(*hours) == [("2026-01-31", "11"), ("2026-01-31", "9")]


def test_a_partition_with_one_small_file_is_left_alone():
    assert select(("2026-01-30", "9", 1)) == []


def test_a_partition_without_event_time_is_compacted_when_nothing_is_written_to_it():
    assert len(select((None, None, 5))) == 1
    frame = pd.DataFrame({"_event_date": [None], "_event_hour": [None], "small": [5]})
    assert select_closed(frame.assign(modified=pd.Timestamp("2026-01-31 12:01")), NOON).empty


def test_dlq_days_are_compacted_when_they_are_over():
    frame = pd.DataFrame({"_dlq_date": ["2026-01-30", "2026-01-31"], "small": [2, 2], "modified": pd.NaT})
    assert select_closed(frame, NOON)["_dlq_date"].tolist() == ["2026-01-30"]


def test_a_partition_is_named_by_its_values_also_by_null():
    assert format_partition({"_event_date": "2026-01-31", "_event_hour": "9"}) == (
        "_event_date = '2026-01-31' AND _event_hour = '9'"
    )
    assert format_partition({"_event_date": None}) == "_event_date IS NULL"


def test_vacuum_keeps_seven_days_unless_it_is_forced():
    with pytest.raises(InvalidOptionError, match=r"--retention-hours: expected at least 168 .*--force.* got 24"):
        MaintainConfig(output_path="/lake/b", retention_hours=24)
    assert MaintainConfig(output_path="/lake/b", retention_hours=24, force=True).retention_hours == 24
    assert MaintainConfig(output_path="/lake/b").retention_hours == 0  # the table's own setting


def test_a_step_is_tried_again_when_others_committed_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bronze.runtime.retry.sleep", lambda seconds: None)
    outcomes = iter([ConcurrentAppendException("1"), ConcurrentAppendException("2"), None])
    assert retry("/lake/dlq", lambda: raise_or_return(next(outcomes))) == "done"


def test_a_step_that_always_loses_ends_with_a_cure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bronze.runtime.retry.sleep", lambda seconds: None)
    with pytest.raises(BronzeError, match="could not maintain /lake/dlq in 5 attempts"):
        retry("/lake/dlq", lambda: raise_or_return(ConcurrentAppendException("again")))


def raise_or_return(outcome: Exception | None) -> str:
    if outcome:
        raise outcome
    return "done"


def test_create_tables_prints_the_ddl_of_both_tables_without_java():
    paths = ("--output-path", "/lake/b", "--dlq-path", "s3a://lake/d", "--dlq-table", "prod.events.dlq")
    shown = run_bronze("create-tables", *paths)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "CREATE TABLE IF NOT EXISTS delta.`file:/lake/b` (" in shown.stdout
    assert "CREATE TABLE IF NOT EXISTS prod.events.dlq (" in shown.stdout
    assert "LOCATION 's3a://lake/d'" in shown.stdout


def test_a_relative_path_is_printed_as_what_it_means_here():
    (statement,) = list_statements(CreateTablesConfig(output_path="data/b"))
    assert "LOCATION 'file:/" in statement


@pytest.mark.parametrize("name", ["a.b.c.d", "a b", "events; DROP TABLE x", ".a", "`a`"])
def test_a_name_that_is_none_is_refused(name: str):
    with pytest.raises(InvalidOptionError, match="--bronze-table: expected a name such as"):
        CreateTablesConfig(output_path="/lake/b", bronze_table=name)


def test_a_dlq_name_needs_a_dlq():
    with pytest.raises(ConfigError, match="--dlq-path is required"):
        CreateTablesConfig(output_path="/lake/b", dlq_table="events.dlq")
