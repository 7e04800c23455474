"""How a running ingestion is stopped: by a signal, a stop file, an HTTP call, or the end of spark-submit's JVM.

A request closes the gate before the next batch. The batch that runs is committed, with Spark's own note of it in the
checkpoint; so the next start repeats nothing.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from bronze.config import IngestConfig
from bronze.errors import BronzeError
from bronze.runtime.spark_errors import failed_query_error
from bronze.stop_http import serve_stop

log = logging.getLogger(__name__)

# Above those of Spark (40) and of Hadoop's file systems (10): it is called before the session ends.
_HOOK_PRIORITY = 100
# What Spark takes for an interruption, without the stack trace: it looks with a regular expression that recurses at
# each character, and a stack trace could overflow its thread's stack.
_INTERRUPTED = "py4j.protocol.Py4JJavaError: An error occurred while calling sleep: java.lang.InterruptedException"
# A query that is being stopped is stopped within moments.
_HELD_SECONDS = 600


class StopSwitch:
    """Whether a stop was asked for and by what, and the gate that it closes."""

    def __init__(self) -> None:
        self.reason = ""
        self.error: BronzeError | None = None
        self.signals = 0
        self.is_holding = threading.Event()
        self.has_ended = threading.Event()

    def request(self, reason: str, error: BronzeError | None = None) -> None:
        """Ask for a stop; the first to ask is the one that is named. An error is raised once the run has stopped."""
        self.reason, self.error = self.reason or reason, self.error or error

    def block_if_stopping(self, spark: SparkSession) -> None:
        """Let a batch begin, unless a stop was asked for: then wait for the query's end.

        This runs in a callback, whose JVM thread sleeps here. ``query.stop()`` interrupts that thread, and Spark takes
        the error for a stop and not for a failure (``StreamExecution.isInterruptionException``).

        Raises:
            BronzeError: The query was stopped.
        """
        if self.reason:
            self.is_holding.set()
            try:
                spark._jvm.java.lang.Thread.sleep(_HELD_SECONDS * 1000)  # type: ignore[union-attr]
            except Py4JJavaError:
                raise failed_query_error(_INTERRUPTED) from None
            raise failed_query_error(f"it was not stopped within {_HELD_SECONDS} s")


@contextmanager
def listen_for_stop(switch: StopSwitch, spark: SparkSession, config: IngestConfig) -> Iterator[None]:
    """Take requests to stop, by signals, the JVM and HTTP, until the block ends.

    Raises:
        ConfigError: The HTTP server cannot listen.
    """
    with ExitStack() as stack:
        stack.enter_context(_catch_signals(switch))
        stack.enter_context(_hook_into_jvm(switch, spark, config.stop_timeout))
        if config.http_port:
            stack.enter_context(serve_stop(switch.request, spark.sparkContext.applicationId, config))
        stack.callback(switch.has_ended.set)  # called first: the JVM waits for it
        yield


@contextmanager
def _catch_signals(switch: StopSwitch) -> Iterator[None]:
    """SIGTERM and SIGINT, also the interrupt of a notebook's kernel; Python takes signals in its main thread only."""
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
    """What the JVM runs when it is told to end, as by SIGTERM to spark-submit: ask for a stop and wait for it."""

    def __init__(self, switch: StopSwitch, seconds: float):
        self._switch, self._seconds = switch, seconds

    def run(self) -> None:
        self._switch.request("the end of the JVM")
        self._switch.has_ended.wait(self._seconds)

    class Java:
        implements = ("java.lang.Runnable",)


@contextmanager
def _hook_into_jvm(switch: StopSwitch, spark: SparkSession, stop_timeout: int) -> Iterator[None]:
    jvm: Any = spark._jvm
    ensure_callback_server_started(spark.sparkContext._gateway)  # type: ignore[no-untyped-call]
    seconds = stop_timeout + 10  # what it takes to stop after the time is over
    hook = jvm.java.lang.Thread(_JvmEnd(switch, seconds))
    manager = jvm.org.apache.hadoop.util.ShutdownHookManager.get()
    manager.addShutdownHook(hook, _HOOK_PRIORITY, seconds, jvm.java.util.concurrent.TimeUnit.SECONDS)
    try:
        yield
    finally:
        if not manager.isShutdownInProgress():
            manager.removeShutdownHook(hook)


def check_stop_file(switch: StopSwitch, stop_file: str) -> None:
    """Ask for a stop where the file is there; it stays, and must be removed before the next start."""
    if stop_file and Path(stop_file).exists():
        switch.request(f"the stop file {stop_file}")


def stop_query(query: StreamingQuery, switch: StopSwitch, stop_timeout: int) -> None:
    """Stop a query once the batch that runs is done; after ``stop_timeout`` seconds, in the middle of it.

    A batch is done when Spark has noted it in the checkpoint: when the next one waits at the gate, or none is active.

    Raises:
        StreamingQueryException: The batch failed meanwhile.
    """
    log.info("Stopping, asked by %s: the batch that runs is committed, no other is started", switch.reason)
    end = time.monotonic() + stop_timeout
    while query.isActive and query.status["isTriggerActive"] and not switch.is_holding.is_set():
        if time.monotonic() > end:
            log.warning("the batch took longer than --stop-timeout, %d s; it is run again", stop_timeout)
            break
        time.sleep(0.05)
    if not query.isActive:
        query.awaitTermination()  # raises where it failed; a stop would hide that
    query.stop()
