"""Reads a table's Delta log: its state, its commits, and the notes of this package's commits.

Reads tables on a local disk, in S3 and in Azure without Spark, and others through Hadoop. Only ``statistics`` uses
Spark, to read many commits at once.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

import msgspec
from pyspark.sql import SparkSession

from bronze.delta.ledger import SHARED_APP_ID, CommitNote, decode_note
from bronze.errors import BronzeError
from bronze.runtime.object_store import find_storage, read_file
from bronze.runtime.paths import find_class
from bronze.storage import Storage

_COMMIT = re.compile(r"\d{20}\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*(parquet|json)")
# Number of commits to search for a ledger; commits of an older version of this package have none.
_LOOK_BACK = 1_000
# Number of commits to search for a RESTORE; the audit finds records that an older RESTORE removed.
_LOOK_BACK_RESTORE = 200


def open_log(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Delta's ``DeltaLog`` of a table, and its newest ``Snapshot``."""
    opened = find_class(spark, "org.apache.spark.sql.delta.DeltaLog").forTableWithSnapshot(spark._jsparkSession, path)
    return opened._1(), opened._2()


def read_transaction_version(snapshot: Any, app_id: str) -> int:
    """Return a table's transaction version of an application; 0 if it has none."""
    version = snapshot.transactions().get(app_id)
    return int(version.get()) if version.isDefined() else 0


def read_commit(table: Storage, version: int) -> str | None:
    """Read the text of a commit in a table's log; None if the file does not exist."""
    content = read_file(table, name_commit(version))
    return None if content is None else content.decode(errors="surrogateescape")  # which parse_commit refuses


def name_commit(version: int) -> str:
    """Return the path of a commit's file, relative to the table."""
    return f"_delta_log/{version:020}.json"


def identify_commit(table: Storage, version: int) -> bytes | None:
    """Return the identity of a commit, a hash of its content; None if it does not exist.

    A table that was deleted and recreated at the same path has another identity, because each table has a new id.
    """
    content = table.read(name_commit(version))
    return None if content is None else sha256(content).digest()


def find_checkpoint(path: str) -> int:
    """Return the version of a table's newest checkpoint; -1 if there is none."""
    table = find_storage(path)
    try:
        return int(json.loads(table.read("_delta_log/_last_checkpoint") or "")["version"])
    except (OSError, ValueError, KeyError, TypeError):  # no checkpoint yet, or no readable pointer to one
        found = map(_CHECKPOINT.fullmatch, table.list_names("_delta_log"))
        return max((int(name[1]) for name in found if name), default=-1)


def changed_table_error(path: str) -> BronzeError:
    """Build the error for a table that is no longer the one that this run opened."""
    return BronzeError(
        f"{path} was altered, replaced or deleted since this run began",
        hint="run the same command again, which checks the table again",
    )


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
    """The parts of a log line that this module reads."""

    txn: _Transaction | None = None
    commit_info: _CommitInfo | None = None
    add: _File | None = None
    remove: _File | None = None


@dataclass(frozen=True)
class Commit:
    """One commit of a log.

    Attributes:
        operation: Name of the operation, from the engine that wrote it.
        shared: Version of SHARED_APP_ID; -1 if the commit sets none.
        note: Its note; None if this package did not write the commit.
        timestamp: Milliseconds since 1970; 0 if unknown.
        appended: Files with new rows, relative to the table; files of OPTIMIZE have no new rows.
        has_deleted: Whether the commit deleted rows.
    """

    operation: str
    shared: int
    note: CommitNote | None
    timestamp: int
    appended: tuple[str, ...] = ()
    has_deleted: bool = False


def parse_commit(text: str) -> Commit:
    """Parse a commit's JSON lines; raises a ValueError if it is damaged, which a checkpoint of the log may hide."""
    # Only a line feed ends an action: JSON may contain other characters that Python treats as line ends.
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
    """This package's newest readable note (older versions wrote none), and whether no later commit is damaged."""

    version: int = -1
    note: CommitNote | None = None
    is_newest: bool = True


def find_note(read: Callable[[int], str | None], version: int, shared: int) -> FoundNote:
    """Find this package's newest commit with a note, ignoring commits of others and of older versions.

    Args:
        read: Returns the text of a commit by its version; None if the commit does not exist.
        version: Newest version of the table.
        shared: The table's version of SHARED_APP_ID; 0 if this package has not committed to it.

    Returns:
        The commit; without a note if this package's commits have none, or no longer exist.
    """
    newest = -1
    for candidate in range(version if shared else -1, -1, -1):
        text = read(candidate)
        if text is None or (newest >= 0 and candidate < newest - _LOOK_BACK):
            break
        commit = _parse_readable(text)
        if commit.shared == shared:
            newest = candidate
        if commit.note and commit.shared >= 0:
            return FoundNote(candidate, commit.note, newest >= 0)
    return FoundNote(newest)


def find_restore(read: Callable[[int], str | None], first: int, last: int) -> int | None:
    """Find the version of the newest RESTORE from first to last, among the newest commits; None if there is none."""
    newest = range(last, max(first, last - _LOOK_BACK_RESTORE) - 1, -1)
    return next((v for v in newest if _parse_readable(read(v) or "").operation == "RESTORE"), None)


def _parse_readable(text: str) -> Commit:
    """Parse a commit; of a damaged one, nothing is known."""
    try:
        return parse_commit(text)
    except (ValueError, RecursionError):
        return Commit("", -1, None, 0)


class NotAppendsError(Exception):
    """Raised when the new commits are not plain appends that can be read one by one."""


class LogReader:
    """Reads the log of a table commit by commit, starting with the first one."""

    def __init__(self, path: str):
        self._path = path
        self._version = self._read_to = -1
        self._identity: bytes | None = None

    def read_appended(self, limit: int) -> Iterator[tuple[Storage, str]]:
        """Yield the files that were appended since the position; end after the commit that exceeds the limit.

        Raises:
            NotAppendsError: Rows were deleted, commits no longer exist or may be damaged, the table was replaced, or
                only Spark can reach it.
        """
        table = find_storage(self._path)
        if not table.is_direct:
            raise NotAppendsError("only Spark can read it")
        if self._version >= 0 and not (self._identity and self._identity == identify_commit(table, self._version)):
            raise NotAppendsError("not the log that was read before")
        if self._version < 0 and find_checkpoint(self._path) >= 0:
            raise NotAppendsError("a checkpoint of the log may have rows of damaged commits")
        self._read_to, count = self._version, 0
        while count <= limit and (text := read_commit(table, self._read_to + 1)) is not None:
            self._read_to += 1
            commit = parse_commit(text)
            if commit.has_deleted:
                raise NotAppendsError("rows were deleted")
            count += len(commit.appended)
            yield from ((table, unquote(file)) for file in commit.appended)
        if self._read_to < 0:
            raise NotAppendsError("its first commits no longer exist")

    def advance(self) -> None:
        """Move the position to the end of the commits that were read.

        Raises:
            NotAppendsError: The last commit that was read no longer exists. The log was cleaned meanwhile, and commits
                after it may be gone too.
        """
        identity = identify_commit(find_storage(self._path), self._read_to)
        if identity is None and self._read_to >= 0:
            raise NotAppendsError("the last commit no longer exists")
        self._version, self._identity = self._read_to, identity

    def skip_to_end(self) -> None:
        """Move the position to the end of the log."""
        table = find_storage(self._path)
        names = table.list_names("_delta_log") if table.is_direct else []
        versions = [int(name[:-5]) for name in names if _COMMIT.fullmatch(name)]
        self._version = max(versions, default=-1)
        self._identity = identify_commit(table, self._version) if versions else None
