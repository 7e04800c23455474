"""DLQ records that are now valid are appended to bronze once, as the ingestion would have written them."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bronze.cli import main
from bronze.config import AuditConfig, InspectConfig, ReplayConfig
from bronze.decode import Invalid
from bronze.delta.commit import Source
from bronze.delta.dlq import read_dlq
from bronze.delta.own_table import OwnTable
from bronze.errors import BronzeError, ConfigError
from bronze.notebook import dlq
from bronze.notebook.cells import wrap_cells
from bronze.offsets import OffsetSet
from bronze.ops import replay
from bronze.ops.replay import ReplayReport
from bronze.pipeline import Pipeline
from bronze.schema import get_bronze_spec, get_dlq_spec
from bronze.transforms import build_dlq
from bronze.writers import DirectWriter
from tests.support.builders import INGESTED_AT, KAFKA_TIME, create_table, make_records
from tests.support.commands import list_fields, list_flags
from tests.support.events import make_event, make_events
from tests.support.lake import WRITERS, Lake
from tests.support.schema_change import change_schema, migrate_bronze, run_changed
from tests.support.topic import Topic

INVALID = Invalid("schema_mismatch", "Expected `int`, got `str` - at `$.response.status_code`")
NOT_UTF8 = Invalid("invalid_utf8", "byte 0 (0xff): invalid start byte")
STILL_BAD = [None, b"", b"\xff\xfe", b"{", make_event(tenant_id=""), make_event(response={"status_code": "x"})]


@dataclass(frozen=True)
class Waiting:
    """Two tables; the DLQ holds records that a stricter schema would have refused."""

    spark: SparkSession
    output_path: str
    dlq_path: str

    def fill(
        self, values: Sequence[bytes | None], partition: int = 0, first: int = 0, error: Invalid = INVALID
    ) -> None:
        """Append records to the DLQ, with the error unless they are not UTF-8."""
        count = len(values)
        errors = [NOT_UTF8 if {0xFE, 0xFF} & {*(value or b"")} else error for value in values]
        records = make_records(values, [partition] * count, list(range(first, first + count)))
        write_deltalake(self.dlq_path, build_dlq(records, errors, 0, INGESTED_AT), mode="append")

    def replay(self, **changes: Any) -> ReplayReport:
        return replay.replay(self.configure(ReplayConfig, **changes), self.spark)

    def configure(self, kind: type, **changes: Any):
        return kind(output_path=self.output_path, dlq_path=self.dlq_path, kafka_topic="events", **changes)

    @property
    def bronze(self) -> DataFrame:
        return self.spark.read.format("delta").load(self.output_path)

    def positions(self) -> list[tuple[int, int]]:
        return sorted(tuple(row) for row in self.bronze.select("_kafka_partition", "_kafka_offset").collect())


@pytest.fixture
def waiting(tmp_path: Path, spark: SparkSession) -> Waiting:
    bronze = create_table(tmp_path / "bronze", get_bronze_spec())
    return Waiting(spark, bronze, create_table(tmp_path / "dlq", get_dlq_spec()))


def test_an_invalid_record_never_gets_into_bronze_whatever_the_plan_says(waiting: Waiting):
    waiting.fill([*make_events(2), b"{"])
    config = waiting.configure(ReplayConfig)
    source = Source("replay", "app", config.kafka_topic, OffsetSet({0: [(0, 2)]}))
    with Pipeline.open(config, waiting.spark) as pipeline:
        writer = DirectWriter(waiting.output_path)
        counts = replay.append_positions(pipeline, config, writer, source, 0, (INGESTED_AT + 1_000) / 1e6)
    assert (counts.valid, counts.by_error_type) == (2, {"malformed_json": 1})
    assert (waiting.positions(), DeltaTable(waiting.dlq_path).count()) == ([(0, 0), (0, 1)], 3)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_valid_now_is_replayed_once_and_the_rest_stays_open(waiting: Waiting, writer: str, bronze_log):
    waiting.fill(make_events(20) + STILL_BAD)
    waiting.fill(make_events(5), partition=3, first=70_000)
    before = DeltaTable(waiting.dlq_path).version()
    report = waiting.replay(writer=writer, max_records=10)
    assert report.counts == {"replayed_before": 0, "open": 31, "valid_now": 25, "still_failing": 6, "appended": 25}
    assert report.batches == 3
    assert [line["counts"]["valid"] for line in list_fields(bronze_log, "replay")] == [10, 10, 5]
    assert waiting.positions() == [(0, n) for n in range(20)] + [(3, 70_000 + n) for n in range(5)]
    again = waiting.replay(writer=writer)
    assert again.counts == {"replayed_before": 25, "open": 6, "valid_now": 0, "still_failing": 6, "appended": 0}
    assert len(waiting.positions()) == 25
    assert DeltaTable(waiting.dlq_path).version() == before


def test_the_report_says_why_the_others_still_fail(waiting: Waiting):
    waiting.fill(STILL_BAD + [b'{"a": 1', b"[", b"\xff"])
    report = waiting.replay()
    found = {(row["error type"], row["records"]) for _, row in report.details.iterrows()}
    assert ("invalid_utf8", 2) in found  # byte 0 of different values: the same detail
    assert report.details["records"].sum() == 9
    assert "9 still fail and stay open" in report.to_text()
    assert "Expected `int | null`, got `str` - at `$.response.status_code`" in report.to_text()


def test_a_dry_run_says_the_same_and_writes_nothing(waiting: Waiting):
    waiting.fill(make_events(5) + STILL_BAD)
    version = DeltaTable(waiting.output_path).version()
    report = waiting.replay(dry_run=True)
    assert report.counts == {"replayed_before": 0, "open": 11, "valid_now": 5, "still_failing": 6, "appended": 0}
    assert "Dry run: 5 records would be replayed; 6 still fail" in report.to_text()
    assert DeltaTable(waiting.output_path).version() == version


def test_filters_choose_what_is_replayed(waiting: Waiting):
    waiting.fill(make_events(3))
    waiting.fill(make_events(2), partition=1, first=6, error=Invalid("missing_required", "was required"))

    def plan(**filters: str) -> OffsetSet:
        return waiting.replay(dry_run=True, **filters).valid

    assert plan(error_type="schema_mismatch,empty") == {0: [(0, 2)]}
    assert plan(offsets='{"0": [[1, 1]], "1": [[7, 9]]}') == {0: [(1, 1)], 1: [(7, 7)]}
    assert plan(start_timestamp="2026-06-01T12:00:05.001Z") == {}
    assert plan(end_timestamp="2026-06-01T14:00:05+02:00") == {}
    assert plan(start_timestamp="2026-06-01T14:00:05+02:00", offsets='{"0": [[2, 5]]}') == {0: [(2, 2)]}


def test_only_what_the_filters_leave_is_appended(waiting: Waiting):
    waiting.fill(make_events(9))
    waiting.fill(make_events(9), first=9, error=Invalid("missing_required", "was required"))
    waiting.replay(error_type="missing_required", offsets='{"0": [[3, 10], [12, 12], [16, 40]]}')
    assert waiting.positions() == [(0, 9), (0, 10), (0, 12), (0, 16), (0, 17)]


def test_other_topics_of_the_same_tables_are_left_alone(waiting: Waiting):
    waiting.fill(make_events(3))
    report = replay.replay(
        ReplayConfig(output_path=waiting.output_path, dlq_path=waiting.dlq_path, kafka_topic="another"), waiting.spark
    )
    assert (report.counts["open"], waiting.positions()) == (0, [])
    assert "no such records" in report.to_text()


def test_a_position_that_the_dlq_has_twice_is_replayed_once(waiting: Waiting):
    waiting.fill(make_events(4))
    waiting.fill(make_events(4))
    assert waiting.replay().appended == 4
    assert waiting.positions() == [(0, n) for n in range(4)]


def test_replayed_rows_are_those_that_ingestion_writes(topic: Topic, lake: Lake, tmp_path: Path):
    """Records that are put into a DLQ and replayed become the same rows as from an ingestion."""
    topic.produce(make_events(30))
    lake.ingest()
    other = Waiting(
        lake.spark,
        create_table(tmp_path / "replayed" / "bronze", get_bronze_spec()),
        create_table(tmp_path / "replayed" / "dlq", get_dlq_spec()),
    )
    dlq_rows = lake.bronze.select(
        F.encode("_raw_value", "utf-8").alias("_raw_bytes"),
        "_raw_value",
        F.lit(None).cast("binary").alias("_kafka_key"),
        *("_kafka_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_ingested_at"),
        F.lit("schema_mismatch").alias("_error_type"),
        F.lit("made up").alias("_error_detail"),
        F.lit(0).cast("long").alias("_batch_id"),
        F.to_date("_ingested_at").alias("_dlq_date"),
    )
    dlq_rows.write.format("delta").mode("append").save(other.dlq_path)
    config = ReplayConfig(output_path=other.output_path, dlq_path=other.dlq_path, kafka_topic=topic.name)
    assert replay.replay(config, lake.spark).appended == 30
    same = [name for name in lake.bronze.columns if name != "_ingested_at"]
    key = ["_kafka_partition", "_kafka_offset"]
    rows, expected = (frame.orderBy(*key).select(same).collect() for frame in (other.bronze, lake.bronze))
    assert rows == expected
    assert other.bronze.agg(F.min("_ingested_at")).first()[0] > lake.bronze.agg(F.max("_ingested_at")).first()[0]


def test_a_replay_is_later_than_the_dlq_of_a_clock_that_was_ahead(waiting: Waiting):
    hour = 3_600_000_000
    records = make_records(make_events(2), timestamps=[KAFKA_TIME, None])
    rows = build_dlq(records, [INVALID] * 2, 0, int(time.time() * 1_000) * 1_000 + hour)
    write_deltalake(waiting.dlq_path, rows, mode="append")
    waiting.replay()
    frames = [waiting.spark.read.format("delta").load(path) for path in (waiting.output_path, waiting.dlq_path)]
    bronze, waited = (frame.agg(F.max("_ingested_at")).first()[0] for frame in frames)
    assert bronze > waited


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int, action: Any) -> None:
    """Do something just before the replay's commit with that number."""
    commit, seen = OwnTable.commit, []

    def act_then_commit(table: OwnTable, *arguments: Any) -> None:
        seen.append(table)
        if len(seen) == number:
            action()
        commit(table, *arguments)

    monkeypatch.setattr(OwnTable, "commit", act_then_commit)


def test_two_replays_at_once_add_each_record_once(waiting: Waiting, monkeypatch: pytest.MonkeyPatch):
    waiting.fill(make_events(20))
    others: list[ReplayReport] = []
    interrupt_at(monkeypatch, 2, lambda: others.append(waiting.replay(max_records=15)))
    report = waiting.replay(max_records=10)
    assert (report.appended, others[0].appended) == (10, 10)
    assert waiting.positions() == [(0, n) for n in range(20)]
    assert "10 by other runs meanwhile" in report.verdict


def test_an_interrupted_replay_is_completed_by_the_next(waiting: Waiting, monkeypatch: pytest.MonkeyPatch):
    def cut_power() -> None:
        raise OSError("power cut")

    waiting.fill(make_events(20))
    with monkeypatch.context() as broken:
        interrupt_at(broken, 2, cut_power)
        with pytest.raises(BronzeError, match="^failed: .*power cut"):
            waiting.replay(max_records=10)
    assert len(waiting.positions()) == 10
    assert waiting.replay().appended == 10
    assert waiting.positions() == [(0, n) for n in range(20)]


def test_a_stream_that_commits_during_a_replay_and_a_restart_from_scratch_double_nothing(
    topic: Topic, lake: Lake, monkeypatch: pytest.MonkeyPatch
):
    topic.produce([*make_events(5), b"{"], partition=0)
    lake.ingest()
    mend_dlq(lake)
    topic.produce(make_events(4, first=10), partition=0)
    interrupt_at(monkeypatch, 1, lake.ingest)
    assert replay.replay(lake.configure(ReplayConfig), lake.spark).appended == 1
    assert lake.bronze.count() == 10
    shutil.rmtree(lake.config.checkpoint_path)
    assert (lake.ingest().counts.present, lake.bronze.count()) == (10, 10)


def mend_dlq(lake: Lake) -> None:
    """Make the values in the DLQ valid, as if the schema had changed."""
    value = make_event(99).decode().replace("'", "")
    lake.spark.sql(f"UPDATE delta.`{lake.config.dlq_path}` SET _raw_bytes = CAST('{value}' AS BINARY)").collect()


def test_missing_tables_are_named(waiting: Waiting, tmp_path: Path):
    config = ReplayConfig(output_path=waiting.output_path, dlq_path=str(tmp_path / "nothing"), kafka_topic="events")
    with pytest.raises(ConfigError, match="--dlq-path: there is no table at .*nothing; ingest first"):
        replay.replay(config, waiting.spark)
    with pytest.raises(ConfigError, match="--output-path: there is no table at .*; ingest first"):
        replay.replay(
            ReplayConfig(output_path=str(tmp_path / "none"), dlq_path=waiting.dlq_path, kafka_topic="events"),
            waiting.spark,
        )


# A schema change: `response.status_code` was an int and is a string now.

CHANGED = 1_000


def test_after_a_schema_change_the_dlq_is_replayed_and_the_audit_is_complete(topic: Topic, lake: Lake, tmp_path: Path):
    new = [make_event(number, response={"status_code": str(200 + number % 5)}) for number in range(CHANGED)]
    topic.produce(make_events(50) + new + STILL_BAD[:4])
    lake.ingest()
    assert (lake.bronze.count(), lake.dlq.count()) == (50, CHANGED + 4)
    environment = change_schema(tmp_path)
    replay = ["replay", *list_flags(lake.configure(ReplayConfig))]
    audit = ["audit", *list_flags(lake.configure(AuditConfig))]
    refused = run_changed(environment, replay)
    assert refused.stdout == "[2]\n"
    assert "column response.status_code: expected string, found int" in refused.stderr
    migrate_bronze(lake)
    done = run_changed(environment, replay, replay, audit)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0]", done.stderr
    assert "1,000 records were replayed in 1 batches; 4 still fail and stay open" in done.stdout
    assert "0 records were replayed in 0 batches; 4 still fail and stay open" in done.stdout
    assert "(1,050 in bronze, 1,004 in the DLQ, of which 1,000 have been replayed); lag 0" in done.stdout
    codes = lake.bronze.groupBy("response.status_code").count().collect()
    assert {row[0]: row[1] for row in codes} == {"200": 250} | {str(200 + n): 200 for n in range(1, 5)}
    found = lake.bronze.select("_kafka_partition", "_kafka_offset")
    assert (found.count(), found.distinct().count()) == (50 + CHANGED, 50 + CHANGED)


# The inspection of the DLQ.


def test_counts_and_details_tell_open_from_replayed(waiting: Waiting):
    waiting.fill(make_events(3))
    waiting.replay()
    waiting.fill(STILL_BAD[:2], first=10, error=Invalid("invalid_timestamp", "Expected x, got 'a' - at `$.e`"))
    waiting.fill(STILL_BAD[:1], first=20, error=Invalid("invalid_timestamp", 'Expected x, got "b\'c" - at `$.e`'))
    rows = read_dlq(waiting.spark, waiting.configure(InspectConfig))
    counted = dlq.count_error_types(rows)[["records", "open", "replayed"]].to_dict("index")
    assert counted["schema_mismatch"] == {"records": 3, "open": 0, "replayed": 3}
    assert counted["invalid_timestamp"] == {"records": 3, "open": 3, "replayed": 0}
    details = {row["detail"]: row["records"] for _, row in dlq.list_details(rows).iterrows()}
    assert details == {INVALID.error_detail: 3, "Expected x, got … - at `$.e`": 3}
    assert len(dlq.plot_over_time(rows).axes[0].containers) == 2
    assert len(dlq.plot_partitions(rows).axes[0].containers) == 2


def test_an_empty_dlq_is_shown_as_such(waiting: Waiting):
    config = waiting.configure(InspectConfig)
    rows = read_dlq(waiting.spark, config)
    shown = [
        dlq.count_error_types(rows),
        dlq.list_details(rows),
        dlq.list_samples(waiting.spark, config),
    ]
    assert [len(frame) for frame in shown] == [0, 0, 0]
    assert dlq.plot_over_time(rows).axes
    assert dlq.plot_partitions(rows).axes
    assert len(dlq.report_drift(waiting.spark, config)) == 0


def test_samples_are_the_newest_of_each_type_masked_and_cut(waiting: Waiting):
    secret = "192.0.2.77"
    waiting.fill([make_event(n, client={"ip_address": secret}) for n in range(5)] + [f"x{secret}".encode()])
    waiting.fill([None], first=9, error=Invalid("tombstone", "the value is null"))
    config = waiting.configure(
        InspectConfig, mask_fields="client.ip_address", sample_count=10, sample_length=200, drift_records=100
    )
    samples = dlq.list_samples(waiting.spark, config)
    assert len(samples) == 7
    assert samples["value"].map(len).max() == 201
    shown = samples.to_string(max_colwidth=None) + dlq.report_drift(waiting.spark, config).to_string(max_colwidth=None)
    assert secret not in shown
    assert "***" in shown or "…" in shown
    assert len(dlq.list_samples(waiting.spark, waiting.configure(InspectConfig, sample_count=1))) == 2


def test_html_in_a_value_is_shown_as_text():
    shown = wrap_cells(pd.DataFrame({"value": ["<script>alert(1)</script>" + "x" * 300]})).to_html()
    assert "<script>" not in shown
    assert "x" * 300 in shown


def test_drift_is_counted_in_both_tables(waiting: Waiting):
    waiting.fill([make_event(n, region="eu") for n in range(4)])
    waiting.replay()
    waiting.fill([make_event(n, response={"status_code": "200"}, region="us") for n in range(3)] + [b"\xff"], first=10)
    frame = dlq.report_drift(waiting.spark, waiting.configure(InspectConfig)).set_index("field")
    assert list(frame.columns) == ["type in the schema", "type found", "of 8 in the DLQ", "of 4 in bronze", "example"]
    assert frame.loc["region"].tolist() == ["no such field", "string", 7, 4, '"eu"']
    assert frame.loc["response.status_code"].tolist() == ["int", "string", 3, 0, '"200"']
    assert frame.loc["(the whole value)"].tolist() == ["a JSON object", "anything else", 1, 0, ""]


def test_values_of_the_sandbox_s_every_kind_survive_the_inspection(waiting: Waiting):
    deep = b'{"client": ' + b"[" * 50_000
    waiting.fill([deep, b"\x00\x01\xfe", json.dumps({"a": "\ud800"}).encode(), b'{"a": 1e999999}', b"9" * 5_000])
    config = waiting.configure(InspectConfig, mask_fields="client", sample_count=9)
    assert len(dlq.list_samples(waiting.spark, config)) == 5
    assert len(dlq.report_drift(waiting.spark, config)) >= 1


def test_the_command_prints_the_report(waiting: Waiting, capsys: pytest.CaptureFixture[str]):
    waiting.fill(make_events(2) + [b"{"])
    flags = ["--output-path", waiting.output_path, "--dlq-path", waiting.dlq_path, "--kafka-topic", "events"]
    assert main(["replay", *flags, "--dry-run"]) == 0
    assert "Dry run: 2 records would be replayed; 1 still fail and stay open" in capsys.readouterr().out
    assert main(["replay", *flags, "--error-type", "none"]) == 2
