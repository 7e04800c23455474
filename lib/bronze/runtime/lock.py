"""The lock of a checkpoint: of two runs at once, the second one says since when the first one works, and ends.

On a local file system, the operating system holds the lock until the process ends, however it ends. On others, one run
creates a file, and rewrites it every few seconds; a run that finds it waits to see whether that still happens.

If the lock fails, no record is lost silently. On a local file system and on HDFS, Spark writes its checkpoint by
renames that exclude a second run. In S3, a run ends before its next commit if another one has begun to use the
checkpoint (``check_claim``), and a batch that finds other offsets there than those that it reads is not committed.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import IO
from uuid import uuid4

from pyspark.sql import SparkSession

from bronze.errors import BronzeError
from bronze.runtime.logs import RUN_ID
from bronze.runtime.object_store import check_conditions, put_if_absent
from bronze.runtime.paths import open_file_system, read_text, to_local_path, write_text
from bronze.runtime.spark_errors import explain_failures

log = logging.getLogger(__name__)
_LOCK = "bronze.lock"
# Seconds between two signs of life in the file, and how long a start waits for one.
_INTERVAL, _PATIENCE = 5.0, 15.0


def check_lock(checkpoint_path: str) -> None:
    """Refuse a checkpoint on a local file system that another run uses; needs no Spark and writes nothing.

    Raises:
        BronzeError: Another run uses it.
    """
    if local := to_local_path(checkpoint_path):
        with suppress(OSError), Path(local, _LOCK).open("rb") as file:
            _lock_file(file, fcntl.LOCK_SH, checkpoint_path)


@contextmanager
def hold_lock(spark: SparkSession, checkpoint_path: str) -> Iterator[None]:
    """Hold the lock of a checkpoint during the block.

    Raises:
        BronzeError: Another run holds it.
    """
    local = to_local_path(checkpoint_path)
    check_conditions(spark, checkpoint_path)
    with _hold_file(Path(local, _LOCK)) if local else _hold_beat(spark, f"{checkpoint_path}/{_LOCK}"):
        log.info("Run %s uses the checkpoint %s", RUN_ID, checkpoint_path)
        yield


@contextmanager
def _hold_file(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    except OSError as error:  # whether the checkpoint can be used is for Spark to say
        log.debug("Cannot lock %s: %s", path, error)
        yield
        return
    with file:
        _lock_file(file, fcntl.LOCK_EX, str(path.parent))
        with suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(_describe_holder().encode())
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _lock_file(file: IO[bytes], kind: int, checkpoint_path: str) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise locked_checkpoint_error(checkpoint_path, file.read()) from None
    except OSError as error:
        log.debug("Cannot lock %s: %s", checkpoint_path, error)


@contextmanager
def _hold_beat(spark: SparkSession, path: str) -> Iterator[None]:
    lock_id, ended = str(uuid4()), Event()

    def beat() -> None:
        while not ended.wait(_INTERVAL):
            with suppress(Exception):  # the storage may not answer for a while
                if _read_id(read_text(spark, path)) not in ("", lock_id, *_ENDED):
                    return  # another run has taken over while this one was suspended; its claim ends this one
                write_text(spark, path, _describe_holder(lock_id))

    thread = Thread(target=beat, daemon=True)
    try:
        with explain_failures(path.removesuffix(f"/{_LOCK}")):
            if not _create(spark, path, lock_id):
                _take_over(spark, path, lock_id)
        thread.start()
        yield
    finally:
        ended.set()
        _ENDED.add(lock_id)
        if thread.ident:
            thread.join(_INTERVAL)
        with suppress(Exception):  # another start then waits for a sign of life
            if _read_id(read_text(spark, path)) == lock_id:
                file_system, hadoop_path = open_file_system(spark, path)
                file_system.delete(hadoop_path, False)


def _create(spark: SparkSession, path: str, lock_id: str) -> bool:
    """Create the file as soon as there is none; return False if it is that of a run that shows no sign of life.

    The clocks of the machines do not matter.

    Raises:
        BronzeError: Another run holds the lock.
    """
    before, end = "", time.monotonic() + _PATIENCE
    while True:
        found = read_text(spark, path)
        if found is None and put_if_absent(spark, path, _describe_holder(lock_id).encode()):
            return not before  # some stores replace a file by deleting it first
        if _read_id(found) in _ENDED:
            return False
        if found and before and found != before:
            raise locked_checkpoint_error(path.removesuffix(f"/{_LOCK}"), found)
        if time.monotonic() > end:
            return False
        if found and not before:
            log.info("The checkpoint has the lock of another run; waiting up to %d s for a sign of life", _PATIENCE)
        before = found or before
        time.sleep(1)


def _take_over(spark: SparkSession, path: str, lock_id: str) -> None:
    """Replace the file, and wait longer than any holder does between two signs of life.

    Of two that do this at once, the later one has the lock. A holder that was only slow keeps it.

    Raises:
        BronzeError: Another run has the lock.
    """
    write_text(spark, path, _describe_holder(lock_id))
    time.sleep(2 * _INTERVAL)
    found = read_text(spark, path)
    if found and _read_id(found) not in (lock_id, *_ENDED):
        raise locked_checkpoint_error(path.removesuffix(f"/{_LOCK}"), found)


_STARTED = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
# Ids of this process's locks that have ended: the last sign of life of one may arrive late, and is not another run's.
_ENDED: set[str] = set()


def _describe_holder(lock_id: str = "") -> str:
    holder = {"since": _STARTED, "run_id": RUN_ID, "process": os.getpid(), "host": socket.gethostname()}
    return json.dumps({**holder, "lock_id": lock_id, "alive": time.time()})


def _read_id(holder: str | None) -> str:
    """The id of a lock; empty if an earlier version or another process is writing it."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(holder or "")["lock_id"])
    return ""


def locked_checkpoint_error(path: str, holder: str | bytes) -> BronzeError:
    """Build the error for a checkpoint that another run holds.

    Args:
        path: The checkpoint.
        holder: What its lock says about the other run; empty if that run is just starting.
    """
    try:
        found = json.loads(holder)
        since = f"since {found['since']} UTC (run {found['run_id']}, process {found['process']} on {found['host']})"
    except (ValueError, KeyError, TypeError):
        since = "since a moment ago"
    return BronzeError(
        f"another process uses the checkpoint {path} {since}, so this one has ended and has written nothing.",
        hint="Let only one process use a checkpoint; once the other one has ended, run the same command again",
    )
