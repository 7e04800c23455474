"""Stops a running ingestion on a signal, a stop file, an HTTP call, or the shutdown of spark-submit's JVM.

A stop request blocks the next batch. The current batch is committed, and Spark notes it in the checkpoint, so the next
start repeats nothing.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from bronze.errors import BronzeError
from bronze.runtime.paths import find_class
from bronze.runtime.spark_errors import failed_query_error

log = logging.getLogger(__name__)

# Higher than the priorities of Spark (40) and Hadoop's file systems (10), so this hook runs before the session ends.
_HOOK_PRIORITY = 100
# The error text that Spark takes for an interruption. It has no stack trace, because Spark matches it with a regular
# expression that recurses at each character, and a long text could overflow the thread's stack.
_INTERRUPTED = "py4j.protocol.Py4JJavaError: An error occurred while calling sleep: java.lang.InterruptedException"
# Stopping a query takes only moments.
_HELD_SECONDS = 600


class StopSwitch:
    """Records a stop request and its reason, and blocks further batches."""

    def __init__(self) -> None:
        self.reason = ""
        self.error: BronzeError | None = None
        self.signals = 0
        self.is_holding = threading.Event()
        self.has_ended = threading.Event()

    def request(self, reason: str, error: BronzeError | None = None) -> None:
        """Request a stop. The first reason and error are kept; the run raises the error once it has stopped."""
        self.reason, self.error = self.reason or reason, self.error or error

    def block_if_stopping(self, spark: SparkSession) -> None:
        """Return at once, or wait for the query's end if a stop was requested.

        This runs in a callback, and sleeps in its JVM thread. ``query.stop()`` interrupts that thread, and Spark treats
        the error as a stop, not as a failure (``StreamExecution.isInterruptionException``).

        Raises:
            BronzeError: The query was stopped.
        """
        if self.reason:
            self.is_holding.set()
            try:
                find_class(spark, "java.lang.Thread").sleep(_HELD_SECONDS * 1000)
            except Py4JJavaError:
                raise failed_query_error(_INTERRUPTED) from None
            raise failed_query_error(f"it was not stopped within {_HELD_SECONDS} s")


@contextmanager
def listen_for_stop(switch: StopSwitch, spark: SparkSession, stop_timeout: int) -> Iterator[None]:
    """Accept stop requests from signals and the JVM until the block ends."""
    with _catch_signals(switch), _hook_into_jvm(switch, spark, stop_timeout):
        try:
            yield
        finally:
            switch.has_ended.set()  # first: the JVM waits for it


@contextmanager
def _catch_signals(switch: StopSwitch) -> Iterator[None]:
    """Handle SIGTERM and SIGINT (also of a notebook's kernel), in the main thread only: Python allows no other."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: Any) -> None:
        switch.request(signal.Signals(number).name)
        switch.signals += 1
        if switch.signals > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _JvmEnd:
    """JVM shutdown hook, for example on SIGTERM to spark-submit: request a stop and wait for it."""

    def __init__(self, switch: StopSwitch, seconds: float):
        self._switch, self._seconds = switch, seconds

    def run(self) -> None:
        self._switch.request("the shutdown of the JVM")
        self._switch.has_ended.wait(self._seconds)

    class Java:
        implements = ("java.lang.Runnable",)


@contextmanager
def _hook_into_jvm(switch: StopSwitch, spark: SparkSession, stop_timeout: int) -> Iterator[None]:
    ensure_callback_server_started(spark.sparkContext._gateway)  # type: ignore[no-untyped-call]
    seconds = stop_timeout + 10  # time to stop the query after the timeout
    hook = find_class(spark, "java.lang.Thread")(_JvmEnd(switch, seconds))
    manager = find_class(spark, "org.apache.hadoop.util.ShutdownHookManager").get()
    manager.addShutdownHook(hook, _HOOK_PRIORITY, seconds, find_class(spark, "java.util.concurrent.TimeUnit").SECONDS)
    try:
        yield
    finally:
        if not manager.isShutdownInProgress():
            manager.removeShutdownHook(hook)


def check_stop_file(switch: StopSwitch, stop_file: str) -> None:
    """Request a stop if the file exists; the user must remove the file before the next start."""
    if stop_file and os.path.exists(stop_file):  # noqa: PTH110 (Path.exists would raise the errors of a network disk)
        switch.request(f"the stop file {stop_file}")


def stop_query(query: StreamingQuery, switch: StopSwitch, stop_timeout: int) -> None:
    """Stop a query once the current batch is done, or after ``stop_timeout`` seconds in the middle of it.

    A batch is done when Spark has noted it in the checkpoint: when the next one is blocked, or none is active.

    Raises:
        StreamingQueryException: The batch failed meanwhile.
    """
    log.info("Stopping (requested by %s): the current batch will commit, and no other batch starts", switch.reason)
    end = time.monotonic() + stop_timeout
    while query.isActive and query.status["isTriggerActive"] and not switch.is_holding.is_set():
        if time.monotonic() > end:
            log.warning("the batch took longer than --stop-timeout, %d s; the next start runs it again", stop_timeout)
            break
        time.sleep(0.05)
    if not query.isActive:
        query.awaitTermination()  # raises if the query failed; stop() would hide that
    query.stop()
