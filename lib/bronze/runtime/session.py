"""The Spark session: in a JVM that was handed down as its flags decided, elsewhere a local one with the right jars."""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from pyspark.sql import SparkSession

from bronze.runtime.jars import find_java, get_spark_packages, resolve_jars

log = logging.getLogger(__name__)

SUBSTITUTION = "spark.sql.variable.substitute"
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
_RUNTIME = {
    "spark.sql.session.timeZone": "UTC",
    # A batch of Arrow is complete at either; ten thousand records of 10 MB would be 100 GB.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(32 * 1024 * 1024),
    # A read that leaves out what it cannot read, or an older version, would let the guard double records, the audit
    # name rows that are there, and OPTIMIZE drop them. A cluster's defaults may say so.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.databricks.delta.stalenessLimit": "0",
    # Where a batch does not end although its query is stopped; the default is to wait for ever.
    "spark.sql.streaming.stopTimeout": "30s",
    # A path goes into SQL as it is: ``${HOME}`` in it is a folder's name.
    SUBSTITUTION: "false",
}
# With it, what we escape in quotes would stay escaped. Spark warns of its use, so it is only ever taken back.
_RAW_STRINGS = "spark.sql.parser.escapedStringLiterals"
# Kafka's client properties are options of the source, and plans print options, also in Spark's UI and event log.
_REDACTION = "spark.sql.redaction.options.regex"
_SECRETS = (
    r"(?i)url|secret|password|passphrase|token|jaas|credential|keystore|truststore|kafka\.(sasl|ssl)\.|user\.info"
)
# The same for the settings that Spark's UI lists, and what it hides of them by default.
_SETTINGS_REDACTION = "spark.redaction.regex"
_HIDDEN_SETTINGS = "(?i)secret|password|token|access[.]?key"
_LOCAL = {
    # local[N] never retries a task; the second number is the tries.
    "spark.master": "local[*,4]",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
    # VACUUM and listings start that many tasks, 10,000 by default.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    # Delta reads its log with 50 tasks by default, more than a laptop's table has entries.
    "spark.databricks.delta.snapshotPartitions": "2",
}
# Of a local session that streams. It listens on SPARK_LOCAL_IP, from 4040 on: where other programs have that port and
# all that Spark tries by default, the session would not start.
_UI = {"spark.ui.enabled": "true", "spark.ui.killEnabled": "false", "spark.port.maxRetries": "200"}

_shipped: set[str] = set()  # to which Spark contexts


def has_jvm() -> bool:
    """Whether this process was handed a JVM: spark-submit hands its own down, and so does ``sandbox.jvm``."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def get_session(app_name: str = "bronze-ingestion", show_ui: bool = False) -> SparkSession:
    """The running session, or a new one: in the JVM of spark-submit by its flags, else a local one on all cores.

    Time zone, Arrow's batch sizes and the redaction of Kafka's secrets are set on it in any case.

    Args:
        app_name: Name of the Spark application.
        show_ui: Whether a new local session has Spark's UI, on this machine only; its address is logged.

    Raises:
        JavaNotFound: There is no usable Java.
        JarsNotResolved: The jars are not cached and could not be downloaded.
    """
    builder = SparkSession.builder.appName(app_name)
    is_local = not (has_jvm() or SparkSession.getActiveSession())
    settings = describe_local(show_ui) if is_local else _DELTA
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    apply_settings(spark)
    if has_jvm():
        ship_package(spark)
    if is_local and show_ui:
        _open_ui(spark)
    return spark


def _open_ui(spark: SparkSession) -> None:
    """Hide Kafka's secrets in the settings that the UI of a new session lists, and log where it is.

    Now and not before the start: what the user's own settings hide stays hidden too.
    """
    conf = spark.sparkContext._jsc.sc().conf()
    conf.set(_SETTINGS_REDACTION, extend_redaction(conf.get(_SETTINGS_REDACTION, _HIDDEN_SETTINGS)))
    log.info("Spark's UI, for this machine only: %s/StreamingQuery/", spark.sparkContext.uiWebUrl)


def apply_settings(spark: SparkSession) -> None:
    """Set what a batch needs on a session that may have been made elsewhere; all can be set while it runs."""
    for key, value in _RUNTIME.items():
        spark.conf.set(key, value)
    if spark.conf.get(_RAW_STRINGS) == "true":
        spark.conf.set(_RAW_STRINGS, "false")
    spark.conf.set(_REDACTION, extend_redaction(spark.conf.get(_REDACTION, "") or ""))


def extend_redaction(pattern: str) -> str:
    """A session's own pattern of the options that plans do not show, and ours: neither shows what the other hides."""
    return pattern if _SECRETS in pattern else "|".join(f"(?:{each})" for each in filter(None, (pattern, _SECRETS)))


def ship_package(spark: SparkSession) -> None:
    """Send this package to the executors' Python: a module beside spark-submit's script is in the driver's only.

    Once for a Spark context, as a cluster's refuses a second file of that name. From a zip it was sent by --py-files.
    """
    application, source = spark.sparkContext.applicationId, Path(__file__).parents[2]
    if application in _shipped or source.is_file():
        return
    _shipped.add(application)
    folder = tempfile.mkdtemp(prefix="bronze-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = shutil.make_archive(str(Path(folder, "bronze")), "zip", source, "bronze")
    spark.sparkContext.addPyFile(archive)


def describe_local(show_ui: bool = False) -> dict[str, str]:
    """The settings of a new local session, with its jars; sets what Spark's scripts read from the environment.

    Args:
        show_ui: Whether it has Spark's UI, which then listens on 127.0.0.1 and nowhere else.

    Raises:
        JavaNotFound: There is no usable Java.
        JarsNotResolved: The jars are not cached and could not be downloaded.
    """
    java = find_java()
    if not shutil.which("java"):  # Spark's scripts look in JAVA_HOME and on PATH only
        os.environ["JAVA_HOME"] = os.environ.get("JAVA_HOME") or str(Path(java).parents[1])
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if show_ui:
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    jars = resolve_jars(*get_spark_packages(), beside_spark=True)
    log_config = Path(str(files("bronze") / "log4j2.properties")).as_uri()
    return {
        **_DELTA,
        **_LOCAL,
        **(_UI if show_ui else {}),
        "spark.jars": ",".join(map(str, jars)),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log_config} -Duser.timezone=UTC",
    }
