"""Turns errors of Spark, its tasks or its JVM into one line that names the condition and says what to do.

Spark errors nest Java and Python tracebacks; the innermost message is the one to show.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException

from bronze.errors import (
    BronzeError,
    ConfigError,
    DataLossError,
    RecordUnreadableError,
    TopicVanishedError,
    TransientError,
)
from bronze.parquet import NO_TABLE
from bronze.runtime.kafka_faults import explain_kafka_refusal

log = logging.getLogger(__name__)

_TRACEBACK = "Traceback (most recent call last):"
_MAX_LENGTH = 500
# Messages of a file system that refuses a write, in Java, Python and deltalake.
_REFUSED = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|Read-only file system|Permission denied"
)
_TOLD_IN_TASK = re.compile(rf"\w*Error: \[Errno \d+\] ({_REFUSED.pattern}|{NO_TABLE}): '(/.+)'$")
_FILE_MISSING = re.compile(
    r"FileNotFoundException: (?:File (?:file:)?|No such file or directory: )"
    r"(\S.*\.(?:parquet|bin))(?: does not exist|$)"
)
# Spark names the file that it was reading; only some causes mean that the file itself is damaged.
_FILE_READ = re.compile(r"Encountered error while reading file (?:file:(?://)?)?(\S.*\.(?:parquet|json))\.")
_DAMAGED = re.compile(
    r"is not a Parquet file|footer is too large|can not read class org\.apache\.parquet|ChecksumException|"
    r"JsonEOFException|JsonParseException"
)
_CAUSE = re.compile(r"^(?:Caused by|)?:? ?(?:\w+\.)*\w+(?:Exception|Error): .*$", re.MULTILINE)
_REPEATED = re.compile(
    r"<(Token-\d|AWSAccessKeyId|StringToSign\w*|CanonicalRequest\w*|SignatureProvided|AuthenticationErrorDetail)>.*?</\1>",
    re.DOTALL,
)
_UNUSABLE_KEY = re.compile(r'( key =").*(": )')
# An error of S3A, ABFS or object_store in an object store.
_IN_STORE = re.compile(
    r"\bs3a://|Generic S3 error|Error performing [A-Z]+ https?:|software\.amazon\.awssdk|S3Exception|"
    r"hadoop\.fs\.s3a|\bAWS\w+Exception|\babfss?://|Operation failed: \"|"
    r"\.(?:dfs|blob)\.core\.windows\.net|hadoop\.fs\.azurebfs"
)
# deltalake prints the causes of an error as a coloured tree.
_BRANCH = re.compile(r"\s*\n\s*(?:\x1b\[\d+m)?↳(?:\x1b\[0m)?\s*")
# What S3 and Azure refuse whenever they are asked.
REFUSED_BY_STORE = re.compile(
    r"AuthenticationFailed|AuthorizationFailure|AuthorizationPermissionMismatch|InsufficientAccountPermissions|"
    r"AccessDenied|Forbidden|401 Unauthorized|Status Code: 403|\", 403, |InvalidAccessKeyId|SignatureDoesNotMatch|"
    r"InvalidToken"
)
# What may succeed a moment later; a token that has expired is renewed before the next attempt.
UNANSWERED = re.compile(
    r"SlowDown|Service ?Unavailable|InternalError|Status Code: 50\d|"
    r"status 50\d|HTTP response code 50\d|Server Error|(?<![?&_])[Tt]imed?.?out|Connection (?:refused|reset|closed)|"
    r"error sending request|request or response body error|Bad Gateway|Gateway Timeout|"
    r"Too Many Requests|Premature end|NoHttpResponse|failed to respond|ExpiredToken|RequestExpired|"
    r"NoAuthWithAWS|NoAwsCredentials|Unable to load credentials|\", 50\d, "
)
# The same for a disk that is mounted over a network.
_DISK_UNANSWERED = re.compile(
    r"Stale file handle|Input/output error|Connection timed out|Transport endpoint is not connected"
)
_UNREADABLE = re.compile(r"Record at topic (\S+) partition (\d+) offset (\d+) has timestamp value (-?\d+)")
# A native library, which Java copies to its temporary folder first.
_UNLOADABLE = re.compile(r"UnsatisfiedLinkError: (/\S+)/[^/\s]+: .*(?:failed to map segment|Operation not permitted)")
# Kafka's clients gave up on a broker, or Spark gave up on the clients.
_OUTAGE = re.compile(
    r"(?:org\.apache\.kafka\.common\.errors\.(?=(?:Timeout|Disconnect|Network|BrokerNotAvailable)Exception)"
    r"|java\.util\.concurrent\.(?=TimeoutException: Cannot fetch record))(\w+: .+?)(?: SQLSTATE: \w+)?$",
    re.MULTILINE,
)


@contextmanager
def explain_failures(path: str = "") -> Iterator[None]:
    """Turn errors of Spark, Delta or the file system into one clear line.

    Args:
        path: The path that is written to, if there is only one; the error itself often does not name it.

    Raises:
        BronzeError: The condition, with its cure.
        KeyboardInterrupt: An error followed an interrupt in the block.
    """
    outer = sys.exception()
    try:
        yield
    except Exception as error:
        if is_interrupt(error, outer):
            raise KeyboardInterrupt from None
        if not isinstance(error, Py4JJavaError | PySparkException | DeltaError | OSError):
            raise
        has_credentials = hide_credentials(str(error)) != str(error)
        raise explain_failure(error, path) from (None if has_credentials else error)


def is_interrupt(error: BaseException | None, outer: BaseException | None = None) -> bool:
    """Whether an error is an interrupt, or followed one: py4j and pyspark fail if it comes in the middle of a call.

    The search for the interrupt ends at ``outer``, an error that was being handled before.
    """
    if error is None or error is outer:
        return False
    return isinstance(error, KeyboardInterrupt) or is_interrupt(error.__context__, outer)


def drop_connection() -> None:
    """Close this thread's connection to the JVM after an interrupt; the next call opens another.

    py4j closes the connection itself, unless the call has only just started; the next call would then read the answer
    to this one.
    """
    client: Any = SparkContext._gateway._gateway_client  # type: ignore[union-attr]
    if connection := client.get_thread_connection():
        connection.close()


def explain_failure(error: BaseException, path: str = "") -> BronzeError:
    """The condition behind an error, with its cure; logs the whole text at DEBUG.

    Args:
        error: The error.
        path: The path that is written to, if known.
    """
    if isinstance(error, BronzeError):
        return error
    text, reason = _read_text(error), read_reason(error)
    log.debug("The failure in full: %s: %s", type(error).__name__, hide_credentials(text))
    if _TRACEBACK in text and (module := re.search(r"ModuleNotFoundError: No module named '([^']+)'", reason)):
        return _executor_module_error(module[1])
    if record := _UNREADABLE.search(text):
        topic, *numbers = record.groups()
        return _unreadable_record_error(topic, *map(int, numbers))
    if "KAFKA_DATA_LOSS" in text or "Some data may have been lost" in text:
        lost = re.search(r"^Reason: (.+)$", text, re.MULTILINE)
        return data_loss_error(lost[1].rstrip(".") if lost else reason)
    if "UnknownTopicOrPartitionException" in text:
        return vanished_topic_error(reason)
    if refused := explain_kafka_refusal(error):
        return refused
    if unloadable := _UNLOADABLE.search(text):
        return _noexec_error(unloadable[1])
    if outage := _OUTAGE.search(text):
        return lost_kafka_error(outage[1])
    return _explain_storage(text, reason, path) or failed_query_error(reason)


def _explain_storage(text: str, reason: str, path: str) -> BronzeError | None:
    """The error, if its condition concerns the tables or the checkpoint; otherwise None."""
    if path and re.search("CONCURRENT_STREAM_LOG_UPDATE|Multiple streaming queries are concurrently using", text):
        return shared_checkpoint_error(path)
    if "InvariantViolationException" in text:
        return ConfigError(
            f"{path or 'a table'} does not accept rows of this batch: {reason}.",
            hint="Nothing was lost, and running again does not help: change that rule of the table (ALTER TABLE), then "
            "run the same command again to continue",
        )
    if path and (refused := _REFUSED.search(text)):
        return _refused_write_error(path, refused[0])
    if told := _TOLD_IN_TASK.match(reason):
        return _unseen_table_error(told[2]) if told[1] == NO_TABLE else _refused_write_error(told[2], told[1])
    if missing := _FILE_MISSING.match(reason):
        return _missing_file_error(missing[1])
    causes = "\n".join([reason, text.partition("\n")[0], *_CAUSE.findall(text)])
    is_outage = UNANSWERED.search(causes) or "UnknownHostException" in causes  # not a wrong name, while a query runs
    is_unanswered = is_outage and _IN_STORE.search(f"{path} {text}")  # not every cause says where
    if (damaged := _FILE_READ.search(causes)) and _DAMAGED.search(causes) and not is_unanswered:
        return _damaged_file_error(unquote(damaged[1]))
    if _IN_STORE.search(causes) and REFUSED_BY_STORE.search(causes) and not is_unanswered:
        return ConfigError(
            f"the object store refuses the credentials for {path or 'a path'}: {reason}",
            hint="nothing was lost: correct them or what they may do, then run the same command again to continue",
        )
    if is_unanswered or _DISK_UNANSWERED.search(causes):
        return lost_storage_error(reason)
    return None


def shared_checkpoint_error(path: str) -> BronzeError:
    """Build the error for a checkpoint that another process has begun to use."""
    return BronzeError(
        f"another process uses the checkpoint {path}, so this one has ended; nothing was lost or duplicated.",
        hint="Use a checkpoint in one process only; if the other one has ended too, run the same command again",
    )


def data_loss_error(lost: str) -> DataLossError:
    """Build the error for records that Kafka deleted before they were read."""
    return DataLossError(
        f"Kafka has deleted records before they were read: {lost}.",
        hint="Continue without them with --accept-data-loss",
        lost=lost,
    )


def failed_query_error(reason: str) -> BronzeError:
    """Build the error for a streaming query that failed; nothing is lost, and the next start resumes."""
    return BronzeError(f"failed: {reason}", hint="nothing was lost, run the same command again to continue")


def lost_kafka_error(reason: str) -> TransientError:
    """Build the error for brokers that do not answer a running query within the timeouts of its clients."""
    return TransientError(
        f"Kafka did not answer within the timeouts of its clients: {reason}",
        hint="nothing was lost, run the same command again once it answers",
    )


def lost_storage_error(reason: str) -> TransientError:
    """Build the error for a storage that does not answer, or reports that it is busy."""
    return TransientError(
        f"the storage did not answer a request: {reason}",
        hint="nothing was lost, run the same command again once it answers",
    )


def vanished_topic_error(reason: str) -> TopicVanishedError:
    """Build the error for a running query to which Kafka answered that the topic does not exist."""
    return TopicVanishedError(
        f"Kafka briefly reported that the topic does not exist: {reason}", hint="run the same command again to continue"
    )


def _executor_module_error(module: str) -> ConfigError:
    hint = (
        "run lib/bronze_ingestion.py with spark-submit, which sends it, or submit with --py-files and a zip of it"
        if module.partition(".")[0] == "bronze"
        else "pack the environment with `make env-archive` and submit "
        "with --archives dist/bronze-env.tar.gz#env --conf spark.executorEnv.PYTHONPATH=env"
    )
    return ConfigError(f"the executors' Python has no module {module!r}", hint)


def _noexec_error(folder: str) -> ConfigError:
    return ConfigError(
        f"Java cannot load the library that decompresses records from {folder}, because its file system is mounted "
        "noexec; nothing was lost.",
        hint="Set JAVA_TOOL_OPTIONS=-Djava.io.tmpdir=FOLDER, with a folder on another file system, for the driver and "
        "for the executors (spark.executorEnv.JAVA_TOOL_OPTIONS)",
    )


def _unreadable_record_error(topic: str, partition: int, offset: int, timestamp: int) -> RecordUnreadableError:
    return RecordUnreadableError(
        f"Spark cannot read the record at partition {partition}, offset {offset} of {topic}: its Kafka timestamp "
        f"{timestamp} is beyond what Spark can hold. The checkpoint has already planned its batch (see the newest "
        "offsets file), so the same command ends here every time.",
        hint="Skip it in two runs. First use a new --checkpoint-path, --starting-offsets at that batch's start and "
        "--max-offsets-per-trigger 1: this ingests the records before it and ends here again. Then use another new "
        f"--checkpoint-path, and --starting-offsets with {offset + 1} for partition {partition} and -2 for the others. "
        "Records that the tables have are skipped",
        partition=partition,
        offset=offset,
    )


def _refused_write_error(path: str, reason: str) -> BronzeError:
    cure = "make it writable" if reason in ("Read-only file system", "Permission denied") else "free space"
    return BronzeError(
        f"cannot write to {path} ({reason})",
        hint=f"nothing was lost: {cure}, then run the same command again to continue",
    )


def _unseen_table_error(path: str) -> BronzeError:
    return BronzeError(
        f"there is no longer a table at {path}, or the executors cannot see it; nothing was committed.",
        hint="If it was deleted, run the same command again: it says what to do. If the path is not on a disk that all "
        "nodes share, use --writer delta-spark with a path on a shared file system",
    )


def _missing_file_error(path: str) -> ConfigError:
    """Build the error for a missing file that a table's log refers to."""
    if path.endswith(".bin"):
        return ConfigError(
            f"Deletion vector {path} is missing, so the table cannot be read.",
            hint=f"Restore the file, or undo the deletion: RESTORE TABLE delta.`{_find_table(path)}` TO "
            "VERSION AS OF the version before it (DESCRIBE HISTORY names it), then add the records ingested since with "
            "bronze backfill",
        )
    return ConfigError(
        f"{path} is missing, although its table's log refers to it; its rows can no longer be read.",
        hint=f"Restore the file, or {_name_repair(path)}",
    )


def _damaged_file_error(path: str) -> ConfigError:
    if "/_delta_log/" not in path:
        return ConfigError(
            f"{path} is damaged or was cut off, for example by a power failure; its rows can no longer be read.",
            hint=f"Restore the file, or delete it, {_name_repair(path)}",
        )
    hint = (
        "Restore the file. If that is impossible and it is the newest commit, delete it, and add its records again "
        "with bronze backfill; bronze audit then says what is missing"
    )
    if ".checkpoint." in path or "/_sidecars/" in path:
        hint = (
            "Delete it and _last_checkpoint in the same folder: the table is then read from its commits, if its log "
            "still has them"
        )
    return ConfigError(
        f"{path} is damaged or was cut off, for example by a power failure, so the table cannot be read.", hint
    )


def _name_repair(path: str) -> str:
    return (
        f"remove it from the log (DeltaTable({_find_table(path)!r}).repair() of the Python package deltalake) and add "
        "its rows again with bronze backfill, from what Kafka still holds; bronze audit then says what is missing"
    )


def _find_table(path: str) -> str:
    """The folder of the table that a file belongs to."""
    folders = path.split("/")[:-1]  # of a URI too
    return "/".join(folders[: next((n for n, name in enumerate(folders) if "=" in name), None)])


def read_reason(error: BaseException) -> str:
    """The one line that says what happened, as ``Type: message``.

    This is the last line of the innermost Python traceback, unless it only repeats a Java error; otherwise the
    innermost Java cause that has a message; otherwise the error's first line.
    """
    text = _read_text(error)
    candidates = [_read_python_error(text), *reversed(re.findall(r"^Caused by: (\S+: .+)$", text, re.MULTILINE))]
    if text.startswith("An error occurred while calling "):  # py4j's own line
        candidates += re.findall(r"^: (.+)$", text, re.MULTILINE)[:1]
    line = next(filter(None, candidates), "") or _read_first_line(error)
    line = re.sub(r"^(?:\w+[.$])+(?=\w)", "", line)  # remove the packages of the type
    line = hide_credentials(line)
    return line if len(line) <= _MAX_LENGTH else line[:_MAX_LENGTH] + "…"


def _read_text(error: BaseException) -> str:
    return _BRANCH.sub(": ", str(error)).strip()


def hide_credentials(text: str) -> str:
    """Hide what a store's answer repeats of a request's credentials, and what ABFS repeats of an unusable key."""
    return _UNUSABLE_KEY.sub(r"\1…\2", _REPEATED.sub(r"<\1>…</\1>", text))


def _read_python_error(text: str) -> str:
    """The last line of the innermost traceback; empty if there is none, or if it only repeats a Java error."""
    _, found, traceback = text.rpartition(_TRACEBACK)
    raised = re.search(r"^\S.*$", traceback, re.MULTILINE) if found else None  # its frames are indented
    return raised[0] if raised and "Py4JJavaError" not in raised[0] else ""


def _read_first_line(error: BaseException) -> str:
    name = type(error).__name__
    # Spark wraps the query's error in another sentence.
    text = re.sub(r"^\[STREAM_FAILED\] Query \[.*?\] terminated with exception: ", "", _read_text(error))
    return f"{name}: {text.splitlines()[0]}" if text else name
