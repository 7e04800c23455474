"""Reads from ABFS, Hadoop's connector, how to reach a path in Azure, and explains why it cannot be reached."""

import os
import re
from typing import Any

from pyspark.sql import SparkSession

from bronze.errors import BronzeError, ConfigError, InvalidOptionError, TransientError, to_flag
from bronze.runtime.paths import find_class
from bronze.runtime.spark_errors import REFUSED_BY_STORE, UNANSWERED, read_reason

HIDDEN_SETTINGS = "(?i)secret|password|token|access[.]?key"  # what Spark hides by default
_KEY = "fs.azure.account.key"
_EMULATOR = "fs.azure.abfs.endpoint"
_ENCRYPTION = "fs.azure.encryption."
_NO_KEY = re.compile(rf"Failure to initialize configuration|{re.escape(_KEY)}")
_NO_CONTAINER = re.compile(r"(?:Container|Filesystem)NotFound|specified (?:container|filesystem) does not exist")


def read_storage_settings(spark: SparkSession, path: str) -> dict[str, str]:
    """The settings of object_store for a path; none if only ABFS can follow its own."""
    if find_unsupported(spark, path):
        return {}
    host, conf = _read_host(path), spark.sparkContext._jsc.hadoopConfiguration()
    account = host.partition(".")[0]
    # All of them, because object_store takes those that are missing from the environment.
    return {
        "AZURE_STORAGE_ENDPOINT": f"https://{account}.blob.core.windows.net",
        "AZURE_SKIP_SIGNATURE": "false",
        "AZURE_STORAGE_ACCOUNT_NAME": account,
        "AZURE_STORAGE_ACCOUNT_KEY": str(_read_settings(spark, host).getStorageAccountKey()),
        # Azurite's address is in AZURITE_BLOB_STORAGE_URL. It cannot list the names after a given one, so object_store
        # must know that it is an emulator.
        "AZURE_STORAGE_USE_EMULATOR": str(bool(conf.getTrimmed(_EMULATOR, ""))).lower(),
    }


def find_unsupported(spark: SparkSession, path: str) -> str:
    """Return a setting that only ABFS can follow; empty if there is none."""
    host, conf = _read_host(path), spark.sparkContext._jsc.hadoopConfiguration()
    if not re.fullmatch(r"[^.]+\.(?:dfs|blob)\.core\.windows\.net", host):
        return "another host than ACCOUNT.dfs.core.windows.net"
    emulator = conf.getTrimmed(_EMULATOR, "")
    if emulator and os.environ.get("AZURITE_BLOB_STORAGE_URL") != f"http://{emulator}":  # object_store's address of it
        return _EMULATOR
    if conf.getPropsWithPrefix(_ENCRYPTION):
        return f"{_ENCRYPTION}*"
    return "" if _has_key(spark, host) else "fs.azure.account.auth.type"


def _read_host(path: str) -> str:
    return path.split("/")[2].rpartition("@")[2]


def _read_settings(spark: SparkSession, host: str) -> Any:
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    return find_class(spark, "org.apache.hadoop.fs.azurebfs.AbfsConfiguration")(conf, host)


def _has_key(spark: SparkSession, host: str) -> bool:
    return str(_read_settings(spark, host).getAuthType(host)) == "SharedKey"


def find_probe(spark: SparkSession, option: str, path: str) -> str:
    """Check the account key of a path, and return where to ask whether Azure accepts it.

    If ABFS finds that it cannot use a key, it logs the key. A login without a key may have rights to the path only.

    Raises:
        InvalidOptionError: The path has no account.
        Py4JJavaError: The key cannot be used.
    """
    if "@" not in path.split("/")[2]:
        expected = "a path with container and account, such as abfss://lake@account.dfs.core.windows.net/bronze"
        raise InvalidOptionError(option, path, expected)
    host = _read_host(path)
    if not _has_key(spark, host):
        return path
    _read_settings(spark, host).getStorageAccountKey()
    return "/".join([*path.split("/")[:3], ""])


def check_redaction(spark: SparkSession) -> None:
    """Refuse an event log that shows an account key: Spark's own pattern does not match the name of its setting.

    Raises:
        ConfigError: It does.
    """
    settings = dict(spark.sparkContext.getConf().getAll())
    pattern = find_class(spark, "java.util.regex.Pattern").compile(
        spark.conf.get("spark.redaction.regex", HIDDEN_SETTINGS)  # the one of the start
    )
    shown = [name for name in settings if f".{_KEY}" in name and not pattern.matcher(name).find()]
    if shown and settings.get("spark.eventLog.enabled") == "true":
        raise ConfigError(
            f"Spark's event log shows the value of {shown[0]}",
            hint="add account[.]key to spark.redaction.regex, or take the key from a file "
            "(hadoop.security.credential.provider.path)",
        )


def explain_refusal(option: str, path: str, error: Exception) -> BronzeError:
    """The condition behind an error of ABFS at the first contact, with its cure."""
    text, reason, host = str(error), read_reason(error), _read_host(path)
    if _NO_CONTAINER.search(text):
        container = path.split("/")[2].partition("@")[0]
        return InvalidOptionError(option, path, f"a path in a container that exists; there is no {container!r}")
    if _NO_KEY.search(text):
        return ConfigError(
            f"{to_flag(option)}: there is no usable account key for {path}",
            hint=f"set fs.azure.account.key.{host} to a key of the account, as Azure shows it",
        )
    if REFUSED_BY_STORE.search(text):
        return ConfigError(
            f"{to_flag(option)}: Azure refuses the credentials for {path}: {reason}",
            hint=f"check fs.azure.account.key.{host}, or the login that fs.azure.account.auth.type names",
        )
    if UNANSWERED.search(text):
        return TransientError(
            f"{to_flag(option)}: Azure does not answer for {path}: {reason}",
            hint="run the same command again once it does",
        )
    return ConfigError(
        f"{to_flag(option)}: {path} cannot be read from Azure: {reason}",
        hint="correct the name of the account, or the settings fs.azure.*",
    )
