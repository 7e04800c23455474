"""The queries of docs/operations.md return each event once, even if a producer sent it twice."""

import re

import pytest

from tests.support.events import make_event
from tests.support.lake import Lake
from tests.support.pages import read_page
from tests.support.topic import Topic

QUERIES = re.findall(r"```sql\n(.*?)```", read_page("docs/operations.md"), re.DOTALL)
EVENT = make_event(0)


@pytest.fixture
def queries(topic: Topic, lake: Lake) -> list[str]:
    """The queries on a table with four events, one of them sent three times: twice unchanged, once with other bytes."""
    topic.produce([EVENT, make_event(1), EVENT, EVENT + b" ", make_event(2), make_event(3), b"{}"])
    lake.ingest()
    return [query.replace("/lake/bronze/api_usage_events", lake.config.output_path) for query in QUERIES]


def test_duplicates_are_counted_and_left_out(queries: list[str], lake: Lake):
    count, read = queries
    assert tuple(lake.spark.sql(count).first() or ()) == (2, 1)
    rows = lake.spark.sql(read)
    assert sorted(row["event_id"] for row in rows.collect()) == [f"event-{number}" for number in range(4)]
    assert rows.columns == lake.bronze.columns


def test_values_that_are_equal_byte_for_byte_are_left_out_by_their_hash(queries: list[str], lake: Lake):
    by_value = queries[1].replace("PARTITION BY event_id", "PARTITION BY _row_hash, _raw_value")
    assert lake.spark.sql(by_value).count() == 5
