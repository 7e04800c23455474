"""The audit proves that each record is in the tables once, explains every gap, and names missing and duplicate ones."""

import json
import shutil
import time
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, TopicPartition
from pyspark.sql import functions as F

from bronze import replay
from bronze.cli import main
from bronze.config import AuditConfig, InspectConfig, ReplayConfig
from bronze.delta.dlq import read_dlq
from bronze.errors import ConfigError
from bronze.ops.audit_gaps import plan_reads
from bronze.ops.audit_report import ABORTED, NO_RECORD, READ
from tests.support.audit import audit, describe
from tests.support.commands import list_flags
from tests.support.events import make_event, make_events
from tests.support.lake import Lake, with_both
from tests.support.topic import Topic, delete_records, produce_transaction
from tests.support.waiting import wait_until


@with_both
def test_an_ingested_topic_is_complete(topic: Topic, any_lake: Lake):
    topic.produce(make_events(20) + [b"{", None])
    any_lake.ingest()
    topic.produce(make_events(3), partition=1)
    report = audit(any_lake)
    assert report.is_complete
    assert "(20 in bronze, 2 in the DLQ); lag 3" in report.verdict
    assert report.to_frame()["lag"].tolist() == [0, 3, 0]


def test_an_audit_without_rows_is_complete(topic: Topic, lake: Lake):
    lake.ingest()
    topic.produce(make_events(2))
    report = audit(lake)
    assert report.is_complete
    assert report.to_frame()["first"].isna().all()
    assert "lag 2" in report.to_text()


@pytest.mark.parametrize("offset", [0, 7, pytest.param(19, marks=pytest.mark.soak)], ids=["first", "middle", "last"])
def test_a_deleted_row_is_named(topic: Topic, lake: Lake, offset: int, capsys: pytest.CaptureFixture[str]):
    topic.produce(make_events(20), partition=2)
    lake.ingest()
    lake.spark.sql(f"DELETE FROM delta.`{lake.config.output_path}` WHERE _kafka_offset = {offset}")
    assert main(["audit", *list_flags(lake.configure(AuditConfig))]) == 5
    shown = capsys.readouterr().out
    assert f"FINDING partition 2: 1 offsets missing: {offset}\n" in shown
    assert "NOT complete: 1 offsets of" in shown


def test_a_deleted_dlq_row_is_named(topic: Topic, lake: Lake):
    topic.produce([*make_events(5), b"{", *make_events(5)], partition=0)
    lake.ingest()
    lake.spark.sql(f"DELETE FROM delta.`{lake.config.dlq_path}`")
    assert describe(audit(lake)) == {0: {"missing": [(5, 5)]}}


def test_a_row_that_is_there_twice_is_named(topic: Topic, lake: Lake, capsys: pytest.CaptureFixture[str]):
    topic.produce(make_events(20), partition=1)
    lake.ingest()
    lake.bronze.where("_kafka_offset in (3, 4, 11)").write.format("delta").mode("append").save(lake.config.output_path)
    assert main(["audit", "--json", *list_flags(lake.configure(AuditConfig))]) == 5
    partitions = {a["partition"]: a for a in json.loads(capsys.readouterr().out)["partitions"]}
    assert partitions[1]["doubled"] == [[3, 4], [11, 11]]


def test_a_position_in_both_tables_is_a_finding_unless_it_was_replayed(topic: Topic, lake: Lake):
    topic.produce([*make_events(5), b"{", b"{"], partition=0)
    lake.ingest()
    later, earlier = F.expr("_ingested_at + interval 1 hour"), F.expr("_ingested_at - interval 1 hour")
    row = lake.bronze.limit(1)
    for offset, time_of_row in ((5, later), (6, earlier)):
        copy = row.withColumns({"_kafka_offset": F.lit(offset).cast("long"), "_ingested_at": time_of_row})
        copy.write.format("delta").mode("append").save(lake.config.output_path)
    report = audit(lake)
    assert describe(report) == {0: {"in both tables": [(6, 6)]}}
    assert report.to_frame()["replayed"].tolist() == [1, 0, 0]


def test_transactions_and_retention_are_explained(topic: Topic, lake: Lake):
    topic.produce(make_events(5), partition=0)
    produce_transaction(topic, make_events(4), 0, commit=True)
    produce_transaction(topic, make_events(3), 0, commit=False)
    topic.produce(make_events(5), partition=0)
    topic.produce(make_events(10), partition=1)
    delete_records(topic, 1, before=4)
    lake.ingest()
    (first, second, _) = audit(lake, checkpoint_path="").partitions
    assert first.explained == {ABORTED: [(10, 12)], NO_RECORD: [(9, 9), (13, 13)]}
    assert (second.first, second.explained, second.findings) == (4, {}, {})
    delete_records(topic, 0, before=12)
    assert audit(lake).partitions[0].explained == {READ: [(9, 11)], ABORTED: [(12, 12)], NO_RECORD: [(13, 13)]}


def test_what_retention_passes_later_stays_explained(topic: Topic, lake: Lake):
    """Markers and aborted records have no row; the commits say that their offsets were read."""
    produce_transaction(topic, make_events(4), 0, commit=True)
    produce_transaction(topic, make_events(3), 0, commit=False)
    topic.produce(make_events(5), partition=0)
    lake.ingest(max_offsets_per_trigger=3)
    delete_records(topic, 0, before=14)
    for checkpoint_path in (lake.config.checkpoint_path, ""):
        report = audit(lake, checkpoint_path=checkpoint_path)
        assert report.is_complete, report.to_text()
        assert report.partitions[0].explained == {READ: [(4, 8)]}
    shutil.rmtree(lake.config.checkpoint_path)
    lake.ingest()


def test_a_row_that_is_gone_is_found_after_retention_too(topic: Topic, lake: Lake):
    """It is unknown which of the offsets without a row held the record, but it is known that one of them did."""
    produce_transaction(topic, make_events(4), 0, commit=True)
    topic.produce(make_events(5), partition=0)
    lake.ingest()
    lake.spark.sql(f"DELETE FROM delta.`{lake.config.output_path}` WHERE _kafka_offset = 7")
    delete_records(topic, 0, before=10)
    report = audit(lake)
    assert (report.partitions[0].removed, report.partitions[0].removed_records) == ([(4, 4), (7, 7)], 1)
    assert "1 records that were committed and are no longer in any table: 4, 7" in report.to_text()
    assert "NOT complete: 1 offsets" in report.verdict


@pytest.mark.soak
def test_an_invalid_row_of_bronze_with_a_dlq_row_is_no_replay(topic: Topic, lake: Lake, bronze_log):
    """The state that two writers with different DLQs could leave behind in an older version."""
    topic.produce([make_event(1), b"bro\xffken", make_event(2)], partition=0)
    lake.ingest()
    other = replace(lake, config=replace(lake.config, dlq_path="", output_path=lake.config.output_path + "-o"))
    other.ingest(checkpoint_path=lake.config.checkpoint_path + "-o")
    other.bronze.where("not _is_valid").write.format("delta").mode("append").save(lake.config.output_path)
    assert describe(audit(lake)) == {0: {"in both tables": [(1, 1)]}}
    replayed = replay(lake.configure(ReplayConfig, dry_run=True), lake.spark)
    assert replayed.counts["replayed_before"] == 0
    assert any("1 DLQ records are invalid rows of bronze as well" in message for message in bronze_log.messages)
    assert read_dlq(lake.spark, lake.configure(InspectConfig)).where("is_replayed").isEmpty()


def test_a_compacted_topic_is_explained(make_topic, lake: Lake):
    settings = {"cleanup.policy": "compact,delete", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
    compacted = make_topic(1, **settings, **{"max.compaction.lag.ms": "100"})
    for number in range(3):  # each has the same seven keys
        compacted.produce(make_events(14, first=number * 14), partition=0)
        time.sleep(0.3)
    wait_until(lambda: is_compacted(compacted, before=20))
    lake.ingest(kafka_topic=compacted.name)
    report = audit(lake, kafka_topic=compacted.name)
    assert report.is_complete
    assert sum(a.bronze_rows for a in report.partitions) < 42
    delete_records(compacted, 0, before=20)
    assert audit(lake, kafka_topic=compacted.name).is_complete
    assert list(report.partitions[0].explained) == [NO_RECORD] or report.partitions[0].first > 0


def is_compacted(topic: Topic, before: int) -> bool:
    """Whether some of the first records are gone; produces one more record, which rolls the segment."""
    topic.produce([make_event()], partition=0)
    time.sleep(1)
    return count_first(topic, before) < before


def count_first(topic: Topic, before: int) -> int:
    """Records of partition 0 below an offset."""
    consumer = Consumer({"bootstrap.servers": topic.brokers, "group.id": "count", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic.name, 0, 0)])
    try:
        found = consumer.consume(before, timeout=10)
        return sum(message.offset() < before for message in found)
    finally:
        consumer.close()


def test_what_kafka_deleted_beyond_the_last_row_is_named(topic: Topic, lake: Lake):
    topic.produce(make_events(10), partition=0)
    lake.ingest()
    topic.produce(make_events(10), partition=0)
    delete_records(topic, 0, before=15)
    for checkpoint_path in (lake.config.checkpoint_path, ""):
        found = describe(audit(lake, checkpoint_path=checkpoint_path))
        assert found == {0: {"never read, and deleted in Kafka": [(10, 14)]}}


def test_a_restart_from_scratch_is_complete(topic: Topic, lake: Lake):
    topic.produce(make_events(20) + [b"{"])
    lake.ingest()
    shutil.rmtree(lake.config.checkpoint_path)
    topic.produce(make_events(5))
    lake.ingest()
    assert audit(lake).is_complete


def test_rows_beyond_the_checkpoint_are_told(topic: Topic, lake: Lake):
    topic.produce(make_events(20), partition=0)
    lake.ingest()
    (committed,) = [p for p in lake.list_checkpoint("commits") if p.name == "0"]
    committed.unlink()
    report = audit(lake)
    assert report.is_complete
    assert report.partitions[0].beyond_checkpoint == [(0, 19)]


def test_a_missing_table_is_named(lake: Lake):
    with pytest.raises(ConfigError, match="there is no table at .*; ingest first"):
        audit(lake)


def test_near_gaps_share_a_read_and_far_ones_do_not():
    assert plan_reads({0: [(1, 1), (5, 9), (500, 500)], 3: [(2, 2)]}, near=10) == [
        {0: (1, 10), 3: (2, 3)},
        {0: (500, 501)},
    ]
    many = [(n * 1_000, n * 1_000) for n in range(100)]
    assert len(plan_reads({0: many}, near=10, reads=20)) <= 20
