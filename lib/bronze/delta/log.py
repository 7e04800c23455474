"""The one reader of a table's Delta log: its state, its commits, and what those of ours say.

On a local disk without Spark, else through Hadoop. ``statistics`` alone asks Spark, for many commits at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from pyspark.sql import SparkSession

from bronze.delta.ledger import SHARED_APP_ID, CommitNote, decode_note
from bronze.runtime.paths import find_class, read_text, to_local_path

# Commits to look back through for a ledger, behind commits of an older version of this product, which have none.
_LOOK_BACK = 1_000
# Commits to look back through for a RESTORE; what an older one took away, the audit says.
_LOOK_BACK_RESTORE = 200


def open_log(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Delta's own ``DeltaLog`` of a table, and its newest ``Snapshot``."""
    opened = find_class(spark, "org.apache.spark.sql.delta.DeltaLog").forTableWithSnapshot(spark._jsparkSession, path)
    return opened._1(), opened._2()


def read_transaction_version(snapshot: Any, app_id: str) -> int:
    """The version that a table has of an application; 0 where it has none."""
    version = snapshot.transactions().get(app_id)
    return int(version.get()) if version.isDefined() else 0


def read_commit(path: str, version: int) -> str | None:
    """The text of a commit in a table's log; None where it is gone."""
    if to_local_path(path) is None:
        return read_text(SparkSession.active(), f"{path}/_delta_log/{version:020}.json")
    try:
        return locate_commit(path, version).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def locate_commit(path: str, version: int) -> Path:
    """The file of a commit of a local table."""
    return Path(to_local_path(path) or "/nowhere", "_delta_log", f"{version:020}.json")


def identify_commit(path: str, version: int) -> tuple[int, int] | None:
    """Which file a commit of a local table is; None where it is gone.

    Another table at the same path, deleted and recreated meanwhile, has another one.
    """
    try:
        file = locate_commit(path, version).stat()
    except FileNotFoundError:
        return None
    return file.st_ino, file.st_mtime_ns


class _Transaction(msgspec.Struct, rename="camel"):
    app_id: str
    version: int


class _CommitInfo(msgspec.Struct, rename="camel"):
    operation: Any = ""  # another engine may write anything there
    user_metadata: Any = None
    timestamp: Any = 0


class _File(msgspec.Struct, rename="camel"):
    path: str = ""
    data_change: bool = False
    deletion_vector: Any = None


class _Action(msgspec.Struct, rename="camel"):
    """The parts of a log line that are read here."""

    txn: _Transaction | None = None
    commit_info: _CommitInfo | None = None
    add: _File | None = None
    remove: _File | None = None


@dataclass(frozen=True)
class Commit:
    """One commit of a log.

    Attributes:
        operation: Its name, as the engine that wrote it says.
        shared: Version of SHARED_APP_ID; -1 where it sets none.
        note: What it says of itself; None where it is not ours.
        timestamp: Milliseconds since 1970, 0 where unknown.
        appended: Files whose rows are new, relative to the table; rows that OPTIMIZE only moved are not.
        has_deleted: Whether it deleted rows.
    """

    operation: str
    shared: int
    note: CommitNote | None
    timestamp: int
    appended: tuple[str, ...] = ()
    has_deleted: bool = False


def parse_commit(text: str) -> Commit:
    """Read a commit's JSON lines; a note that is not ours is None."""
    # Only a line feed ends an action: JSON may hold the other signs that Python takes for the end of a line.
    actions = [msgspec.json.decode(line, type=_Action) for line in text.split("\n") if line.strip()]
    info = next((a.commit_info for a in actions if a.commit_info), _CommitInfo())
    added = [action.add for action in actions if action.add]
    return Commit(
        str(info.operation),
        max((a.txn.version for a in actions if a.txn and a.txn.app_id == SHARED_APP_ID), default=-1),
        decode_note(info.user_metadata),
        info.timestamp if isinstance(info.timestamp, int) else 0,
        tuple(file.path for file in added if file.data_change),
        any(file.deletion_vector for file in added) or any(a.remove and a.remove.data_change for a in actions),
    )


@dataclass(frozen=True)
class FoundNote:
    """The newest commit of ours in a table, and its version; ``note`` is None where it is of an older product."""

    version: int = -1
    note: CommitNote | None = None


def find_note(read: Callable[[int], str | None], version: int, shared: int) -> FoundNote:
    """The newest commit of ours that carries a note: behind those of others, and those of an older product.

    Args:
        read: Text of a commit by its version; None where it is gone.
        version: Newest version of the table.
        shared: The table's version of SHARED_APP_ID; 0 where no commit of ours is in it.

    Returns:
        What was found; without a note where commits of ours have none, or are gone.
    """
    newest = -1
    for candidate in range(version if shared else -1, -1, -1):
        text = read(candidate)
        if text is None or (newest >= 0 and candidate < newest - _LOOK_BACK):
            break
        commit = parse_commit(text)
        if commit.shared == shared:
            newest = candidate
        if commit.note and commit.shared >= 0:
            return FoundNote(candidate, commit.note)
    return FoundNote(newest)


def find_restore(read: Callable[[int], str | None], first: int, last: int) -> int | None:
    """The version of the newest RESTORE from first to last, among the newest commits; None where there is none."""
    newest = range(last, max(first, last - _LOOK_BACK_RESTORE) - 1, -1)
    return next((v for v in newest if parse_commit(read(v) or "").operation == "RESTORE"), None)


class NotAppendsError(Exception):
    """Raised when commits are more than appends that can be read one by one."""


class LogReader:
    """A position in the log of a local table, before its first commit; reads on from there."""

    def __init__(self, path: str):
        self._path = path
        self._version = self._read_to = -1
        self._identity: tuple[int, int] | None = None

    def read_appended(self, limit: int) -> Iterator[Path]:
        """The files that were appended since the position; ends after the commit that exceeds the limit.

        Raises:
            NotAppendsError: Rows were deleted, commits are gone, or another table is there.
        """
        if self._identity != self._identify():
            raise NotAppendsError("not the log that was read before")
        if self._version < 0 and not locate_commit(self._path, 0).is_file():
            raise NotAppendsError("its first commits are gone")
        self._read_to, count = self._version, 0
        while count <= limit and locate_commit(self._path, self._read_to + 1).is_file():
            self._read_to += 1
            commit = parse_commit(read_commit(self._path, self._read_to) or "")
            if commit.has_deleted:
                raise NotAppendsError("rows were deleted")
            count += len(commit.appended)
            yield from (Path(to_local_path(self._path) or "", unquote(file)) for file in commit.appended)

    def advance(self) -> None:
        """Move the position behind what was read."""
        self._version = self._read_to
        self._identity = self._identify()

    def skip_to_end(self) -> None:
        """Move the position behind all commits that are there."""
        folder = locate_commit(self._path, 0).parent
        versions = [int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal()]
        self._read_to = max(versions, default=-1)
        self.advance()

    def _identify(self) -> tuple[int, int] | None:
        return identify_commit(self._path, self._version) if self._version >= 0 else None
