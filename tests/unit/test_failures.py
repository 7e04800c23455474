"""Each failure becomes one readable line; the texts are real ones, without most of Java's stack frames."""

import logging
from pathlib import Path

import pytest

from bronze.errors import (
    AppendConflictError,
    BronzeError,
    ConfigError,
    DataLossError,
    RecordUnreadableError,
    TopicVanishedError,
    TransientError,
)
from bronze.runtime.spark_errors import explain_failure, explain_failures, read_reason

TEXTS = {file.stem: file.read_text() for file in (Path(__file__).parent / "failures").glob("*.txt")}


def explain(name: str) -> BronzeError:
    return explain_failure(RuntimeError(TEXTS[name]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("arrow_invalid", "ArrowInvalid: Failed to parse string: 'a' as a scalar of type int64"),
        ("assertion_without_text", "AssertionError"),
        ("caused_by_another", "OSError: No space left on device"),
        ("worker_died", "SparkException: Python worker exited unexpectedly (crashed)."),
        ("parent_is_a_file", "ParentNotDirectoryException: Parent path is not a directory: file:/lake/plain"),
        ("hdfs_refused", "ConnectException: Connection refused"),
        ("log_path", "ParentNotDirectoryException: Parent path is not a directory: file:/lake/plain"),
    ],
)
def test_the_innermost_line_is_the_reason(name: str, reason: str):
    assert read_reason(RuntimeError(TEXTS[name])).startswith(reason)
    assert f"failed: {reason}" in str(explain(name))


@pytest.mark.parametrize("name", TEXTS)
def test_every_failure_is_one_line_without_a_traceback(name: str):
    message = str(explain(name))
    assert len(message.splitlines()) == 1
    assert "Traceback" not in message
    assert "\tat " not in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AssertionError(), "AssertionError"),
        (ValueError("no\nsuch thing"), "ValueError: no"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError("x" * 2_000), "RuntimeError: " + "x" * 486 + "…"),
    ],
)
def test_an_error_of_the_driver_is_its_type_and_its_first_line(error: Exception, reason: str):
    assert read_reason(error) == reason


def test_the_sentence_that_spark_wraps_around_the_end_of_a_query_is_left_out():
    wrapped = "[STREAM_FAILED] Query [id = a, runId = b] terminated with exception: No space left on device"
    assert read_reason(RuntimeError(wrapped)) == "RuntimeError: No space left on device"


@pytest.mark.parametrize("module", ["msgspec", "pyarrow"])
def test_a_module_that_executors_lack_is_named_with_the_cure(module: str):
    error = explain(f"{module}_missing")
    assert type(error) is ConfigError
    assert str(error).startswith(f"the executors' Python has no module '{module}'")
    assert "make env-archive" in str(error)


def test_executors_without_this_package_have_another_cure():
    error = explain("bronze_not_shipped")
    assert type(error) is ConfigError
    assert str(error).startswith("the executors' Python has no module 'bronze'")
    assert "env-archive" not in str(error)
    assert "run lib/bronze_ingestion.py with spark-submit" in str(error)


def test_a_module_that_the_driver_lacks_is_not_blamed_on_executors():
    error = explain_failure(ModuleNotFoundError("No module named 'msgspec'"))
    assert type(error) is BronzeError
    assert str(error).startswith("failed: ModuleNotFoundError: No module named 'msgspec'")


def test_a_record_that_spark_cannot_read_is_named_with_the_way_past_it():
    error = explain("timestamp_overflow")
    assert isinstance(error, RecordUnreadableError)
    assert error.exit_code == 1
    assert "the record at partition 0, offset 3 of t-933ef2: its Kafka timestamp 9223372036854775807" in str(error)
    assert "--starting-offsets with 4 for partition 0 and -2 for the others" in str(error)
    assert "run the same command again" not in str(error)


def test_data_loss_has_the_range_that_is_missing():
    error = explain("data_loss")
    assert isinstance(error, DataLossError)
    assert str(error).startswith("Kafka has deleted records before they were read: ")
    assert "Could not read records in offset [3, 8) for topic partition t-30412f-0" in str(error)


@pytest.mark.parametrize(
    "rule",
    [
        "[DELTA_NOT_NULL_CONSTRAINT_VIOLATED] NOT NULL constraint violated for column: tenant_id.",
        "[DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] CHECK constraint small (_kafka_offset < 20) violated by row",
        '[DELTA_EXCEED_CHAR_VARCHAR_LIMIT] Value "1.0.0" exceeds char/varchar type length limitation.',
    ],
)
def test_a_row_that_breaks_a_rule_of_the_table_is_not_tried_again(rule: str):
    raised = f"org.apache.spark.sql.delta.schema.DeltaInvariantViolationException: {rule}"
    error = explain_failure(RuntimeError(f"Job aborted.\nCaused by: {raised}\n\tat a.b.C"), "/lake/bronze")
    assert type(error) is ConfigError
    assert error.exit_code == 2
    assert str(error).startswith(
        f"/lake/bronze does not accept rows of this batch: DeltaInvariantViolationException: {rule}"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kafka_outage", "TimeoutException: Timed out waiting for a node assignment. Call: listNodes"),
        ("kafka_outage_in_a_task", "TimeoutException: Cannot fetch record for offset 50 in 120000 milliseconds"),
    ],
)
def test_an_outage_of_kafka_is_called_one(name: str, reason: str):
    error = explain(name)
    assert type(error) is TransientError
    assert str(error).startswith(f"Kafka did not answer within the timeouts of its clients: {reason}; nothing was lost")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("deltalake_half_body", "error reading a body from connection: end of file before message length reached"),
        ("deltalake_busy", "503 Service Unavailable"),
        ("deltalake_reset", "connection error: Connection reset by peer (os error 104)"),
    ],
)
def test_an_outage_of_s3_under_deltalake_is_called_one_with_its_innermost_cause(name: str, cause: str):
    error = explain(name)
    assert type(error) is TransientError
    assert str(error).startswith("the storage did not answer a request: RuntimeError: Kernel error -> Generic S3 error")
    assert f": {cause}; nothing was lost" in str(error)


def test_an_outage_of_s3_is_known_by_its_stack_if_its_message_does_not_say_where():
    error = explain("s3_half_a_body")
    assert type(error) is TransientError
    assert "did not answer a request: ConnectionClosedException: Premature end of Content-Length" in str(error)


def test_credentials_that_s3_refuses_to_deltalake_are_not_tried_again():
    error = explain("deltalake_forbidden")
    assert type(error) is ConfigError
    assert str(error).startswith("the object store refuses the credentials for a path: ")


ABFS = 'Operation failed: "{}", {}, GET, https://a.dfs.core.windows.net/c/t?upn=false&timeout=90s, rId: 1'


OBJECT_STORE = (
    "Generic MicrosoftAzure error: Error performing PUT https://a.blob.core.windows.net/c/t in 2ms, after 10 retries, "
    "max_retries: 10, retry_timeout: 180s  - Server returned non-2xx status code: {}"
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AccessDeniedException: " + ABFS.format("Server failed to authenticate the request.", 403), ConfigError),
        ("FileNotFoundException: " + ABFS.format("The specified blob does not exist.", 404), BronzeError),
        ("IOException: " + ABFS.format("The server is busy.", 503), TransientError),
        ("UnknownHostException: a.dfs.core.windows.net", TransientError),
        (OBJECT_STORE.format("403 Forbidden: <Error><Code>AuthorizationFailure</Code></Error>"), ConfigError),
        (OBJECT_STORE.format("503 Service Unavailable: <Error><Code>ServerBusy</Code></Error>"), TransientError),
    ],
)
def test_a_failure_in_azure_is_repeated_only_if_that_can_help(text: str, kind: type[BronzeError]):
    assert type(explain_failure(OSError(text), "abfss://c@a.dfs.core.windows.net/t")) is kind


@pytest.mark.parametrize(
    "text",
    [
        'KeyProviderException: Failure to initialize configuration for a key ="the-secret": Invalid value',
        "<AuthenticationErrorDetail>The MAC signature 'the-secret' is not the same</AuthenticationErrorDetail>",
    ],
)
def test_what_azure_and_its_connector_repeat_of_a_key_is_hidden(text: str):
    assert "the-secret" not in str(explain_failure(OSError(text), "abfss://c@a/t"))


def test_a_topic_that_kafka_does_not_know_any_more_is_looked_for_again():
    assert isinstance(explain("topic_vanished"), TopicVanishedError)


def test_the_whole_text_goes_to_the_log_at_debug(caplog: pytest.LogCaptureFixture):
    logger = logging.getLogger("bronze")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG, "bronze"):
        explain("worker_died")
    logger.removeHandler(caplog.handler)
    assert {r.levelname for r in caplog.records if "Driver stacktrace:" in r.getMessage()} == {"DEBUG"}


def test_a_known_condition_stays_what_it_is():
    with pytest.raises(AppendConflictError), explain_failures():
        raise AppendConflictError("could not commit to /lake/b")


def test_an_error_of_the_file_system_is_explained():
    with pytest.raises(BronzeError, match="^failed: FileNotFoundError: .*no-such-file"), explain_failures():
        Path("/no-such-file").read_text()


def test_a_mistake_in_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), explain_failures():
        raise ZeroDivisionError


def test_an_error_that_follows_an_interrupt_is_the_interrupt():
    with pytest.raises(KeyboardInterrupt), explain_failures():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            try:
                raise OSError("py4j closes a connection that is closed")
            finally:
                raise UnboundLocalError("pyspark closes what it has not opened")


def test_java_s_error_arriving_in_python_is_not_the_reason():
    assert read_reason(RuntimeError(TEXTS["data_loss"])).startswith("OffsetOutOfRangeException: Fetch position")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (
            "OSError: [Errno 28] No space left on device: '/lake/bronze/part-0.parquet'",
            "cannot write to /lake/bronze/part-0.parquet (No space left on device); nothing was lost: free space",
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/lake/bronze/part-0.parquet'",
            "cannot write to /lake/bronze/part-0.parquet (Permission denied); nothing was lost: make it writable",
        ),
    ],
)
def test_what_a_task_could_not_write_is_named_with_its_cure(reason: str, told: str):
    text = f"Traceback (most recent call last):\n  File x\n{reason}\n\tat org.apache.spark"
    assert str(explain_failure(RuntimeError(text))).startswith(told)


def test_the_path_that_was_written_to_is_named_where_the_error_does_not():
    with (
        pytest.raises(BronzeError, match="cannot write to /lake/_delta_log .No space left on device."),
        explain_failures("/lake/_delta_log"),
    ):
        raise OSError("Generic LocalFileSystem error\n  Unable to copy data to file\n  No space left on device")


def fail_to_read(file: str, cause: str) -> BronzeError:
    head = f"[FAILED_READ_FILE.NO_HINT] Encountered error while reading file {file}.  SQLSTATE: KD001"
    text = f": org.apache.spark.SparkException: {head}\n\tat a.b.C\nCaused by: {cause}\n\tat a.b.C"
    return explain_failure(RuntimeError(f"An error occurred while calling o65.collectToPython.\n{text}"))


@pytest.mark.parametrize(
    "cause",
    [
        "java.lang.RuntimeException: file:/lake/b/part-0.parquet is not a Parquet file (length is too low: 0)",
        "java.lang.RuntimeException: file:/lake/b/part-0.parquet is not a Parquet file. Expected magic number at tail",
        "java.lang.RuntimeException: footer is too large: 3114361930to be read",
        "org.apache.hadoop.fs.ChecksumException: Checksum error: file:/lake/b/part-0.parquet at 0 exp: -13 got: -53",
    ],
)
def test_a_data_file_that_was_cut_off_is_no_failure_that_a_retry_cures(cause: str):
    error = fail_to_read("file:/lake/b/part-0.parquet", cause)
    assert type(error) is ConfigError
    assert str(error).startswith("/lake/b/part-0.parquet is damaged or was cut off")
    assert "DeltaTable('/lake/b').repair()" in str(error)


def test_the_path_of_a_damaged_file_is_the_one_on_the_disk():
    error = fail_to_read("file:/my%20lake/b/part-0.parquet", "java.lang.RuntimeException: it is not a Parquet file")
    assert "DeltaTable('/my lake/b').repair()" in str(error)


def test_a_damaged_checkpoint_of_a_log_is_deleted_and_no_row_is_added_again():
    file = "/lake/b/_delta_log/00000000000000000010.checkpoint.parquet"
    error = fail_to_read(f"file:{file}", f"java.lang.RuntimeException: file:{file} is not a Parquet file")
    assert type(error) is ConfigError
    assert "Delete it and _last_checkpoint" in str(error)
    assert "backfill" not in str(error)


def test_a_data_file_that_cannot_be_read_now_is_not_called_damaged():
    error = fail_to_read("s3a://lake/b/part-0.parquet", "java.net.SocketTimeoutException: s3a://lake/b: Read timed out")
    assert type(error) is TransientError


@pytest.mark.parametrize("path", ["/lake/b/_event_date=2026-01-31/part-0.parquet", "/lake/b/part-0.parquet"])
def test_a_data_file_that_is_gone_is_no_failure_that_a_retry_cures(path: str):
    message = str(
        explain_failure(RuntimeError(f"Caused by: java.io.FileNotFoundException: File file:{path} does not exist"))
    )
    assert message.startswith(f"{path} is missing")
    assert "DeltaTable('/lake/b').repair()" in message
    assert "nothing was lost" not in message


@pytest.mark.parametrize(
    "text",
    [
        "[CONCURRENT_STREAM_LOG_UPDATE] Concurrent update to the log. Multiple streaming jobs detected for 0.",
        "Multiple streaming queries are concurrently using file:/lake/checkpoint/offsets. SQLSTATE: XXKST",
    ],
)
def test_a_checkpoint_that_another_process_uses_is_named(text: str):
    error = explain_failure(RuntimeError(text), "/lake/checkpoint")
    assert type(error) is BronzeError
    assert str(error).startswith("another process uses the checkpoint /lake/checkpoint")
