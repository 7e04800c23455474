"""Binds a bronze table to one DLQ per topic, by table id, until ``--change-dlq`` changes it.

The binding is noted in bronze's ledger, in the DLQ's commits and in the checkpoint. Records of a previous DLQ still
count for the overlap guard and the audit.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from pyspark.sql import SparkSession

from bronze.delta.ledger import Place, TopicLedger
from bronze.delta.tables import OWN_PROPERTIES, CheckedTable, TableState, read_table_state
from bronze.errors import ConfigError, NotADeltaTableError
from bronze.offsets import OffsetSet
from bronze.runtime.paths import to_local_path

# A table property of an older version.
_DLQ_PATHS = f"{OWN_PROPERTIES}dlqPaths"


@dataclass(frozen=True)
class DlqBinding:
    """A bronze table and its DLQs of one topic.

    Attributes:
        topic: Kafka topic.
        bronze: The bronze table.
        dlq: The configured DLQ; None if none is configured.
        ledger: Bronze's ledger of the topic.
        paths: Paths of the DLQs that bronze names, by table id.
        missing: DLQs that bronze names and that do not exist.
        twin: Path of the original DLQ if the configured one is a copy of it and bronze was not copied; else empty.
    """

    topic: str
    bronze: CheckedTable
    dlq: CheckedTable | None
    ledger: TopicLedger
    paths: dict[str, str]
    missing: tuple[Place, ...]
    twin: str = ""

    @property
    def given(self) -> str:
        """Id of the configured DLQ; empty if none is configured, or it does not exist yet."""
        return self.dlq.id if self.dlq else ""

    @property
    def dlq_paths(self) -> list[str]:
        """Paths of all existing DLQs, each table once: the configured one, and those that bronze names."""
        given = {self.dlq.id: self.dlq.path} if self.dlq and self.dlq.state else {}
        return list((given | self.paths | given).values())

    def check(self, change: bool) -> None:
        """Refuse a run whose DLQ is not the one that bronze names for the topic; the first DLQ is not a change.

        Args:
            change: Whether the user allows a change (``--change-dlq``).

        Raises:
            ConfigError: A DLQ that bronze names is missing. Bronze names another one. The DLQ belongs to another bronze
                table.
        """
        if change:
            return
        ledger, bronze, dlq = self.ledger, self.bronze, self.dlq
        # An older version may have noted several DLQs, without a decision which one is current.
        is_decided = bool(ledger.bronze_path) or len(ledger.dlqs) < 2
        matches = is_decided and self.given == (ledger.dlq.id if ledger.dlq else "")
        if self.missing and (matches or ledger.dlq is None or ledger.dlq in self.missing):
            raise missing_dlq_error(self.missing[0].path, bronze.path)
        if self.twin:
            raise other_dlq_error(bronze.path, self.topic, [self.twin], dlq.path if dlq else "")
        if ledger.dlqs and not matches:
            names = [] if is_decided and not ledger.dlq else self._names
            raise other_dlq_error(bronze.path, self.topic, names, dlq.path if dlq else "")
        self._check_owner()

    def _check_owner(self) -> None:
        bronze, dlq = self.bronze, self.dlq
        owner = dlq.state.note.bronze.get(self.topic) if dlq and dlq.state else None
        if dlq and owner and owner.id != bronze.id:
            raise taken_dlq_error(dlq.path, self.topic, owner.path, missing="" if bronze.state else bronze.path)

    def check_is_named(self) -> None:
        """Refuse to replay from, or audit, a DLQ that bronze does not name, or that keeps another table's records.

        Raises:
            ConfigError: Bronze names other DLQs; the message lists them. The DLQ belongs to another bronze table.
        """
        if self.dlq and self.ledger.dlqs and self.given and self.given not in self.paths:
            raise other_dlq_error(self.bronze.path, self.topic, self._names, self.dlq.path)
        self._check_owner()

    @property
    def _names(self) -> list[str]:
        places = [self.ledger.dlq] if self.ledger.dlq else self.ledger.earlier
        return [self.paths.get(place.id, place.path) for place in places]

    def bind(self, ledger: TopicLedger, dlq: CheckedTable | None) -> TopicLedger:
        """Return the ledger with a new DLQ; the previous one becomes an earlier one, and missing ones are dropped."""
        place = dlq.place if dlq else None
        forgotten = {each.id for each in (*self.missing, *([place] if place else []))}
        earlier = tuple(Place(p.id, self.paths.get(p.id, p.path)) for p in ledger.dlqs if p.id not in forgotten)
        return msgspec.structs.replace(ledger, dlq=place, earlier=earlier, bronze_path=self.bronze.path)


def find_dlqs(spark: SparkSession, bronze: CheckedTable, dlq: CheckedTable | None, topic: str) -> DlqBinding:
    """Find the DLQs that bronze names for a topic.

    The table id identifies a DLQ. The configured path comes first, even if a copy is at the last known path. The
    place relative to bronze comes second, in case the whole lake was moved, and the last known path third.
    """
    ledger = read_topic_ledger(spark, bronze, topic)
    given = {dlq.state.table_id: dlq.path} if dlq and dlq.state else {}
    paths, missing = {}, []
    for place in ledger.dlqs:
        candidates = [given[place.id]] if place.id in given else _list_candidates(place, ledger, bronze.path)
        path = next((c for c in candidates if place.id and read_id(spark, c) == place.id), None)
        if path is None:
            missing.append(place)
        else:
            paths[place.id] = path
    return DlqBinding(topic, bronze, dlq, ledger, paths, tuple(missing), _find_twin(spark, ledger, bronze, dlq))


def _find_twin(spark: SparkSession, ledger: TopicLedger, bronze: CheckedTable, dlq: CheckedTable | None) -> str:
    """Return the path of the original if the configured DLQ is a copy and bronze was not moved; else empty."""
    if not ledger.dlq or not dlq or not dlq.state or dlq.state.table_id != ledger.dlq.id:
        return ""
    is_copied = _is_same_path(ledger.bronze_path, bronze.path) and not _is_same_path(ledger.dlq.path, dlq.path)
    return ledger.dlq.path if is_copied and read_id(spark, ledger.dlq.path) == ledger.dlq.id else ""


def _list_candidates(place: Place, ledger: TopicLedger, bronze_path: str) -> list[str]:
    """Return the place of a local DLQ that was moved or copied together with bronze, then its last known path."""
    dlq, before, now = (to_local_path(path) for path in (place.path, ledger.bronze_path, bronze_path))
    if not ledger.bronze_path or not dlq or not before or not now or before == now:
        return [place.path]
    return [f"file:{os.path.normpath(f'{now}/{os.path.relpath(dlq, before)}')}", place.path]


def read_id(spark: SparkSession, path: str) -> str:
    """Return the id of the table at a path; empty if there is none."""
    try:
        state = read_table_state(path, "dlq-path", spark)
    except NotADeltaTableError:
        return ""
    return state.table_id if state else ""


def read_topic_ledger(spark: SparkSession, bronze: CheckedTable, topic: str) -> TopicLedger:
    """Return bronze's ledger of a topic; for a table of an older version, from its table properties."""
    if bronze.state is None:
        return TopicLedger()
    if topic in bronze.state.note.ledger:
        return bronze.state.note.ledger[topic]
    return _migrate(spark, bronze.state, topic)


def _migrate(spark: SparkSession, state: TableState, topic: str) -> TopicLedger:
    """Build the ledger from an older version's table properties: DLQ paths of all topics, and lost offsets.

    If there are several DLQs for the topic, the user must say which one is current.
    """
    paths = json.loads(state.properties.get(_DLQ_PATHS, "[]"))
    places = {place.id or place.path: place for place in _find_places(spark, paths, topic)}
    lost = json.loads(state.properties.get(f"{OWN_PROPERTIES}lostOffsets.{topic}", "{}"))
    (dlq, earlier) = (next(iter(places.values())), ()) if len(places) == 1 else (None, tuple(places.values()))
    return TopicLedger(
        dlq=dlq,
        earlier=earlier,
        lost=OffsetSet({int(partition): ranges for partition, ranges in lost.items()}),
    )


def _find_places(spark: SparkSession, paths: Iterable[str], topic: str) -> Iterable[Place]:
    for path in paths:
        try:
            state = read_table_state(path, "dlq-path", spark)
        except NotADeltaTableError:
            state = None
        topics = [k for k in (state.properties if state else ()) if k.startswith(f"{OWN_PROPERTIES}topicId.")]
        if not topics or f"{OWN_PROPERTIES}topicId.{topic}" in topics:
            yield Place(state.table_id if state else "", path)


def check_not_gone(bronze: CheckedTable, dlq: CheckedTable | None, topic: str = "") -> None:
    """Refuse to create a DLQ at a path where bronze names a DLQ of another topic that is missing.

    Raises:
        ConfigError: That DLQ is missing. The message has its path.
    """
    if dlq and dlq.state is None and bronze.state:
        ledgers = bronze.state.note.ledger
        named = [place.path for other, ledger in ledgers.items() if other != topic for place in ledger.dlqs]
        named += [] if ledgers or topic else json.loads(bronze.state.properties.get(_DLQ_PATHS, "[]"))
        if any(_is_same_path(path, dlq.path) for path in named):
            raise missing_dlq_error(dlq.path, bronze.path)


def _is_same_path(one: str, other: str) -> bool:
    """Whether two paths mean the same place, after local links are resolved."""
    local = [to_local_path(path) for path in (one, other)]
    return one == other or (None not in local and len({os.path.realpath(str(path)) for path in local}) == 1)


def missing_dlq_error(dlq_path: str, output_path: str) -> ConfigError:
    """Make the error for a missing DLQ that bronze names; a new one would hide that its records are lost."""
    return ConfigError(
        f"the DLQ {dlq_path} of {output_path} is missing, and the invalid records that it held are in no other table.",
        hint="Restore it; or use --change-dlq with a new --checkpoint-path, which reads again what Kafka still holds "
        "of them (records that are already in the tables are skipped)",
    )


def other_dlq_error(output_path: str, topic: str, known: Sequence[str], given: str) -> ConfigError:
    """Make the error for a run whose DLQ is not the one that bronze names for the topic, or that has none."""
    names = " or ".join(known)
    where = f"in the DLQ {names}" if known else "in itself, without a DLQ"
    return ConfigError(
        f"{output_path} keeps the invalid records of {topic} {where}, and this run has "
        f"{'the DLQ ' + given if given else 'none'}.",
        hint=f"{'Give --dlq-path ' + names if known else 'Omit --dlq-path'}; or use --change-dlq to switch to "
        f"{given or 'no DLQ'} (records of the previous DLQ still count)",
    )


def taken_dlq_error(dlq_path: str, topic: str, owner: str, missing: str = "") -> ConfigError:
    """Make the error for a DLQ that keeps the topic's records for another bronze table.

    Args:
        dlq_path: The DLQ.
        topic: Kafka topic.
        owner: The other bronze table.
        missing: The configured bronze table, if it does not exist.
    """
    problem = f"the DLQ {dlq_path} keeps the invalid records of {topic} for another bronze table, {owner}"
    if missing:
        return ConfigError(
            f"{problem}; there is no table at {missing}.",
            hint="Correct --output-path, or restore it; or use --change-dlq with a new --checkpoint-path, which reads "
            "the topic again into a new table",
        )
    return ConfigError(problem, hint="give this table a separate --dlq-path, or use --change-dlq to take the DLQ over")


def changed_dlq_error(output_path: str, topic: str, dlq_path: str) -> ConfigError:
    """Make the error for a run whose DLQ, or the DLQ's bronze table, was changed by another run."""
    return ConfigError(
        f"another run has changed where the invalid records of {topic} go: {output_path} now names "
        f"{'the DLQ ' + dlq_path if dlq_path else 'no DLQ'}, or its DLQ belongs to another table.",
        hint=f"Nothing was lost: start again {'with that --dlq-path' if dlq_path else 'without --dlq-path'}",
    )
