"""Finds how to reach a path, and whether it can be reached; creates files in S3 only if they are new."""

from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import TablesConfig
from bronze.errors import ConfigError
from bronze.parsing import find_object_store, is_s3, normalize_uri
from bronze.runtime import azure, s3
from bronze.runtime.jars import LOG_STORE, LOG_STORE_CLASS
from bronze.runtime.paths import find_class, list_paths, open_file_system, read_text, to_local_path
from bronze.runtime.spark_errors import explain_failures
from bronze.storage import Storage


def find_storage(path: str) -> Storage:
    """Return how to reach a path now, with the credentials that Hadoop uses at this moment, which may expire.

    Args:
        path: A path with its file system. Only Spark can reach places other than a local disk, S3, and Azure with an
            account key.

    Raises:
        Py4JJavaError: S3A finds no credentials, or the path cannot be used.
    """
    if (local := to_local_path(path)) is not None:
        return Storage(local)
    path = normalize_uri(path)  # a ledger may name it as an earlier version did
    match find_object_store(path):
        case "s3":
            return Storage(path, frozenset(s3.read_storage_settings(SparkSession.active(), path).items()))
        case "azure":
            return Storage(path, frozenset(azure.read_storage_settings(SparkSession.active(), path).items()))
    return Storage(path)


def read_file(place: Storage, name: str) -> bytes | None:
    """Read a file of a place, also of one that only Spark can reach; None if it does not exist."""
    if place.is_direct:
        return place.read(name)
    text = read_text(SparkSession.active(), f"{place.uri}/{name}")
    return None if text is None else text.encode()


def put_if_absent(spark: SparkSession, path: str, content: bytes) -> bool:
    """Write a file unless it exists; in S3 by a conditional request, elsewhere by the rule of the file system.

    Returns:
        Whether the file has this content now, also if the answer to a successful request was lost.

    Raises:
        Py4JJavaError: It cannot be written.
    """
    file_system, hadoop_path = open_file_system(spark, path)
    builder = file_system.createFile(hadoop_path).overwrite(False).recursive()
    if is_s3(path):
        builder = builder.must("fs.option.create.conditional.overwrite", True)
    try:
        stream = builder.build()
        stream.write(bytearray(content))
        stream.close()
    except Py4JJavaError:
        found = read_text(spark, path)
        if found is None:
            raise
        return found.encode() == content
    return True


_LOG_STORE_SETTING = "spark.delta.logStore.s3a.impl"
_QUICK = {
    "fs.s3a.attempts.maximum": "1",
    "fs.s3a.retry.limit": "1",
    "fs.s3a.retry.interval": "100ms",
    "fs.s3a.connection.establish.timeout": "15s",  # S3A warns of less, and takes this
    "fs.s3a.connection.acquisition.timeout": "15s",
    "fs.azure.io.retry.max.retries": "1",
}
_CHECKED: set[str] = set()  # buckets


def check_conditions(spark: SparkSession, folder: str) -> None:
    """Refuse a server that overwrites a file although the request says that it must not exist; asks once per bucket.

    A crash may leave the file of the question in the folder.

    Raises:
        ConfigError: It does.
    """
    if not is_s3(folder) or (bucket := folder.split("/")[2]) in _CHECKED:
        return
    with explain_failures(folder):
        file_system, probe = open_file_system(spark, f"{folder}/_conditional-{uuid4()}")
        is_first = put_if_absent(spark, str(probe), b"first")
        is_second = put_if_absent(spark, str(probe), b"second")
        file_system.delete(probe, False)
    if is_first and is_second:
        raise ConfigError(
            f"the S3 server of {folder} ignores If-None-Match, so that processes would overwrite each other's files",
            hint="use a server that supports conditional writes",
        )
    _CHECKED.add(bucket)


def check_object_stores(spark: SparkSession, config: TablesConfig) -> None:
    """Refuse paths in an object store that cannot be read, within seconds; Hadoop repeats requests for minutes.

    Raises:
        ConfigError: There is no such bucket, or the store refuses the credentials, or there are none. Spark's event log
            shows the credentials.
        BronzeError: The store does not answer.
    """
    if "azure" in config.object_stores:
        azure.check_redaction(spark)
    for option, path in list_paths(config):
        match find_object_store(path):
            case "s3":
                _check_bucket(spark, option, path)
            case "azure":
                _check_container(spark, option, path)


def _check_bucket(spark: SparkSession, option: str, path: str) -> None:
    endpoint = s3.check_server(spark, option, path)
    try:
        _probe(spark, path)
    except (Py4JJavaError, IllegalArgumentException) as error:
        raise s3.explain_refusal(option, path, endpoint, error) from error


def _check_container(spark: SparkSession, option: str, path: str) -> None:
    try:
        _probe(spark, azure.find_probe(spark, option, path))
    except (Py4JJavaError, IllegalArgumentException) as error:
        raise azure.explain_refusal(option, path, error) from None  # the error may have the key


def find_unsupported(path: str) -> str:
    """Return a setting of S3A or ABFS that the direct writer cannot follow; empty if there is none."""
    match find_object_store(path):
        case "s3":
            return s3.find_unsupported(SparkSession.active(), path)
        case "azure":
            return azure.find_unsupported(SparkSession.active(), path)
    return ""


def check_log_store(spark: SparkSession, path: str) -> None:
    """Refuse to let Spark commit to a table in S3 with another log store than ours, which may overwrite commits.

    Raises:
        ConfigError: The session was started with another one.
    """
    # Delta reads it from the settings of the start, not from those of the session.
    if is_s3(path) and spark.sparkContext.getConf().get(_LOG_STORE_SETTING) != LOG_STORE_CLASS:
        raise ConfigError(
            f"Spark's commits to {path} could overwrite those of other drivers, because Delta's own log store for S3 "
            "does not exclude them",
            hint=f"submit with --jars {LOG_STORE} --conf {_LOG_STORE_SETTING}={LOG_STORE_CLASS} "
            f"--conf {_LOG_STORE_SETTING.replace('s3a', 's3')}={LOG_STORE_CLASS}",
        )


def _probe(spark: SparkSession, path: str) -> None:
    """Look a path up once; it need not exist, unless it is the root of a container."""
    conf = find_class(spark, "org.apache.hadoop.conf.Configuration")(spark.sparkContext._jsc.hadoopConfiguration())
    for name, value in _QUICK.items():
        conf.set(name, value)
    hadoop_path = find_class(spark, "org.apache.hadoop.fs.Path")(path)
    file_system = find_class(spark, "org.apache.hadoop.fs.FileSystem").newInstance(hadoop_path.toUri(), conf)
    try:
        file_system.getFileStatus(hadoop_path) if hadoop_path.isRoot() else file_system.exists(hadoop_path)
    finally:
        file_system.close()
