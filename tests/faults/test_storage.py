"""Tables and checkpoints that are damaged, do not fit, lose files or are shared: nothing lost, nothing twice."""

import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from bronze.checkpoint import read_binding, write_binding
from bronze.cli import main
from bronze.schema import create_table_statement, get_bronze_spec
from tests.conftest import Lake, Topic, make_event, make_events
from tests.faults.conftest import Ingestion, assert_complete, change_path, has_rows, when
from tests.faults.test_kafka import GATED
from tests.integration import test_backfill, test_configuration
from tests.integration.test_audit import list_flags as list_audit_flags
from tests.integration.test_ingestion import BAD

bronze = test_configuration.bronze
RECORDS = 60 + len(BAD)


# 1. Damaged checkpoints (others in tests/integration/test_replay.py and test_checkpoint.py)


@pytest.mark.parametrize("name", ["metadata", "offsets/0", "commits/0", "sources/0/0", "bronze.json"])
def test_a_checkpoint_file_that_is_cut_in_half_is_refused_and_its_cure_leads_on(
    bronze, topic: Topic, lake: Lake, tmp_path: Path, name: str
):
    """Without the checksum of Hadoop's local file system, which other file systems do not have."""
    topic.produce(make_events(60) + BAD)
    lake.ingest()
    file = Path(lake.config.checkpoint_path, name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    code, message = bronze()
    assert code == 2
    assert f"{name} is damaged" in message
    assert "Start with a new --checkpoint-path and --starting-offsets earliest" in message
    cured = change_path(lake, "checkpoint_path", tmp_path / "new-checkpoint")
    cured.ingest(starting_offsets="earliest")
    assert_complete(cured, RECORDS)


def test_of_two_that_bind_a_checkpoint_at_once_neither_unbinds_it(lake: Lake):
    binding = {"topic": lake.config.kafka_topic, "output_path": lake.config.output_path, "output_id": "1"}

    def bind() -> None:
        for _ in range(50):
            write_binding(lake.spark, lake.config.checkpoint_path, binding)

    assert test_backfill.run_twice_at_once(bind) == []
    assert read_binding(lake.spark, lake.config.checkpoint_path) == binding


# 2. Tables that do not fit (others in tests/integration/test_tables.py)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("status_code:int", "status_code:string", "column response.status_code: expected int, found string"),
        ("`tenant_id` string", "`tenant_id` bigint", "column tenant_id: expected string, found bigint"),
        (
            "`_raw_value` string",
            "`raw` string",
            "column _raw_value: missing (string)\n  column raw: not expected (string)",
        ),
        (
            "PARTITIONED BY (_event_date, _event_hour)",
            "PARTITIONED BY (_event_date)",
            "partitioning: expected _event_date, _event_hour, found _event_date",
        ),
    ],
    ids=["nested type", "type", "column", "partitioning"],
)
def test_a_table_that_differs_is_refused_with_the_difference(bronze, lake: Lake, old: str, new: str, difference: str):
    statement = create_table_statement(get_bronze_spec(), lake.config.output_path)
    assert old in statement
    lake.spark.sql(statement.replace(old, new))
    code, message = bronze()
    assert code == 2
    assert message == (
        f"--output-path: the table at {lake.config.output_path} does not fit; give another path, or migrate it:\n"
        f"  {difference}"
    )
    assert lake.bronze.count() == 0
    assert not Path(lake.config.dlq_path).exists()
    assert not Path(lake.config.checkpoint_path).exists()


def test_a_dlq_that_is_no_dlq_is_refused_before_bronze_is_made(bronze, lake: Lake):
    lake.spark.sql(create_table_statement(get_bronze_spec(), lake.config.dlq_path))
    code, message = bronze()
    assert code == 2
    assert f"--dlq-path: the table at {lake.config.dlq_path} does not fit" in message
    assert "column _error_type: missing (string)" in message
    assert not Path(lake.config.output_path).exists()


def test_a_record_that_breaks_a_constraint_ends_the_stream_by_the_constraint_s_name(bronze, topic: Topic, lake: Lake):
    lake.ingest()
    table = f"delta.`{lake.config.output_path}`"
    lake.spark.sql(f"ALTER TABLE {table} ADD CONSTRAINT small CHECK (_kafka_offset < 20)")
    topic.produce(make_events(60), partition=0)
    code, message = bronze()
    assert code == 1
    assert "CHECK constraint small" in message
    assert len(message.splitlines()) == 1
    lake.spark.sql(f"ALTER TABLE {table} DROP CONSTRAINT small")
    assert bronze()[0] == 0
    assert_complete(lake, 60)


# 3. Others that change the tables (a backfill beside a stream: tests/integration/test_backfill.py)


@dataclass
class Maintenance:
    """A statement that is run again and again until the stream has ended."""

    lake: Lake
    statement: str
    done: int = 0
    conflicts: int = 0
    failed: Exception | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.is_over.is_set() and not self.failed:
            try:
                self.lake.spark.sql(self.statement.format(table=f"delta.`{self.lake.config.output_path}`")).collect()
                self.done += 1
            except Exception as error:
                self.conflicts += 1
                is_conflict = "Concurrent" in type(error).__name__ or "DELTA_CONCURRENT" in str(error)
                self.failed = None if is_conflict else error


# Delta's own rule: a change of rows conflicts with each append to a partition that it has to read. So it names others
# than those that the stream writes to, as the README says.
OLD = "2026-01-01"
STATEMENTS = {
    "optimize": "OPTIMIZE {table}",
    "update": f"UPDATE {{table}} SET event_version = event_version WHERE _event_date = '{OLD}'",
    "delete": f"DELETE FROM {{table}} WHERE _event_date = '{OLD}' AND _kafka_topic = 'other' AND _kafka_offset < 30",
}


@pytest.mark.parametrize(
    ("name", "writer", "has_deletion_vectors"),
    [
        ("optimize", "direct", False),
        ("update", "direct", True),
        ("delete", "direct", False),
        ("update", "delta-spark", True),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in [
                ("optimize", "direct", True),
                ("update", "direct", False),
                ("delete", "direct", True),
                ("optimize", "delta-spark", False),
            ]
        ),
    ],
)
def test_a_stream_beside_others_that_change_its_files_doubles_nothing_and_starves_nobody(
    bronze, topic: Topic, lake: Lake, name: str, writer: str, has_deletion_vectors: bool
):
    topic.produce([make_event(n, event_timestamp=f"{OLD}T00:00:00Z") for n in range(60)], partition=1)
    lake.ingest()
    if has_deletion_vectors:
        enabled = "SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
        lake.spark.sql(f"ALTER TABLE delta.`{lake.config.output_path}` {enabled}")
    add_rows_of_another_topic(lake)
    topic.produce(make_events(300) + BAD)
    maintenance = Maintenance(lake, STATEMENTS[name])
    thread = when(lambda: has_rows(lake, 121), maintenance.run)
    try:
        code, message = bronze("--max-offsets-per-trigger", "15", "--writer", writer)
    finally:
        maintenance.is_over.set()
        thread.join()
    assert code == 0, message
    assert maintenance.failed is None
    assert is_interleaved(lake, name), f"{maintenance.done} done, {maintenance.conflicts} conflicts"
    assert_complete(lake, 60 + 300 + len(BAD))


def is_interleaved(lake: Lake, name: str) -> bool:
    """Whether the stream and the others took turns: a commit of theirs is between two of its appends."""
    history = lake.spark.sql(f"DESCRIBE HISTORY delta.`{lake.config.output_path}`").orderBy("version").collect()
    names = [row["operation"].lower() for row in history]
    begun = names.index("write", names.index("write", names.index("write") + 1) + 1)  # the first two are the test's
    others = [number for number, found in enumerate(names) if found == name]
    return any(begun < number < len(names) - 1 - names[::-1].index("write") for number in others)


def add_rows_of_another_topic(lake: Lake) -> None:
    rows = lake.bronze.withColumn("_kafka_topic", F.lit("other"))
    rows.write.format("delta").mode("append").save(lake.config.output_path)


# 4. Two drivers


def read_last_line(ingestion: Ingestion) -> str:
    return ingestion.log.rstrip().splitlines()[-1]


@pytest.mark.parametrize("writer", ["direct", "delta-spark"])
def test_of_two_drivers_on_one_checkpoint_one_is_refused_without_harm(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion], tmp_path: Path, writer: str
):
    """The first has planned a batch when the second runs it, too, and all others."""
    lake.ingest()
    topic.produce(make_events(300) + BAD)
    config = replace(lake.config, max_offsets_per_trigger=40, writer=writer)
    first = start(config, *GATED, GATE=str(tmp_path / "gate")).wait_for("Gate: batch 1 is planned")
    second = start(config)
    assert second.wait(400) == 0, second.log[-2000:]
    (tmp_path / "gate").touch()
    assert first.wait(400) == 1, first.log[-2000:]
    assert f"another process works with the checkpoint {lake.config.checkpoint_path}" in read_last_line(first)
    assert_complete(lake, 300 + len(BAD))


def test_two_drivers_with_their_own_checkpoints_start_together_on_new_tables(
    topic: Topic, lake: Lake, start: Callable[..., Ingestion]
):
    topic.produce(make_events(300) + BAD)
    small = replace(lake.config, max_offsets_per_trigger=40)
    both = [start(small), start(replace(small, checkpoint_path=f"{small.checkpoint_path}-2"))]
    assert [ingestion.wait(400) for ingestion in both] == [0, 0], [ingestion.log[-2000:] for ingestion in both]
    assert_complete(lake, 300 + len(BAD))
    assert_complete(change_path(lake, "checkpoint_path", Path(f"{small.checkpoint_path}-2")), 300 + len(BAD))


def test_a_table_whose_creation_was_killed_is_created_at_the_next_start(bronze, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    for path in (lake.config.output_path, lake.config.dlq_path):
        Path(path, "_delta_log").mkdir(parents=True)
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS)


# 5. Tables that go away (recreated ones: tests/integration/test_replay.py and test_tables.py)


@pytest.mark.parametrize("writer", ["direct", "delta-spark"])
@pytest.mark.parametrize("name", ["output_path", "dlq_path"])
def test_a_table_that_is_dropped_while_the_stream_runs_ends_it_and_is_not_made_anew(
    bronze, topic: Topic, lake: Lake, tmp_path: Path, name: str, writer: str
):
    topic.produce([*make_events(300), *BAD * 10], partition=0)
    path = Path(getattr(lake.config, name))
    dropping = when(lambda: has_rows(lake, 20), lambda: path.rename(tmp_path / "dropped"))
    code, message = bronze("--max-offsets-per-trigger", "10", "--writer", writer)
    dropping.join()
    assert code == 1, message
    assert "altered, replaced or deleted since this run began" in message or str(path) in message
    assert len(message.splitlines()) == 1
    assert not Path(path, "_delta_log").exists()
    code, message = bronze()
    assert code == 2, message
    assert "give a new --checkpoint-path" in message
    assert writer == "delta-spark" or not path.exists()
    assert not Path(path, "_delta_log").exists()
    shutil.rmtree(path, ignore_errors=True)  # tasks of Spark's own writer may have left files there
    cured = change_path(lake, "checkpoint_path", tmp_path / "new-checkpoint")
    cured.ingest()
    assert_complete(cured, 300 + 10 * len(BAD))


# 6. Files that go away


@pytest.fixture
def audit(lake: Lake, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """``bronze audit``: its exit code, and what it says on standard error."""

    def run() -> tuple[int, str]:
        code = main(["audit", *list_audit_flags(lake)])
        return code, capsys.readouterr().err.strip().rpartition("bronze: ")[2]

    return run


def test_a_data_file_that_is_gone_is_named_and_the_cure_brings_its_rows_back(bronze, audit, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    lake.ingest(max_offsets_per_trigger=20)
    lost = sorted(Path(lake.config.output_path).rglob("part-*.parquet"))[-1]  # of the newest batch
    lost.unlink()
    topic.produce(make_events(60))
    for command in (audit, bronze):
        code, message = command()
        assert code == 1
        assert message.startswith(f"{lost} is gone, though the log of its table refers to it")
        assert len(message.splitlines()) == 1
        assert "nothing was lost" not in message
    table = re.search(r"DeltaTable\('(.+)'\)\.repair\(\)", message)
    DeltaTable(table[1]).repair()
    assert audit()[0] == 5
    test_backfill.run(lake, checkpoint_path=lake.config.checkpoint_path)
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS + 60)


def test_a_vacuum_without_retention_between_two_runs_takes_nothing(bronze, topic: Topic, lake: Lake):
    topic.produce(make_events(60) + BAD)
    lake.ingest(max_offsets_per_trigger=20)
    lake.spark.sql(f"OPTIMIZE delta.`{lake.config.output_path}`").collect()
    vacuum_all(lake)
    topic.produce(make_events(60))
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS + 60)


def vacuum_all(lake: Lake) -> None:
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    lake.spark.conf.set(check, "false")
    try:
        lake.spark.sql(f"VACUUM delta.`{lake.config.output_path}` RETAIN 0 HOURS").collect()
    finally:
        lake.spark.conf.unset(check)


def test_a_vacuum_without_retention_that_takes_a_batch_s_files_before_their_commit_is_noticed(
    bronze, topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce(make_events(60) + BAD)
    lake.ingest()
    topic.produce(make_events(60))
    with monkeypatch.context() as patched:
        test_backfill.let_commit_first(patched, lambda: vacuum_all(lake))
        code, message = bronze("--writer", "direct")
    assert code == 1
    assert "nothing was committed" in message
    assert bronze()[0] == 0
    assert_complete(lake, RECORDS + 60)
