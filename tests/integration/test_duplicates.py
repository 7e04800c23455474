"""Records that producers sent more than once are counted, and a query returns each event once."""

import pandas as pd
import pytest

from bronze.config import StatusConfig
from bronze.ops.duplicates import count_duplicates, summarize
from tests.support.events import BAD, make_event, make_events
from tests.support.lake import Lake
from tests.support.topic import Topic

COLUMNS = ["records", "distinct", "surplus", "with other values"]
# Bronze with each event once: the row that was ingested first.
WITHOUT_DUPLICATES = """
SELECT * EXCEPT (copy) FROM (
  SELECT *, row_number() OVER (
    PARTITION BY event_id ORDER BY _ingested_at, _kafka_partition, _kafka_offset
  ) AS copy
  FROM delta.`{path}` WHERE _is_valid
) WHERE copy = 1
"""


def count(lake: Lake, **changes: int) -> pd.DataFrame:
    return count_duplicates(lake.spark, lake.configure(StatusConfig, **changes))


def test_records_that_share_an_event_id_or_all_of_their_value_are_counted(topic: Topic, any_lake: Lake):
    again, changed = make_events(3), make_event(7, region="eu")
    topic.produce([*make_events(10), *again, again[0], changed, *BAD, *BAD], partition=0)
    topic.produce(make_events(1, first=50), partition=1)
    any_lake.ingest()
    found = count(any_lake)
    assert found.columns.to_list() == COLUMNS
    # Events 0, 1 and 2 were sent three, two and two times; event 7 twice, with different values.
    assert found.loc["_row_hash"].to_list() == [7, 3, 4, 0]
    assert found.loc["event_id"].to_list() == [9, 4, 5, 1]
    assert summarize(found) == {"sharing event_id": 9, "sharing _row_hash": 7}


@pytest.mark.soak
def test_only_this_topic_and_the_report_s_hours_count(topic: Topic, lake: Lake):
    topic.produce(make_events(5) + make_events(5), partition=0)
    lake.ingest(max_offsets_per_trigger=5)
    assert count(lake)["records"].to_list() == [10, 10]
    path = lake.config.output_path
    lake.spark.sql(f"UPDATE delta.`{path}` SET _ingested_at = _ingested_at - INTERVAL 2 HOURS WHERE _kafka_offset < 5")
    assert count(lake, report_hours=1)["records"].to_list() == [0, 0]
    assert count(lake, report_hours=3)["records"].to_list() == [10, 10]
    lake.spark.sql(f"UPDATE delta.`{path}` SET _kafka_topic = 'another' WHERE _kafka_offset < 5")
    assert count(lake, report_hours=3)["records"].to_list() == [0, 0]


def test_empty_tables_have_none(topic: Topic, lake: Lake):
    lake.ingest()
    assert count(lake).to_numpy().sum() == 0


def test_the_documented_query_reads_each_event_once_as_it_came_first(topic: Topic, lake: Lake):
    topic.produce([*make_events(10), *make_events(10), make_event(3, region="eu"), *BAD], partition=0)
    lake.ingest(dlq_path="")
    once = lake.spark.sql(WITHOUT_DUPLICATES.format(path=lake.config.output_path))
    assert sorted(row["_kafka_offset"] for row in once.collect()) == list(range(10))
    assert once.columns == lake.bronze.columns
