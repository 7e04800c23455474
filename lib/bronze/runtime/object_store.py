"""Reads from S3A and ABFS how to reach a path in S3 or Azure; pyarrow and deltalake use the same settings."""

import os
import re
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import TablesConfig
from bronze.errors import BronzeError, ConfigError, InvalidOptionError, TransientError, to_flag
from bronze.parsing import find_object_store, is_s3, normalize_uri
from bronze.runtime import azure
from bronze.runtime.http import ask_server
from bronze.runtime.jars import LOG_STORE, LOG_STORE_CLASS
from bronze.runtime.paths import find_class, list_paths, open_file_system, read_text, to_local_path
from bronze.runtime.spark_errors import REFUSED_BY_STORE, UNANSWERED, explain_failures, read_reason
from bronze.storage import S3Access, Storage

_AWS = re.compile(r"(?:https?://)?s3\.amazonaws\.com")
_AWS_REGION = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d\b")  # in the name of a host
_REGIONS: dict[str, str] = {}  # by bucket
_NO_REGION = "us-east-1"  # servers other than AWS take any


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
            return Storage(path, _read_s3_access(SparkSession.active(), path))
        case "azure":
            return Storage(path, azure.read_access(SparkSession.active(), path))
    return Storage(path)


def _read_s3_access(spark: SparkSession, path: str) -> S3Access:
    file_system, _ = open_file_system(spark, path)
    conf = file_system.getConf()  # with the settings of the bucket
    endpoint = _read_endpoint(conf)
    found = _AWS_REGION.search(endpoint)
    region = conf.getTrimmed("fs.s3a.endpoint.region", "") or (found[0] if found else "")
    if not region:
        region = _NO_REGION if endpoint else _find_region(file_system, path)
    # Explicit, so that no client takes another one from its environment.
    credentials = _resolve_credentials(file_system)
    if not credentials["session_token"] and os.environ.get("AWS_SESSION_TOKEN"):
        raise ConfigError(
            f"AWS_SESSION_TOKEN in the environment does not belong to the keys that S3A uses for {path}",
            hint="unset it, because deltalake would send it",
        )
    return S3Access(region, endpoint or f"https://s3.{region}.amazonaws.com", **credentials)


def _read_endpoint(conf: Any) -> str:
    """The address of the server, with its scheme; empty for that of AWS, which depends on the region."""
    endpoint = str(conf.getTrimmed("fs.s3a.endpoint", "")).rstrip("/")
    if not endpoint or _AWS.fullmatch(endpoint):
        return ""
    is_encrypted = conf.getBoolean("fs.s3a.connection.ssl.enabled", True)
    return endpoint if "://" in endpoint else f"{'https' if is_encrypted else 'http'}://{endpoint}"


def _find_region(file_system: Any, path: str) -> str:
    """The region of a bucket of AWS, as S3A finds it; it never changes."""
    bucket = path.split("/")[2]
    if bucket not in _REGIONS:
        _REGIONS[bucket] = str(file_system.getS3AInternals().getBucketMetadata().bucketRegion())
    return _REGIONS[bucket]


def _resolve_credentials(file_system: Any) -> dict[str, str]:
    """The credentials that S3A uses; a provider renews those that expire."""
    provider = file_system.getS3AInternals().shareCredentials("bronze")
    try:
        found = provider.resolveCredentials()
    finally:
        provider.close()  # ends only this use
    keys = {"access_key": found.accessKeyId() or "", "secret_key": found.secretAccessKey() or ""}
    return keys | {"session_token": (found.sessionToken() or "") if "sessionToken" in dir(found) else ""}


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
_ENCRYPTION = ("fs.s3a.encryption.algorithm", "fs.s3a.server-side-encryption-algorithm")
_CLIENT_KEYS = ("SSE-C", "CSE")  # deltalake and pyarrow can write without the other algorithms, and read them all
_NO_CREDENTIALS = re.compile(r"NoAuthWithAWS|NoAwsCredentials|Unable to load credentials|No AWS Credentials")
_PATIENCE = 5.0  # seconds
_QUICK = {
    "fs.s3a.attempts.maximum": "1",
    "fs.s3a.retry.limit": "1",
    "fs.s3a.retry.interval": "100ms",
    "fs.s3a.connection.establish.timeout": "5s",
    "fs.s3a.connection.acquisition.timeout": "5s",
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
    conf = _read_settings(spark, path)
    _check_settings(option, path, conf)
    endpoint = _read_endpoint(conf)
    _check_answer(option, path, endpoint)
    try:
        _probe(spark, path)
    except Py4JJavaError as error:
        raise _explain_refusal(option, path, endpoint or "AWS", error) from error


def _check_container(spark: SparkSession, option: str, path: str) -> None:
    try:
        _probe(spark, azure.find_probe(spark, option, path))
    except (Py4JJavaError, IllegalArgumentException) as error:
        raise azure.explain_refusal(option, path, error) from None  # the error may have the key


def _check_answer(option: str, path: str, endpoint: str) -> None:
    """Ask a server other than AWS for a sign of life, because S3A waits long for one that is silent.

    Raises:
        BronzeError: It does not answer.
    """
    try:
        if endpoint:
            ask_server(endpoint, "HEAD", _PATIENCE)
    except OSError as error:
        raise _no_answer_error(option, path, endpoint, str(error)) from error


def find_unsupported(path: str) -> str:
    """Return a setting of S3A or ABFS that the direct writer cannot follow; empty if there is none."""
    if find_object_store(path) == "azure":
        return azure.find_unsupported(SparkSession.active(), path)
    if not is_s3(path):
        return ""
    conf = open_file_system(SparkSession.active(), path)[0].getConf()
    return next((name for name in _ENCRYPTION if conf.getTrimmed(name, "")), "")


def _check_settings(option: str, path: str, conf: Any) -> None:
    """Refuse settings of S3A with which deltalake and pyarrow cannot read a table.

    Raises:
        ConfigError: Names the setting.
    """
    encrypted = [name for name in _ENCRYPTION if conf.getTrimmed(name, "").upper().startswith(_CLIENT_KEYS)]
    proxy = ["fs.s3a.proxy.host"] if conf.getTrimmed("fs.s3a.proxy.host", "") else []
    if found := [*encrypted, *proxy]:
        raise ConfigError(
            f"{to_flag(option)}: {path} cannot be used with {found[0]}, because deltalake and pyarrow cannot follow it",
            hint="unset it, also for this bucket",
        )


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


def _read_settings(spark: SparkSession, path: str) -> Any:
    """The settings of a path's bucket, without a request to it."""
    utils = find_class(spark, "org.apache.hadoop.fs.s3a.S3AUtils")
    return utils.propagateBucketOptions(spark.sparkContext._jsc.hadoopConfiguration(), path.split("/")[2])


def _explain_refusal(option: str, path: str, endpoint: str, error: Py4JJavaError) -> BronzeError:
    text, reason, bucket = str(error), read_reason(error), path.split("/")[2]
    if "UnknownStoreException" in text or "NoSuchBucket" in text:
        return InvalidOptionError(
            option, path, f"a path in a bucket that exists; there is no bucket {bucket!r} at {endpoint}"
        )
    if _NO_CREDENTIALS.search(text):
        return ConfigError(
            f"{to_flag(option)}: there are no credentials for {path}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fs.s3a.aws.credentials.provider",
        )
    if REFUSED_BY_STORE.search(text):
        return ConfigError(
            f"{to_flag(option)}: S3 at {endpoint} refuses the credentials for {path}: {reason}",
            hint="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the settings fs.s3a.*, and what they may do",
        )
    if UNANSWERED.search(text):
        return _no_answer_error(option, path, endpoint, reason)
    return ConfigError(
        f"{to_flag(option)}: {path} cannot be read from S3 at {endpoint}: {reason}",
        hint="correct the settings fs.s3a.*, the endpoint or the region",
    )


def _no_answer_error(option: str, path: str, endpoint: str, reason: str) -> TransientError:
    return TransientError(
        f"{to_flag(option)}: S3 at {endpoint} does not answer for {path}: {reason}",
        hint="run the same command again once it does, or correct the endpoint (AWS_ENDPOINT_URL, or fs.s3a.endpoint)",
    )
