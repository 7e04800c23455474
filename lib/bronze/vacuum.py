"""VACUUM of one table: which files no version refers to any more, and their deletion."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.errors import InvalidOption
from bronze.schema import quote_path

log = logging.getLogger(__name__)
_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_SETTINGS = {
    # Commits START and END to the table's history, with how much was deleted.
    "spark.databricks.delta.vacuum.logging.enabled": "true",
    # Otherwise Delta ignores the hours that it is given, and says so in a warning.
    "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
}
_LISTED = 10


class Unreferenced(NamedTuple):
    """Files that no version within the retention refers to, and their size."""

    files: int
    bytes: int


def vacuum_table(spark: SparkSession, path: str, retention_hours: int, force: bool, delete: bool) -> Unreferenced:
    """List the files that VACUUM deletes, and delete them when asked.

    Files of a batch that runs are not referenced either, and kept for their age alone: hence the least retention.

    Args:
        spark: Session.
        path: The table.
        retention_hours: Younger files are kept; 0 is the table's own setting.
        force: Whether that may be less than the table's own setting.
        delete: Whether to delete them.

    Raises:
        InvalidOption: It is less, and not forced.
    """
    statement = f"VACUUM {quote_path(path)}" + (f" RETAIN {retention_hours} HOURS" if retention_hours else "")
    settings = {**_SETTINGS, _RETENTION_CHECK: str(not force).lower()}
    with ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(override_setting(spark, name, value))
        try:
            listed = [row[0] for row in spark.sql(f"{statement} DRY RUN").collect()]
        except IllegalArgumentException:
            expected = f"at least delta.deletedFileRetentionDuration of {path}, or --force"
            raise InvalidOption("retention_hours", retention_hours, expected) from None
        sizes = _read_sizes(spark, listed)
        found = Unreferenced(len(sizes), sum(sizes.values()))
        if delete and listed:
            spark.sql(statement)
    log.info("VACUUM %s: %s files, %s bytes", path, f"{found.files:,}", f"{found.bytes:,}")
    for file in list(sizes)[:_LISTED]:
        log.info("  %s", file.removeprefix(path))
    return found


@contextmanager
def override_setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Set a setting of the session for a while."""
    before = spark.conf.get(name, None)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        spark.conf.unset(name) if before is None else spark.conf.set(name, before)


def _read_sizes(spark: SparkSession, paths: list[str]) -> dict[str, int]:
    """Sizes of files in bytes; VACUUM also lists folders, which it deletes where they are empty."""
    jvm: Any = spark._jvm
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    sizes: dict[str, int] = {}
    for path in paths:
        hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
        with suppress(Py4JJavaError):  # it is gone meanwhile
            status = hadoop_path.getFileSystem(conf).getFileStatus(hadoop_path)
            if status.isFile():
                sizes[path] = status.getLen()
    return sizes
