"""The whole promise on one topic: after all these faults, the audit reports that the tables are complete.

Bad records, committed and aborted transactions, records that Kafka deleted; a crash, a restart from scratch, a backfill
next to a live stream, a replay of the DLQ. Then one row is deleted and another one duplicated; the audit names both.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace

from bronze import backfill, replay
from bronze.config import BackfillConfig, ReplayConfig
from bronze.errors import BronzeError
from sandbox.topics import measure_topics
from tests.support.audit import audit, describe
from tests.support.events import BAD, make_events
from tests.support.ingestion import Ingestion
from tests.support.lake import Lake, read_end
from tests.support.topic import Topic, delete_records, produce_transaction
from tests.support.waiting import wait_until


def produce_history(topic: Topic, first: int) -> None:
    """Records of every kind in each partition; 28 bad ones among them."""
    for partition in range(3):
        topic.produce(make_events(50, first) + BAD, partition)
        produce_transaction(topic, make_events(5, first + 50), partition, commit=True)
        produce_transaction(topic, make_events(4, first + 55), partition, commit=False)


def can_ingest(lake: Lake) -> bool:
    """Ingest; retry, as a supervisor does, while the JVM of a killed driver still uses the checkpoint."""
    try:
        lake.ingest()
    except BronzeError as error:
        if "another process uses the checkpoint" not in str(error):
            raise
        return False
    return True


def test_the_audit_proves_the_promise_after_everything(topic: Topic, lake: Lake, start: Callable[..., Ingestion]):
    produce_history(topic, first=0)
    small = replace(lake.config, max_offsets_per_trigger=40)
    start(small).wait_for("Batch 1: total").process.kill()  # only the driver: its JVM continues for a moment
    wait_until(lambda: can_ingest(lake))
    delete_records(topic, 1, before=20)
    shutil.rmtree(lake.config.checkpoint_path)  # restart from scratch
    produce_history(topic, first=100)
    live = start(replace(small, available_now=False, trigger_interval="1 second"))
    everything = {"checkpoint_path": "", "starting_offsets": "earliest", "max_offsets_per_trigger": 30}
    backfill(lake.configure(BackfillConfig, **everything), lake.spark)
    end = measure_topics(topic.brokers)[topic.name].produced
    wait_until(lambda: read_end(lake) == end)
    live.kill()
    lake.ingest()
    replay(lake.configure(ReplayConfig), lake.spark)
    report = audit(lake)
    assert report.is_complete, report.to_text()
    assert sum(a.bronze_rows for a in report.partitions) == 2 * 3 * 55
    assert sum(a.dlq_rows for a in report.partitions) == 2 * 3 * len(BAD)
    assert sum(a.lag for a in report.partitions) == 0
    spoil(lake, "DELETE FROM {} WHERE _kafka_partition = 2 AND _kafka_offset = 7")
    assert describe(audit(lake)) == {2: {"missing": [(7, 7)]}}
    spoil(lake, "INSERT INTO {0} SELECT * FROM {0} WHERE _kafka_partition = 0 AND _kafka_offset = 9")
    assert describe(audit(lake)) == {0: {"doubled": [(9, 9)]}, 2: {"missing": [(7, 7)]}}


def spoil(lake: Lake, statement: str) -> None:
    lake.spark.sql(statement.format(f"delta.`{lake.config.output_path}`"))
