"""Paths on any file system that Spark can reach, and checks whether they can be used."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import PATHS, TablesConfig
from bronze.errors import InvalidOptionError
from bronze.parsing import find_object_store, is_s3
from bronze.runtime.jars import S3_EXCLUDED, get_azure_packages, get_s3_packages
from bronze.runtime.spark_errors import read_reason


def find_class(spark: SparkSession, name: str) -> Any:
    """A class of the JVM, to create objects of it or to call its static methods.

    ``spark._jvm.java.util.HashMap`` would look for the classes ``java`` and ``java.util`` first, in hundreds of jars.
    A missing class is a package to py4j, and a call of it a TypeError.
    """
    return getattr(spark._jvm, name)


def qualify_path(spark: SparkSession, path: str) -> str:
    """The path with its file system, as Hadoop resolves it: ``data/bronze`` becomes ``file:/…/data/bronze``."""
    file_system, hadoop_path = open_file_system(spark, path)
    return str(file_system.makeQualified(hadoop_path).toString())


def to_local_path(path: str) -> str | None:
    """The path on the local file system; None if it is on another one."""
    scheme, colon, rest = path.partition(":")
    if not colon or "/" in scheme:
        return str(Path(path).absolute())
    return "/" + rest.lstrip("/") if scheme == "file" else None


def open_file_system(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """The Hadoop file system of a path, and the path on it."""
    hadoop_path = find_class(spark, "org.apache.hadoop.fs.Path")(path)
    return hadoop_path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()), hadoop_path


def read_text(spark: SparkSession, path: str) -> str | None:
    """The text of a file; None if it does not exist.

    Raises:
        Py4JJavaError: It cannot be read.
    """
    file_system, hadoop_path = open_file_system(spark, path)
    try:
        stream = file_system.open(hadoop_path)
        try:
            return str(find_class(spark, "org.apache.commons.io.IOUtils").toString(stream, "UTF-8"))
        finally:
            stream.close()
    except Py4JJavaError as error:
        if error.java_exception.getClass().getSimpleName() == "FileNotFoundException":
            return None
        raise


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Write a file and its folder, or replace the file.

    The write is atomic, like that of Spark's checkpoints: a crash or another process leaves no partial file.

    Raises:
        Py4JJavaError: It cannot be written.
    """
    file_system, hadoop_path = open_file_system(spark, path)
    if is_s3(path):  # a single request; Spark's own way deletes the file before it replaces it
        stream = file_system.create(hadoop_path, True)
        stream.write(bytearray(text.encode()))
        stream.close()
        return
    managers = find_class(spark, "org.apache.spark.sql.execution.streaming.checkpointing.CheckpointFileManager")
    manager = managers.create(hadoop_path.getParent(), spark.sparkContext._jsc.hadoopConfiguration())
    manager.mkdirs(hadoop_path.getParent())
    stream = manager.createAtomic(hadoop_path, True)
    try:
        stream.write(bytearray(text.encode()))
    except Py4JJavaError:
        stream.cancel()
        raise
    stream.close()  # makes the file visible


_ASCII = ("ANSI_X3.4-1968", "US-ASCII", "ASCII")
# The modules with Hadoop's own file systems; their version is that of Hadoop.
_MODULES = {"gs": "hadoop-gcp"}


def check_folders(config: TablesConfig) -> None:
    """Refuse a local path that is a file or lies below one; needs no Spark.

    Raises:
        InvalidOptionError: Names the path.
    """
    for option, path in list_paths(config):
        local = Path(to_local_path(path) or "/")
        if file := next(filter(os.path.isfile, (local, *local.parents)), None):
            raise InvalidOptionError(option, path, f"a folder, or a path below folders; {file} is a file")


def check_writable(spark: SparkSession, config: TablesConfig, *options: str) -> None:
    """Refuse a local path that is not writable, before a command writes to any of its paths.

    Args:
        spark: Resolves paths that have no scheme.
        config: The paths of tables and checkpoint.
        options: The options whose paths the command writes to.

    Raises:
        InvalidOptionError: Names the path and the reason.
    """
    for option, path in list_paths(config):
        local = to_local_path(qualify_path(spark, path)) if option in options else None
        place = next(filter(os.path.exists, (Path(local), *Path(local).parents))) if local else None
        if place and not os.access(place, os.W_OK | os.X_OK):
            is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
            reason = f"{place} is on a read-only file system" if is_read_only else f"no permission for {place}"
            raise InvalidOptionError(option, path, f"a path that can be written to ({reason})")


def check_file_systems(spark: SparkSession, config: TablesConfig) -> None:
    """Refuse a path whose file system Spark cannot reach.

    Raises:
        InvalidOptionError: The class path lacks the file system, or Hadoop cannot parse the path or resolve its host.
            The JVM's locale cannot express the path.
    """
    is_ascii = str(find_class(spark, "java.lang.System").getProperty("sun.jnu.encoding")) in _ASCII
    for option, path in list_paths(config):
        # Java writes ? for other letters; spark-submit has already done so with the arguments.
        if is_ascii and to_local_path(path) and re.search(r"[^ -~]|\?", path):
            reason = "Java has an ASCII locale and reads other letters as ?; to use them, run with LC_ALL=C.UTF-8 set"
            raise InvalidOptionError(option, path, f"a path of ASCII letters ({reason})")
        try:
            if find_object_store(path):  # opening it may send requests, which are repeated for minutes
                scheme, conf = path.partition(":")[0], spark.sparkContext._jsc.hadoopConfiguration()
                find_class(spark, "org.apache.hadoop.fs.FileSystem").getFileSystemClass(scheme, conf)
            else:
                qualify_path(spark, path)
        except (Py4JJavaError, IllegalArgumentException) as error:
            reason = read_reason(error)
            if "No FileSystem for scheme" in reason or "ClassNotFoundException" in reason:
                reason = f"no file system for scheme {path.partition(':')[0]!r}; {_name_cure(spark, path)}"
            raise InvalidOptionError(option, path, f"a path that Spark can use ({reason})") from error


def list_paths(config: TablesConfig) -> Iterator[tuple[str, str]]:
    """Yield name and value of each path that is given."""
    for option in PATHS:
        if path := getattr(config, option, ""):
            yield option, path


def _name_cure(spark: SparkSession, path: str) -> str:
    module = _MODULES.get(path.partition(":")[0])
    hadoop = str(find_class(spark, "org.apache.hadoop.util.VersionInfo").getVersion())
    if is_s3(path):
        packages = ",".join(get_s3_packages(hadoop))
        return f"submit with --packages {packages} --exclude-packages {S3_EXCLUDED}, or restart a local session"
    if find_object_store(path) == "azure":
        return f"submit with --packages {get_azure_packages(hadoop)[0]}, or restart a local session"
    if not module:
        return "correct it, or add its file system to --packages"
    return f"add --packages org.apache.hadoop:{module}:{hadoop}"
