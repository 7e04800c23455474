"""Files on any file system that Spark reaches, through Hadoop."""

from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession


def open_file_system(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """The file system of a path, whatever it is, and the path on it."""
    hadoop_path = spark._jvm.org.apache.hadoop.fs.Path(path)  # type: ignore[union-attr]
    return hadoop_path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()), hadoop_path


def read_text(spark: SparkSession, path: str) -> str | None:
    """The text of a file; None where there is no file.

    Raises:
        Py4JJavaError: It cannot be read.
    """
    file_system, hadoop_path = open_file_system(spark, path)
    try:
        stream = file_system.open(hadoop_path)
        try:
            return str(spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))  # type: ignore[union-attr]
        finally:
            stream.close()
    except Py4JJavaError as error:
        if error.java_exception.getClass().getSimpleName() == "FileNotFoundException":
            return None
        raise
