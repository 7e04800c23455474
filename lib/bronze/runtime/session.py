"""The Spark session: in the JVM of spark-submit with its flags, otherwise a local session with the right jars."""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from bronze.config import Config, IngestConfig
from bronze.errors import BronzeError
from bronze.runtime.azure import HIDDEN_SETTINGS
from bronze.runtime.jars import LOG_STORE_CLASS, check_spark, find_java, list_jars
from bronze.runtime.jvm import join_session, prepare_environment, start_session
from bronze.runtime.logs import RUN_ID

log = logging.getLogger(__name__)

SUBSTITUTION = "spark.sql.variable.substitute"
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
_RUNTIME = {
    "spark.sql.session.timeZone": "UTC",
    # An Arrow batch ends at whichever limit it reaches first; ten thousand records of 10 MB would be 100 GB.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(32 * 1024 * 1024),
    # The tasks take values as Arrow's binary, which has offsets of 32 bits.
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    # If a read skipped files or used an older version, the guard would duplicate records, the audit would report rows
    # that exist, and OPTIMIZE would drop rows. A cluster's defaults may allow both.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.databricks.delta.stalenessLimit": "0",
    # Limits the wait for a batch that does not end when its query is stopped; by default Spark waits forever.
    "spark.sql.streaming.stopTimeout": "30s",
    # Paths are used in SQL literally: ``${HOME}`` in a path is the name of a folder.
    SUBSTITUTION: "false",
}
# If it is true, the backslashes that we use as escapes in quotes stay. Spark warns if it is set, so reset it only if
# true.
_RAW_STRINGS = "spark.sql.parser.escapedStringLiterals"
# Kafka's client properties are options of the source; query plans, Spark's UI and the event log print options.
_REDACTION = "spark.sql.redaction.options.regex"
_SECRETS = (
    r"(?i)url|secret|password|passphrase|token|jaas|credential|keystore|truststore|kafka\.(sasl|ssl)\.|user\.info"
    r"|account\.key"
)
# The same for the settings that Spark's UI lists.
_SETTINGS_REDACTION = "spark.redaction.regex"
# How long Spark keeps what a consumer has fetched beyond its range, and how often it looks: 5 minutes and 1 by default.
DROPS_FETCHED = "spark.kafka.consumer.fetchedData.cache.timeout"
_LOCAL = {
    DROPS_FETCHED: "30s",
    "spark.kafka.consumer.fetchedData.cache.evictorThreadRunInterval": "30s",
    # local[N] never retries a task; the second number is the attempts.
    "spark.master": "local[*,4]",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
    # The number of tasks that VACUUM and listings start; the default is 10,000.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    # The number of tasks that read the Delta log; the default is 50, more than the entries of a small table.
    "spark.databricks.delta.snapshotPartitions": "2",
}
# If Azure no longer answers, ABFS repeats each request for ten minutes, so that even the end of a run takes as long.
# Here the query is restarted instead. Metrics are sent when the JVM ends.
_AZURE = {
    "spark.hadoop.fs.azure.io.retry.max.retries": "5",
    "spark.hadoop.fs.azure.metrics.collection.enabled": "false",
}
# For a local session that streams. The UI takes the first free port from 4040 on. If Spark finds none, the session does
# not start; so it tries more ports than by default.
_UI = {"spark.ui.enabled": "true", "spark.ui.killEnabled": "false", "spark.port.maxRetries": "200"}

_shipped: set[str] = set()  # ids of the Spark contexts that have the package


def has_jvm() -> bool:
    """Whether this process got a JVM from its parent, which is spark-submit or ``sandbox.jvm``."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def get_session(config: Config | None = None, app_name: str = "bronze-ingestion") -> SparkSession:
    """The running session, or a new one: in the JVM of spark-submit with its flags, otherwise a local one on all cores.

    Time zone, Arrow's batch sizes and the redaction of Kafka's secrets are set in every session.

    Args:
        config: What a new local session is for. For a stream it has Spark's UI, on 127.0.0.1 only, and its address is
            logged. For paths in an object store, it has the jars of its connector.
        app_name: Name of the Spark application.

    Raises:
        ConfigError: There is no usable Java, Spark does not start, or it has another version than 4.2.
        BronzeError: The jars are not cached and could not be downloaded.
    """
    check_spark()
    builder = SparkSession.builder.appName(app_name)
    is_local = not (has_jvm() or SparkSession.getActiveSession())
    show_ui = isinstance(config, IngestConfig) and not config.available_now
    stores, log_format = (config.object_stores, config.log_format) if config else ((), "text")
    settings = local_settings(show_ui, stores, log_format) if is_local else _DELTA
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = start_session(builder, settings["spark.driver.memory"]) if is_local else join_session(builder, has_jvm())
    apply_settings(spark)
    if has_jvm():
        ship_package(spark)
    if is_local and show_ui:
        _open_ui(spark)
    return spark


def _open_ui(spark: SparkSession) -> None:
    """Hide Kafka's secrets in the settings that the UI of a new session lists, and log its address.

    This happens after the start, so that the user's own pattern, which only the session knows, still applies.
    """
    conf = spark.sparkContext._jsc.sc().conf()
    conf.set(_SETTINGS_REDACTION, extend_redaction(conf.get(_SETTINGS_REDACTION, HIDDEN_SETTINGS)))
    log.info("Spark's UI, on this machine only: %s/StreamingQuery/", spark.sparkContext.uiWebUrl)


def check_running(spark: SparkSession) -> None:
    """Refuse a session that was stopped, as the last cell of a notebook does.

    Raises:
        BronzeError: It was stopped.
    """
    if spark.sparkContext._jsc is None or spark.sparkContext._jsc.sc().isStopped():
        raise BronzeError(
            "this Spark session was stopped",
            hint="run the same command again, or in a notebook the cell with `spark = get_session(…)` and the next",
        )


def read_table(spark: SparkSession, path: str) -> DataFrame:
    """The rows of a Delta table.

    Raises:
        BronzeError: The session was stopped.
    """
    check_running(spark)
    return spark.read.format("delta").load(path)


def apply_settings(spark: SparkSession) -> None:
    """Apply the settings that a batch needs, also to a session from elsewhere; all can be changed at run time.

    They count in this thread only from now on: in a new one, such as after an interrupt, Spark has its defaults.
    """
    SparkSession._get_j_spark_session_class(spark._jvm).setActiveSession(spark._jsparkSession)
    for key, value in _RUNTIME.items():
        spark.conf.set(key, value)
    if spark.conf.get(_RAW_STRINGS) == "true":
        spark.conf.set(_RAW_STRINGS, "false")
    spark.conf.set(_REDACTION, extend_redaction(spark.conf.get(_REDACTION, "") or ""))


def extend_redaction(pattern: str) -> str:
    """Combine a session's redaction pattern with ours: options that match either pattern are hidden."""
    return pattern if _SECRETS in pattern else "|".join(f"(?:{each})" for each in filter(None, (pattern, _SECRETS)))


def ship_package(spark: SparkSession) -> None:
    """Send this package to the executors: modules next to spark-submit's script are only on the driver.

    Done once per Spark context, because a cluster refuses a second file of that name. A package that runs from a zip
    was already sent with --py-files.
    """
    application, source = spark.sparkContext.applicationId, Path(__file__).parents[2]
    if application in _shipped or source.is_file():
        return
    _shipped.add(application)
    folder = tempfile.mkdtemp(prefix="bronze-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = shutil.make_archive(str(Path(folder, "bronze")), "zip", source, "bronze")
    spark.sparkContext.addPyFile(archive)


def local_settings(show_ui: bool = False, stores: Collection[str] = (), log_format: str = "text") -> dict[str, str]:
    """The settings of a new local session, with its jars; sets the environment variables that Spark's scripts read.

    Args:
        show_ui: Whether it has Spark's UI, which listens on 127.0.0.1 only.
        stores: The object stores that it can use: ``s3``, ``azure``.
        log_format: Format of Spark's log.

    Raises:
        ConfigError: There is no usable Java.
        BronzeError: The jars are not cached and could not be downloaded.
    """
    prepare_environment()
    java = find_java()
    if not shutil.which("java"):  # Spark's scripts look only in JAVA_HOME and on PATH
        os.environ["JAVA_HOME"] = os.environ.get("JAVA_HOME") or str(Path(java).parents[1])
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if show_ui or "SPARK_LOCAL_IP" not in os.environ:
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    log_config = Path(str(files("bronze") / "log4j2.properties")).as_uri()
    return {
        **_DELTA,
        **_LOCAL,
        **(_UI if show_ui else {}),
        **(list_s3_settings(os.environ) if "s3" in stores else {}),
        **(_AZURE if "azure" in stores else {}),
        "spark.jars": ",".join(map(str, list_jars(stores))),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log_config} -Duser.timezone=UTC "
        f"-Dbronze.logFormat={log_format} -Dbronze.runId={RUN_ID} "
        # Java's optimizing compiler needs the same cores. It takes a method only after ten times the default number of
        # calls: a start is about a fifth shorter, and batches were not slower (benchmarks/README.md).
        "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
        "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000",
    }


def list_s3_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of S3A in a local session: the endpoint and region of AWS's environment variables.

    S3A itself reads only the keys from there. A server other than AWS rarely has a host name per bucket.

    Args:
        environment: The environment variables.
    """
    settings = {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
        # Hadoop 3.5's default does not repeat a read that ends early, and keeps an entry per file (HADOOP-20058).
        "spark.hadoop.fs.s3a.input.stream.type": "classic",
        **{f"spark.delta.logStore.{scheme}.impl": LOG_STORE_CLASS for scheme in ("s3", "s3a")},
    }
    if endpoint := environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"):
        settings |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    if region := environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"):
        settings["spark.hadoop.fs.s3a.endpoint.region"] = region
    return settings
