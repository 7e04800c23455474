"""A state machine of everything that may happen to a topic, its tables and their checkpoint; a test runs it.

Each rule is a command of the product, a fault, or an action of the tables' owner. After each, all rows are counted.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from deltalake import DeltaTable
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pyspark.sql import SparkSession

from bronze import audit, backfill, ingest, maintain, replay
from bronze.config import AuditConfig, BackfillConfig, CheckpointConfig, IngestConfig, MaintainConfig, ReplayConfig
from bronze.delta.own_table import OwnTable
from bronze.errors import ConfigError, DataLossError
from bronze.ops.checkpoint import inspect_checkpoint as report_checkpoint
from sandbox.topics import create_topic, fetch_bounds
from tests.support.events import BAD, make_event
from tests.support.plain_count import Count, Facts, assert_agrees, count_rows

DAY = 86_400
KEPT_DAYS = 365
WRITERS = st.sampled_from(["direct", "delta-spark"])
SHARES = st.sampled_from([0.0, 0.3, 0.6, 1.0])
PARTITIONS = st.integers(0, 1)
DLQS = ("dlq", "other-dlq", "")
WARNINGS = ("the tables lack records that were committed", "was restored to an earlier version")
MOST_PARTITIONS = 3
AUDIT_EVERY = 3


class Messages(logging.Handler):
    """Keeps the log records."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    @property
    def has_warned(self) -> bool:
        return any(warning in text for warning in WARNINGS for text in self.texts)


@contextmanager
def listen() -> Iterator[Messages]:
    """Capture the product's log."""
    messages, logger = Messages(), logging.getLogger("bronze")
    logger.addHandler(messages)
    try:
        yield messages
    finally:
        logger.removeHandler(messages)


@contextmanager
def at_commit(number: int, act: Callable[[Callable[[], None]], None]) -> Iterator[list[str]]:
    """Do something instead of one commit, which is passed to it; yield the tables that were committed to until then."""
    original, seen = OwnTable.commit, []

    def commit(table: OwnTable, rows: Any, note: Any) -> None:
        seen.append(table.path)
        if len(seen) == number:
            act(lambda: original(table, rows, note))
        else:
            original(table, rows, note)

    OwnTable.commit = commit  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        OwnTable.commit = original  # type: ignore[method-assign]


def crash(is_before: bool) -> Callable[[Callable[[], None]], None]:
    """A crash before or after a commit."""

    def act(commit: Callable[[], None]) -> None:
        if not is_before:
            commit()
        raise OSError("power cut")

    return act


def has_changed_dlq(error: Exception) -> bool:
    """Whether a command ended because another run had changed the DLQ of bronze."""
    return isinstance(error, ConfigError) and "another run has changed where the invalid records" in str(error)


@dataclass
class Source:
    """The topic, and its state on the broker."""

    brokers: str
    name: str = field(default_factory=lambda: f"machine-{uuid4().hex[:8]}")
    count: int = 0

    def __post_init__(self) -> None:
        create_topic(self.brokers, self.name, 2)
        self._admin = AdminClient({"bootstrap.servers": self.brokers})

    def produce(self, partition: int, valid: int, invalid: int, transaction: str = "") -> set[tuple[int, int]]:
        """Produce records, optionally in a transaction that is committed or aborted; return their positions."""
        delivered: set[tuple[int, int]] = set()
        settings = {"transactional.id": f"{self.name}-{time.monotonic()}"} if transaction else {}
        producer = Producer({"bootstrap.servers": self.brokers, **settings})
        if transaction:
            producer.init_transactions(30)
            producer.begin_transaction()
        values = [make_event(self.count + number) for number in range(valid)]
        values += [BAD[(self.count + number) % len(BAD)] for number in range(invalid)]
        self.count += len(values)
        for value in values:
            producer.produce(
                self.name, value, partition=partition, on_delivery=lambda _, m: delivered.add((partition, m.offset()))
            )
        assert producer.flush(30) == 0
        if transaction:
            producer.commit_transaction(30) if transaction == "commit" else producer.abort_transaction(30)
        assert len(delivered) == len(values)
        return set() if transaction == "abort" else delivered

    def list_offsets(self) -> dict[int, tuple[int, int]]:
        """First and end offset of each partition."""
        return fetch_bounds(self.brokers, self.name)

    def delete_before(self, partition: int, offset: int) -> None:
        for future in self._admin.delete_records([TopicPartition(self.name, partition, offset)]).values():
            future.result()

    def add_partition(self) -> None:
        count = len(self.list_offsets()) + 1
        for future in self._admin.create_partitions([NewPartitions(self.name, count)]).values():
            future.result()
        end = time.monotonic() + 30
        while len(self.list_offsets()) < count:
            assert time.monotonic() < end
            time.sleep(0.1)


class IngestionMachine(RuleBasedStateMachine):
    """Sequences of commands and faults on one topic; subclasses provide Kafka, Spark and an empty folder."""

    brokers: str
    spark: SparkSession
    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.source, self.facts = Source(self.brokers), Facts()
        self.folder = self.root / self.source.name
        self.config = IngestConfig(
            kafka_brokers=self.brokers,
            kafka_topic=self.source.name,
            checkpoint_path=self.path("checkpoint"),
            output_path=self.path("bronze"),
            dlq_path=self.path("dlq"),
            available_now=True,
            max_offsets_per_trigger=6,
        )
        self.prepared: dict[str, int] = {}  # tables whose properties were set, and their version at that time
        self.commits: dict[Path, float] = {}  # commits of the tables' logs, and when they were made
        self.rolled_back: set[tuple[int, int]] = set()  # removed by RESTORE, until a run has warned about it
        self.steps = 0
        self.is_sound, self.is_audited = True, False

    # 1. Shared by the rules

    def path(self, name: str) -> str:
        return str(self.folder / name) if name else ""

    def configure(self, kind: type, **changes: Any) -> Any:
        shared = {f.name for f in fields(kind)} & {f.name for f in fields(self.config)}
        return kind(**{name: getattr(self.config, name) for name in shared} | changes)

    def count(self) -> Count:
        return count_rows(self.config.output_path, [self.path(name) for name in DLQS if name])

    def look_at_kafka(self) -> dict[int, tuple[int, int]]:
        offsets = self.source.list_offsets()
        self.facts.starts = {p: first for p, (first, _) in offsets.items()}
        return offsets

    def run(
        self,
        command: Callable[[], Any],
        is_expected: Callable[[Exception], bool] = lambda _: False,
        refuses_holes: bool = False,
    ) -> Exception | None:
        """Run a command that appends; return the error that ended it, if any.

        Args:
            command: It must warn about records that RESTORE removed.
            is_expected: Whether the rule itself caused an error; otherwise, only a known loss may end the command.
            refuses_holes: Whether such a loss must end it.
        """
        self.look_at_kafka()
        before = self.count()
        lacking, deleted = self.rolled_back - before.present, self.facts.find_deleted(before)
        holes, behind = self.facts.find_holes(before), self.facts.find_behind(self.folder / "checkpoint")
        error: Exception | None = None
        with listen() as messages:
            try:
                command()
            except Exception as raised:
                error = raised
        is_deleted = isinstance(error, DataLossError) and str(error).startswith("Kafka has deleted records")
        is_loss = is_deleted and bool(deleted or behind)
        if error is not None and not is_loss and not is_expected(error):
            raise error
        assert messages.has_warned or not lacking, f"no warning of {sorted(lacking)}: {messages.texts}"
        self.rolled_back = set()
        is_refused = is_deleted and "of the range" not in str(error)
        assert is_refused or not (holes and refuses_holes), f"began over {sorted(holes)}: {error!r}"
        return error

    def ingest(self, **changes: Any) -> None:
        ingest(replace(self.config, **changes), self.spark)

    def backfill(self, start: float, end: float, **changes: Any) -> None:
        """Backfill a part of the offsets that Kafka holds, in each partition."""
        held = self.look_at_kafka()
        spans = {
            p: [first + round(share * (last - first)) for share in (start, end)] for p, (first, last) in held.items()
        }
        spans = {p: sorted(span) for p, span in spans.items() if span[0] != span[1]}
        if not spans:
            return
        first, last = (json.dumps({self.source.name: {p: span[n] for p, span in spans.items()}}) for n in (0, 1))
        options = {"starting_offsets": first, "ending_offsets": last, "checkpoint_path": "", **changes}
        backfill(self.configure(BackfillConfig, **options), self.spark)
        self.facts.read |= {(p, offset) for p, span in spans.items() for offset in range(*span)}

    def prepare_tables(self) -> None:
        """Give new tables a log retention in a form that deltalake parses differently, and a checkpoint interval."""
        for path in filter(None, map(self.path, ("bronze", *DLQS))):
            if path not in self.prepared and DeltaTable.is_deltatable(path):
                self.spark.sql(
                    f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.checkpointInterval' = '6', "
                    f"'delta.enableExpiredLogCleanup' = 'true', "
                    f"'delta.logRetentionDuration' = 'INTERVAL {KEPT_DAYS} DAYS')"
                )
                self.prepared[path] = DeltaTable(path).version()

    def list_versions(self, path: str) -> list[int]:
        """Versions of a table that can be restored."""
        names = [file.name for file in Path(path, "_delta_log").iterdir()]
        kept = {int(name[:20]) for name in names if name.endswith(".json") and name[:20].isdecimal()}
        checkpoints = [int(name[:20]) for name in names if ".checkpoint" in name and name[:20].isdecimal()]
        first = 0 if 0 in kept else min(checkpoints)
        return [version for version in sorted(kept) if version >= max(first, self.prepared[path])]

    # 2. Records

    @initialize()
    def begin(self) -> None:
        """The first run, so that the start of the ingestion is known."""
        self.ingest()

    @rule(
        partition=PARTITIONS,
        valid=st.integers(1, 6),
        invalid=st.integers(0, 3),
        transaction=st.sampled_from(["", "", "commit", "abort"]),
    )
    def produce(self, partition: int, valid: int, invalid: int, transaction: str) -> None:
        self.facts.records |= self.source.produce(partition, valid, invalid, transaction)

    @precondition(lambda self: len(self.facts.starts) < MOST_PARTITIONS)
    @rule()
    def add_partition(self) -> None:
        self.source.add_partition()
        newest = max(self.look_at_kafka())
        self.facts.records |= self.source.produce(newest, 4, 1)

    @rule(partition=PARTITIONS, share=SHARES)
    def delete_in_kafka(self, partition: int, share: float) -> None:
        first, end = self.look_at_kafka()[partition]
        self.source.delete_before(partition, first + round(share * (end - first)))

    # 3. Commands

    @rule(writer=WRITERS, valid=st.integers(0, 5), invalid=st.integers(0, 3), accept=st.booleans())
    def ingest_all(self, writer: str, valid: int, invalid: int, accept: bool) -> None:
        self.facts.records |= self.source.produce(0, valid, invalid)
        error = self.run(lambda: self.ingest(writer=writer), refuses_holes=True)
        if error is not None and accept:
            given_up = self.facts.find_deleted(self.count())
            assert self.run(lambda: self.ingest(writer=writer, fail_on_data_loss=False)) is None
            self.facts.accepted |= given_up - self.count().present

    @rule(writer=WRITERS, start=SHARES, end=SHARES)
    def backfill_some(self, writer: str, start: float, end: float) -> None:
        self.run(lambda: self.backfill(start, end, writer=writer))

    @rule(writer=WRITERS, odd=st.integers(0, 1), name=st.sampled_from(DLQS[:2]))
    def replay(self, writer: str, odd: int, name: str) -> None:
        """Some invalid records become valid, as if the schema had changed; then the DLQ is replayed."""
        if self.path(name) in self.prepared:
            value = make_event(1).hex()
            condition = f"_kafka_offset % 2 = {odd}"
            table = f"delta.`{self.path(name)}`"
            self.spark.sql(f"UPDATE {table} SET _raw_bytes = unhex('{value}') WHERE {condition}")
            config = self.configure(ReplayConfig, writer=writer, dlq_path=self.path(name))
            self.run(lambda: replay(config, self.spark))

    @rule(hours=st.sampled_from([0, 2]), days=st.sampled_from([0, 60, 500]), share=SHARES)
    def maintain(self, hours: int, days: int, share: float) -> None:
        """Maintenance, also of an old log."""
        if days:
            self.make_old(days, share)
        maintain(self.configure(MaintainConfig, optimize_after_hours=hours), self.spark)

    def make_old(self, days: int, share: float) -> None:
        for path in self.prepared:
            folder, newest = Path(path, "_delta_log"), DeltaTable(path).version()
            for file in folder.iterdir():
                if file.name[:20].isdecimal() and int(file.name[:20]) < share * newest:
                    made = time.time() - days * DAY + int(file.name[:20])
                    os.utime(file, (made, min(made, file.stat().st_mtime)))
        self.check_logs()

    @rule(writer=WRITERS, name=st.sampled_from(DLQS), by_backfill=st.booleans())
    def change_dlq(self, writer: str, name: str, by_backfill: bool) -> None:
        path = self.path(name)
        if path == self.config.dlq_path:
            return
        versions = self.list_table_versions()
        command = (lambda **changes: self.backfill(0, 1, **changes)) if by_backfill else self.ingest
        if not (by_backfill and all(first == end for first, end in self.look_at_kafka().values())):
            try:
                command(writer=writer, dlq_path=path)
                raise AssertionError("another DLQ was not refused")
            except ConfigError as refused:
                if "and this run has" not in str(refused):
                    raise
                assert self.list_table_versions() == versions
            changed = {"writer": writer, "dlq_path": path, "change_dlq": True}
            error = self.run(lambda: command(**changed), refuses_holes=not by_backfill)
            if error is None:
                self.config = replace(self.config, dlq_path=path)

    def list_table_versions(self) -> dict[str, int]:
        paths = [path for path in map(self.path, ("bronze", *DLQS[:2])) if DeltaTable.is_deltatable(path)]
        return {path: DeltaTable(path).version() for path in paths}

    # 4. Faults

    @rule(
        writer=WRITERS,
        number=st.integers(1, 5),
        is_before=st.booleans(),
        by_backfill=st.booleans(),
        valid=st.integers(1, 6),
        invalid=st.integers(1, 3),
    )
    def crash_at_a_commit(
        self, writer: str, number: int, is_before: bool, by_backfill: bool, valid: int, invalid: int
    ) -> None:
        self.facts.records |= self.source.produce(1, valid, invalid)
        with at_commit(number, crash(is_before)):
            command = self.ingest if not by_backfill else lambda **changes: self.backfill(0, 1, **changes)
            self.run(lambda: command(writer=writer), lambda error: "power cut" in str(error), not by_backfill)

    @rule(
        writer=WRITERS,
        other=WRITERS,
        number=st.integers(1, 4),
        name=st.sampled_from([None, None, *DLQS]),
        is_backfill=st.booleans(),
        share=SHARES,
    )
    def run_two_at_once(
        self, writer: str, other: str, number: int, name: str | None, is_backfill: bool, share: float
    ) -> None:
        """Just before one run commits, another one runs from start to end."""
        self.facts.records |= self.source.produce(0, 3, 2) | self.source.produce(1, 3, 2)
        path = self.config.dlq_path if name is None else self.path(name)
        is_changed = path != self.config.dlq_path
        done = []

        def interfere(commit: Callable[[], None]) -> None:
            self.backfill(0, max(share, 0.3), writer=other, dlq_path=path, change_dlq=is_changed)
            done.append(path)
            commit()

        with at_commit(number, interfere):
            command = (lambda **changes: self.backfill(0, 1, **changes)) if is_backfill else self.ingest
            error = self.run(lambda: command(writer=writer), lambda error: is_changed and has_changed_dlq(error))
        if done:
            assert error is not None or not is_changed, "the change of the DLQ was not noticed"
            self.config = replace(self.config, dlq_path=path)

    @rule(action=st.sampled_from(["remove", "back up", "restore", "restore", "replace"]))
    def change_checkpoint(self, action: str) -> None:
        checkpoint, backup, other = (self.folder / name for name in ("checkpoint", "backup", "other"))
        if action == "back up" and checkpoint.exists():
            shutil.rmtree(backup, ignore_errors=True)
            shutil.copytree(checkpoint, backup)
        elif action == "remove":
            shutil.rmtree(checkpoint, ignore_errors=True)
        elif action == "restore" and backup.exists():
            shutil.rmtree(checkpoint, ignore_errors=True)
            shutil.copytree(backup, checkpoint)
        elif action == "replace" and checkpoint.exists():
            between = checkpoint.rename(self.folder / "between")
            if other.exists():
                other.rename(checkpoint)
            between.rename(other)

    @rule(name=st.sampled_from(["bronze", "bronze", *DLQS[:2]]), share=SHARES, asks=st.booleans())
    def restore(self, name: str, share: float, asks: bool) -> None:
        """The owner restores a table, and may ask bronze checkpoint about it."""
        path = self.path(name)
        if path not in self.prepared:
            return
        before, versions = self.count(), self.list_versions(path)
        version = versions[round(share * (len(versions) - 1))]
        self.spark.sql(f"RESTORE TABLE delta.`{path}` TO VERSION AS OF {version}")
        after = self.count()
        self.facts.tolerated |= after.wrong
        taken = (before.present - after.present) & self.facts.read - self.facts.accepted
        self.rolled_back |= taken
        if asks and taken and self.has_checkpoint:
            assert report_checkpoint(self.configure(CheckpointConfig), self.spark).disagreement

    # 5. Invariants after each step

    @property
    def has_checkpoint(self) -> bool:
        """Whether the checkpoint has a planned batch."""
        return Path(self.config.checkpoint_path, "sources", "0", "0").exists()

    @invariant()
    def every_position_is_counted(self) -> None:
        self.is_sound = False
        self.look_at_kafka()
        count = self.count()
        assert count.wrong <= self.facts.tolerated, f"twice: {sorted(count.wrong - self.facts.tolerated)}"
        assert count.present <= self.facts.records, "rows without a record"
        self.facts.note(count)
        self.facts.note_checkpoint(self.folder / "checkpoint")
        self.prepare_tables()
        self.check_logs()
        self.steps += 1
        self.is_audited = self.steps % AUDIT_EVERY == 0
        if self.is_audited:
            self.check_audit()
        self.is_sound = True

    def check_logs(self) -> None:
        """Commits that are younger than the retention still exist."""
        for file, made in self.commits.items():
            assert file.exists() or made < time.time() - KEPT_DAYS * DAY, f"{file} is gone"
        files = (file for path in self.prepared for file in Path(path, "_delta_log").glob("*.json"))
        self.commits = {file: file.stat().st_mtime for file in files}

    def check_audit(self) -> None:
        path = self.config.checkpoint_path if self.has_checkpoint else ""
        report = audit(self.configure(AuditConfig, checkpoint_path=path), self.spark)
        assert_agrees(report, self.facts, self.count(), bool(path))

    def teardown(self) -> None:
        try:
            if self.is_sound and not self.is_audited:
                self.check_audit()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
