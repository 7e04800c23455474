"""Reads from S3A, Hadoop's connector, how to reach a path in S3, and explains why it cannot be reached."""

import os
import re
from typing import Any
from urllib.parse import quote

from pyspark.sql import SparkSession

from bronze.errors import BronzeError, ConfigError, InvalidOptionError, TransientError, to_flag
from bronze.runtime.http import ask_server
from bronze.runtime.paths import find_class, open_file_system
from bronze.runtime.spark_errors import REFUSED_BY_STORE, UNANSWERED, read_reason

_AWS = re.compile(r"(?:https?://)?s3\.amazonaws\.com")
_AWS_REGION = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d\b")  # in the name of a host
_HOST_NAME = re.compile("[a-z0-9-]+")
_IP_ADDRESS = re.compile(r"(?:[\d.]+|\[.+\])(?::\d+)?")
_REGIONS: dict[str, str] = {}  # by bucket
_NO_REGION = "us-east-1"  # servers other than AWS take any
_NO_CREDENTIALS = re.compile(r"NoAuthWithAWS|NoAwsCredentials|Unable to load credentials|No AWS Credentials")
_PATIENCE = 5.0  # seconds
_ENCRYPTION = {
    "AES256": "AES256",
    "SSE-KMS": "aws:kms",
    "DSSE-KMS": "aws:kms:dsse",
    "SSE-C": "sse-c",
}  # to object_store


def read_storage_settings(spark: SparkSession, path: str) -> dict[str, str]:
    """The settings of object_store for a path, with the credentials that S3A uses at this moment.

    Raises:
        ConfigError: The environment has a token that object_store would add to them.
        Py4JJavaError: S3A finds no credentials, or the path cannot be used.
    """
    file_system, _ = open_file_system(spark, path)
    bucket, conf = path.split("/")[2], file_system.getConf()  # with the settings of the bucket
    endpoint = _read_endpoint(conf)
    found = _AWS_REGION.search(endpoint)
    region = conf.getTrimmed("fs.s3a.endpoint.region", "") or (found[0] if found else "")
    if not region:
        region = _NO_REGION if endpoint else _find_region(file_system, bucket)
    credentials = _resolve_credentials(file_system)
    token = next((name for name in ("AWS_SESSION_TOKEN", "AWS_TOKEN") if os.environ.get(name)), None)
    if token and "AWS_SESSION_TOKEN" not in credentials:
        raise ConfigError(
            f"{token} in the environment does not belong to the keys that S3A uses for {path}",
            hint="unset it, because deltalake and obstore would send it",
        )
    endpoint = endpoint or f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    # All of them, because object_store takes those that are missing from the environment.
    return {
        **credentials,
        "AWS_REGION": region,
        "AWS_CONDITIONAL_PUT": "etag",
        "AWS_SKIP_SIGNATURE": "false",
        "AWS_S3_EXPRESS": "false",
        **_name_bucket(bucket, endpoint, conf),
        **_read_encryption(spark, bucket, conf),
        **_read_proxy(spark, bucket, conf),
    }


def _read_endpoint(conf: Any) -> str:
    """The address of the server, with its scheme; empty for that of AWS, which depends on the region."""
    endpoint = str(conf.getTrimmed("fs.s3a.endpoint", "")).rstrip("/")
    if not endpoint or _AWS.fullmatch(endpoint):
        return ""
    is_encrypted = conf.getBoolean("fs.s3a.connection.ssl.enabled", True)
    return endpoint if "://" in endpoint else f"{'https' if is_encrypted else 'http'}://{endpoint}"


def _find_region(file_system: Any, bucket: str) -> str:
    """The region of a bucket of AWS, as S3A finds it; it never changes."""
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
    keys = {"AWS_ACCESS_KEY_ID": found.accessKeyId() or "", "AWS_SECRET_ACCESS_KEY": found.secretAccessKey() or ""}
    token = found.sessionToken() if "sessionToken" in dir(found) else ""
    return keys | ({"AWS_SESSION_TOKEN": token} if token else {})


def _name_bucket(bucket: str, endpoint: str, conf: Any) -> dict[str, str]:
    """Name the bucket in the host, as S3A does, or in the path if it must or cannot be in a host."""
    scheme, _, host = endpoint.partition("://")
    can_be_in_host = _HOST_NAME.fullmatch(bucket) and not _IP_ADDRESS.fullmatch(host)
    in_host = bool(can_be_in_host) and not conf.getBoolean("fs.s3a.path.style.access", False)
    return {
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(in_host).lower(),
        "AWS_ENDPOINT_URL_S3": f"{scheme}://{bucket}.{host}" if in_host else endpoint,
        "allow_http": str(scheme == "http").lower(),
    }


def _read_encryption(spark: SparkSession, bucket: str, conf: Any) -> dict[str, str]:
    secrets = find_class(spark, "org.apache.hadoop.fs.s3a.S3AUtils").buildEncryptionSecrets(bucket, conf)
    algorithm = _ENCRYPTION.get(secrets.getEncryptionAlgorithm() or "")
    if algorithm is None:
        return {}
    key = {"AWS_SSE_CUSTOMER_KEY_BASE64" if algorithm == "sse-c" else "AWS_SSE_KMS_KEY_ID": secrets.getEncryptionKey()}
    return {"AWS_SERVER_SIDE_ENCRYPTION": algorithm} | {name: value for name, value in key.items() if value}


def _read_proxy(spark: SparkSession, bucket: str, conf: Any) -> dict[str, str]:
    if not (address := _find_proxy(conf)):
        return {}
    look_up = find_class(spark, "org.apache.hadoop.fs.s3a.S3AUtils").lookupPassword
    user, password = (look_up(bucket, conf, f"fs.s3a.proxy.{name}") or "" for name in ("username", "password"))
    login = f"{quote(user, '')}:{quote(password, '')}@" if user else ""
    return {"proxy_url": address.replace("://", f"://{login}")}


def _find_proxy(conf: Any) -> str:
    """The address of the proxy; empty if there is none."""
    host = conf.getTrimmed("fs.s3a.proxy.host", "")
    scheme = "https" if conf.getBoolean("fs.s3a.proxy.ssl.enabled", False) else "http"
    port = conf.getInt("fs.s3a.proxy.port", 443 if conf.getBoolean("fs.s3a.connection.ssl.enabled", True) else 80)
    return f"{scheme}://{host}:{port}" if host else ""


def find_unsupported(spark: SparkSession, path: str) -> str:
    """Return a setting that only S3A can follow; empty if there is none."""
    conf = open_file_system(spark, path)[0].getConf()
    return "fs.s3a.encryption.context" if conf.getTrimmed("fs.s3a.encryption.context", "") else ""


def check_server(spark: SparkSession, option: str, path: str) -> str:
    """Refuse encryption by the client, and a server that does not answer; S3A waits long for one that is silent.

    Returns:
        The address of the server, with that of the proxy.

    Raises:
        ConfigError: Names the setting, which deltalake and obstore cannot follow.
        BronzeError: A server other than AWS, or the proxy, does not answer.
    """
    utils = find_class(spark, "org.apache.hadoop.fs.s3a.S3AUtils")
    conf = utils.propagateBucketOptions(spark.sparkContext._jsc.hadoopConfiguration(), path.split("/")[2])
    for name in ("fs.s3a.encryption.algorithm", "fs.s3a.server-side-encryption-algorithm"):
        if conf.getTrimmed(name, "").upper().startswith("CSE"):
            raise ConfigError(
                f"{to_flag(option)}: {path} cannot be used with {name}, because deltalake and obstore cannot follow it",
                hint="unset it, also for this bucket",
            )
    endpoint, proxy = _read_endpoint(conf), _find_proxy(conf)
    server = f"{endpoint or 'AWS'} through the proxy {proxy}" if proxy else endpoint or "AWS"
    try:
        if asked := proxy or endpoint:
            ask_server(asked, "HEAD", _PATIENCE)
    except OSError as error:
        raise _no_answer_error(option, path, server, str(error)) from error
    return server


def explain_refusal(option: str, path: str, endpoint: str, error: Exception) -> BronzeError:
    """The condition behind an error of S3A at the first contact, with its cure."""
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
        hint="run the same command again once it does, or correct the endpoint (AWS_ENDPOINT_URL, or "
        "fs.s3a.endpoint) or the proxy (fs.s3a.proxy.host)",
    )
