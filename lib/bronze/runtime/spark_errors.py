"""What went wrong, in one line: the condition behind an error of Spark, its tasks or its JVM, with the cure.

Spark hands on whole stack traces, Java's and Python's in one another. The line that a person needs is the innermost.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from bronze.errors import (
    BronzeError,
    CheckpointInUse,
    DataFileMissing,
    DataLoss,
    DeletionVectorMissing,
    ExecutorDependencyMissing,
    KafkaLost,
    QueryFailed,
    RecordUnreadable,
    RowsRefused,
    TableNotSeen,
    TopicVanished,
    WriteRefused,
)
from bronze.parquet import NO_TABLE

log = logging.getLogger(__name__)

_TRACEBACK = "Traceback (most recent call last):"
_MAX_LENGTH = 500
# What a file system says that takes no more, in Java, Python and deltalake.
_REFUSED = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|Read-only file system|Permission denied"
)
_TOLD_IN_TASK = re.compile(rf"\w*Error: \[Errno \d+\] ({_REFUSED.pattern}|{NO_TABLE}): '(/.+)'$")
_FILE_MISSING = re.compile(r"FileNotFoundException: File (?:file:)?(.+\.(?:parquet|bin)) does not exist")
_UNREADABLE = re.compile(r"Record at topic (\S+) partition (\d+) offset (\d+) has timestamp value (-?\d+)")
# Kafka's clients gave up on a broker, or Spark gave up on them.
_OUTAGE = re.compile(
    r"(?:org\.apache\.kafka\.common\.errors\.(?=(?:Timeout|Disconnect|Network|BrokerNotAvailable)Exception)"
    r"|java\.util\.concurrent\.(?=TimeoutException: Cannot fetch record))(\w+: .+?)(?: SQLSTATE: \w+)?$",
    re.MULTILINE,
)


@contextmanager
def explain_failures(path: str = "") -> Iterator[None]:
    """Turn what Spark, Delta or the file system raise into one clear line.

    Args:
        path: What is written to, where that is one path only; the error itself often does not name it.

    Raises:
        BronzeError: The condition, with its cure.
    """
    try:
        yield
    except (Py4JJavaError, PySparkException, DeltaError, OSError) as error:
        raise explain_failure(error, path) from error


def explain_failure(error: BaseException, path: str = "") -> BronzeError:
    """The condition behind an error, with its cure; the whole text goes to the log at DEBUG.

    Args:
        error: What was raised.
        path: What was being written to, where that is known.
    """
    if isinstance(error, BronzeError):
        return error
    text, reason = str(error), read_reason(error)
    log.debug("The failure in full: %s: %s", type(error).__name__, text)
    if _TRACEBACK in text and (module := re.search(r"ModuleNotFoundError: No module named '([^']+)'", reason)):
        return ExecutorDependencyMissing(module[1])
    if record := _UNREADABLE.search(text):
        topic, *numbers = record.groups()
        return RecordUnreadable(topic, *map(int, numbers))
    if "KAFKA_DATA_LOSS" in text or "Some data may have been lost" in text:
        lost = re.search(r"^Reason: (.+)$", text, re.MULTILINE)
        return DataLoss(lost[1].rstrip(".") if lost else reason)
    if "UnknownTopicOrPartitionException" in text:
        return TopicVanished(reason)
    if outage := _OUTAGE.search(text):
        return KafkaLost(outage[1])
    return _explain_storage(text, reason, path) or QueryFailed(reason)


def _explain_storage(text: str, reason: str, path: str) -> BronzeError | None:
    """A condition of tables and checkpoint; None where it is another."""
    if path and re.search("CONCURRENT_STREAM_LOG_UPDATE|Multiple streaming queries are concurrently using", text):
        return CheckpointInUse(path)
    if "InvariantViolationException" in text:
        return RowsRefused(path, reason)
    if path and (refused := _REFUSED.search(text)):
        return WriteRefused(path, refused[0])
    if told := _TOLD_IN_TASK.match(reason):
        return TableNotSeen(told[2]) if told[1] == NO_TABLE else WriteRefused(told[2], told[1])
    if missing := _FILE_MISSING.match(reason):
        return (DeletionVectorMissing if missing[1].endswith(".bin") else DataFileMissing)(missing[1])
    return None


def read_reason(error: BaseException) -> str:
    """The one line that says what happened, as ``Type: message``.

    That is the last of the innermost Python traceback, where it is not merely Java's error arriving in Python; else
    the innermost Java cause that has a message; else the error's own first line.
    """
    text = str(error)
    candidates = [_read_python_error(text), *reversed(re.findall(r"^Caused by: (\S+: .+)$", text, re.MULTILINE))]
    if text.startswith("An error occurred while calling "):  # py4j's own line
        candidates += re.findall(r"^: (.+)$", text, re.MULTILINE)[:1]
    line = next(filter(None, candidates), "") or _read_first_line(error)
    line = re.sub(r"^(?:\w+[.$])+(?=\w)", "", line)  # the packages of the type
    return line if len(line) <= _MAX_LENGTH else line[:_MAX_LENGTH] + "…"


def _read_python_error(text: str) -> str:
    """The last line of the innermost traceback; empty where there is none, or where Java says more."""
    _, found, traceback = text.rpartition(_TRACEBACK)
    raised = re.search(r"^\S.*$", traceback, re.MULTILINE) if found else None  # its frames are indented
    return raised[0] if raised and "Py4JJavaError" not in raised[0] else ""


def _read_first_line(error: BaseException) -> str:
    name = type(error).__name__
    # Spark wraps what ended the query in a sentence of its own.
    text = re.sub(r"^\[STREAM_FAILED\] Query \[.*?\] terminated with exception: ", "", str(error).strip())
    return f"{name}: {text.splitlines()[0]}" if text else name
