"""Prepares the environment of a local session's JVM, and says why Spark does not start."""

import locale
import logging
import os
import pwd
import re
import shlex
import subprocess
from pathlib import Path

import pyspark
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import SparkSession

from bronze.errors import ConfigError
from bronze.runtime.jars import JAVA_OPTIONS, find_java, is_short_of_memory, little_memory_error, read_java_error
from bronze.runtime.spark_errors import read_reason

log = logging.getLogger(__name__)

# With one of these, a session would use another Spark than the installed one.
_OTHER_SPARK = ("SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_API_MODE")
# Options of Spark's scripts that start it, and other variables that decide whether it starts.
_OPTIONS = (*JAVA_OPTIONS, "SPARK_SUBMIT_OPTS", "PYSPARK_SUBMIT_ARGS")
_SPARK_OPTIONS = ("SPARK_CONF_DIR", "SPARK_DIST_CLASSPATH", "SPARK_LOCAL_DIRS", "HADOOP_CONF_DIR")
_JVM_ENDED = re.compile(r"JAVA_GATEWAY_EXITED|ConnectionRefusedError|Py4JNetworkError")
_NO_USER = re.compile(
    r"invalid null input|unable to find a username|no user name|KerberosAuthException: failure to login"
)


def prepare_environment() -> None:
    """Set the environment variables that Spark reads, so that a local session uses the installed Spark."""
    installed = str(Path(pyspark.__file__).parent)
    given = os.environ.get("SPARK_HOME", installed)
    os.environ["SPARK_HOME"] = installed
    ignored = [f"SPARK_HOME={given}"] if Path(given).resolve() != Path(installed).resolve() else []
    for name in _OTHER_SPARK:
        value = os.environ.pop(name, "")
        ignored += [name] if value not in ("", "classic") else []
    if ignored:
        log.warning("ignored, because a local session uses the installed pyspark: %s", ", ".join(ignored))
    if not _has_utf8_locale():
        os.environ["LC_ALL"] = "C.UTF-8"  # otherwise Java writes ? for letters beyond ASCII in paths


def _has_utf8_locale() -> bool:
    """Whether the locale of the environment is installed, and is not ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "")
        return locale.nl_langinfo(locale.CODESET) not in ("ANSI_X3.4-1968", "US-ASCII", "646")
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def start_session(builder: SparkSession.Builder, memory: str) -> SparkSession:
    """Start a local session.

    Args:
        builder: Has the settings.
        memory: The heap of the JVM, ``spark.driver.memory``.

    Raises:
        ConfigError: It does not start; the message has the cause.
    """
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise explain_start(error, memory) from error


def join_session(builder: SparkSession.Builder, has_jvm: bool) -> SparkSession:
    """Use the running session, or the JVM of the parent process, which is spark-submit.

    Args:
        builder: Has the settings.
        has_jvm: Whether the parent process says that it has a JVM.

    Raises:
        ConfigError: It has none, or one that serves another process.
    """
    try:
        return builder.getOrCreate()
    except (OSError, LookupError, ValueError, Py4JError) as error:
        if not has_jvm or (isinstance(error, Py4JJavaError) and "Only one SparkContext" not in str(error)):
            raise
        raise ConfigError(
            "PYSPARK_GATEWAY_PORT is set, but at that port there is no JVM that this process can use "
            f"({read_reason(error)})",
            hint="unset PYSPARK_GATEWAY_PORT and PYSPARK_GATEWAY_SECRET; only spark-submit sets them",
        ) from error


def explain_start(error: Exception, memory: str) -> ConfigError:
    """Build the error for a local session that does not start.

    Args:
        error: The error of pyspark.
        memory: The heap of the JVM.
    """
    reason, names = read_reason(error), [name for name in (*_OPTIONS, *_SPARK_OPTIONS) if os.environ.get(name)]
    if has_ended := _JVM_ENDED.search(f"{type(error).__name__}: {error}") is not None:
        reason = "its JVM ended while it started; the lines above have Java's own messages"
        if said := try_java(memory):
            if is_short_of_memory(said):
                return little_memory_error(said)
            reason, names = said, [name for name in _OPTIONS if os.environ.get(name)]
    if not _has_user_name() and (has_ended or _NO_USER.search(str(error))):
        return ConfigError(
            f"Spark cannot start: the user id {os.getuid()} has no name on this machine, and Hadoop needs one.",
            hint="Add a line for it to /etc/passwd (in a container, when the image is built or in its entrypoint), or "
            "run as a user that has one",
        )
    hint = f"check {', '.join(names)} in the environment" if names else "correct that, then run the same command again"
    if "EventLogFileWriter" in str(error):
        defaults = os.environ.get("SPARK_CONF_DIR", "$SPARK_HOME/conf") + "/spark-defaults.conf"
        hint = f"create this folder for Spark's event log, or correct spark.eventLog.dir in {defaults}"
    return ConfigError(f"Spark cannot start: {reason}", hint=hint)


def try_java(memory: str) -> str:
    """Start Java alone with the options of Spark's JVM; return its first line about an error, empty if it starts."""
    try:
        options = [*shlex.split(os.environ.get("SPARK_SUBMIT_OPTS", "")), f"-Xmx{memory}"]
    except ValueError as error:
        return f"{error} in SPARK_SUBMIT_OPTS"
    command = [find_java(), *options, "--add-modules=jdk.incubator.vector", "-version"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return read_java_error(done.stdout) if done.returncode else ""


def _has_user_name() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
