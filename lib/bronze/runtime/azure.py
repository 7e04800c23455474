"""Reads from ABFS, Hadoop's connector, how to reach a path in Azure, and explains why it cannot be reached."""

import os
import re
from typing import Any

from pyspark.sql import SparkSession

from bronze.errors import BronzeError, ConfigError, InvalidOptionError, TransientError, to_flag
from bronze.runtime.paths import find_class
from bronze.runtime.spark_errors import REFUSED_BY_STORE, UNANSWERED, read_reason
from bronze.storage import AzureAccess

_HOST = re.compile(r"[^@]+@(?P<host>(?P<account>[^.]+)\.(?:dfs|blob)\.core\.windows\.net)")
_KEY = "fs.azure.account.key"
_NO_KEY = re.compile(rf"Failure to initialize configuration|{re.escape(_KEY)}")
_NO_CONTAINER = re.compile(r"(?:Container|Filesystem)NotFound|specified (?:container|filesystem) does not exist")


def read_access(spark: SparkSession, path: str) -> AzureAccess | None:
    """The account and its key; None if only ABFS can follow its settings: another login, encryption, another cloud."""
    if not (found := _HOST.fullmatch(path.split("/")[2])):
        return None
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    settings = _read_settings(spark, found["host"])
    emulator = str(conf.getTrimmed("fs.azure.abfs.endpoint", ""))
    if emulator and os.environ.get("AZURITE_BLOB_STORAGE_URL") != f"http://{emulator}":  # deltalake's address of it
        return None
    if str(settings.getAuthType(found["host"])) != "SharedKey" or conf.getPropsWithPrefix("fs.azure.encryption."):
        return None
    return AzureAccess(found["account"], settings.getStorageAccountKey(), emulator)


def _read_settings(spark: SparkSession, host: str) -> Any:
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    return find_class(spark, "org.apache.hadoop.fs.azurebfs.AbfsConfiguration")(conf, host)


def read_key(spark: SparkSession, path: str) -> None:
    """Read the account key of a path, if it has one: if ABFS itself fails to, it logs the key.

    Raises:
        Py4JJavaError: It cannot be used.
    """
    host = path.split("/")[2].rpartition("@")[2]
    settings = _read_settings(spark, host)
    if str(settings.getAuthType(host)) == "SharedKey":
        settings.getStorageAccountKey()


def check_redaction(spark: SparkSession) -> None:
    """Refuse an event log that shows the account key: Spark's own pattern does not match the name of its setting.

    Raises:
        ConfigError: It does.
    """
    conf = spark.sparkContext.getConf()
    shown = [name for name, _ in conf.getAll() if name.startswith(f"spark.hadoop.{_KEY}")]
    pattern = conf.get("spark.redaction.regex", "(?i)secret|password|token|access[.]?key") or ""
    if conf.get("spark.eventLog.enabled") == "true" and any(not re.search(pattern, name) for name in shown):
        raise ConfigError(
            f"Spark's event log shows the value of {shown[0]}",
            hint="add account[.]key to spark.redaction.regex, or take the key from a file "
            "(hadoop.security.credential.provider.path)",
        )


def explain_refusal(option: str, path: str, error: Exception) -> BronzeError:
    """The condition behind an error of ABFS at the first contact, with its cure."""
    text, reason, (container, _, host) = str(error), read_reason(error), path.split("/")[2].partition("@")
    if _NO_CONTAINER.search(text):
        return InvalidOptionError(option, path, f"a path in a container that exists; there is no {container!r}")
    if _NO_KEY.search(text):
        return ConfigError(
            f"{to_flag(option)}: there is no usable account key for {path}",
            hint=f"set fs.azure.account.key.{host} to a key of the account, as Azure shows it",
        )
    if REFUSED_BY_STORE.search(text):
        return ConfigError(
            f"{to_flag(option)}: Azure refuses the credentials for {path}: {reason}",
            hint=f"check fs.azure.account.key.{host}",
        )
    if UNANSWERED.search(text) and "UnknownHostException" not in text:
        return TransientError(
            f"{to_flag(option)}: Azure does not answer for {path}: {reason}",
            hint="run the same command again once it does",
        )
    return ConfigError(
        f"{to_flag(option)}: {path} cannot be read from Azure: {reason}",
        hint="correct the name of the account, or the settings fs.azure.*",
    )
