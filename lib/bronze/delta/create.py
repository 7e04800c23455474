"""Creates a Delta table, of which only one of several processes at the same time can write the first commit.

On a local disk and in S3, neither delta-spark nor deltalake excludes other processes when it creates a table. So the
first commit is built in a temporary folder. A hard link, or in S3 a conditional request, puts it in place. deltalake
builds it, because Spark takes seconds more. Elsewhere, Spark creates the table, because its commits exclude others
there.
"""

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from delta.exceptions import ConcurrentWriteException, MetadataChangedException, ProtocolChangedException
from deltalake import DeltaTable, Schema
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from bronze.delta.ddl import create_table_statement
from bronze.delta.log import name_commit
from bronze.errors import BronzeError
from bronze.parsing import is_s3
from bronze.runtime.object_store import check_conditions, put_if_absent
from bronze.runtime.paths import to_local_path
from bronze.runtime.retry import retry_conflicts
from bronze.runtime.spark_errors import explain_failures
from bronze.schema import TableSpec
from bronze.storage import Storage

log = logging.getLogger(__name__)

# The session's default properties for new tables, which may need features of the table that only Spark knows.
_DEFAULTS = "spark.databricks.delta.properties.defaults."

_PAUSE = (0.1, 0.3)  # seconds
_UNFINISHED = "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"


class _UnfinishedError(BronzeError):
    """The table's folder is not empty, but is not a table yet."""


# Errors if another process creates the table at the same time.
_CONFLICTS = (_UnfinishedError, ConcurrentWriteException, MetadataChangedException, ProtocolChangedException)


def create_table(spark: SparkSession, path: str, spec: TableSpec) -> None:
    """Create a table, unless there is one or another process creates it at the same time.

    Args:
        spark: Session. Its default properties for new tables are applied.
        path: The table.
        spec: Its columns, partitioning and properties.

    Raises:
        BronzeError: The log cannot be written.
    """
    log.info("Creating the %s table at %s", spec.name, path)
    local = to_local_path(path)
    if local is None and not is_s3(path):
        with explain_failures(path):
            retry_conflicts(lambda _: _create_by_spark(spark, path, spec), _CONFLICTS, pause=_PAUSE)
        return
    with TemporaryDirectory(prefix="bronze-") as folder:
        if any(key.startswith(_DEFAULTS) for key in spark.conf.getAll):
            spark.sql(create_table_statement(spec, f"file:{folder}/new"))
        else:
            _build_table(f"{folder}/new", spec)
        content = Path(folder, "new", name_commit(0)).read_bytes()
    with explain_failures(path):
        if local is None:
            check_conditions(spark, f"{path}/_delta_log")
            is_created = put_if_absent(spark, f"{path}/{name_commit(0)}", content)
        else:
            is_created = publish_commit(Path(local, name_commit(0)), content)
    if not is_created:
        log.info("Another process has created %s", path)


def _create_by_spark(spark: SparkSession, path: str, spec: TableSpec) -> None:
    try:
        spark.sql(create_table_statement(spec, path))
    except AnalysisException as error:
        if error.getCondition() != _UNFINISHED:
            raise
        raise _UnfinishedError(
            f"{path} holds files but is not yet a Delta table",
            hint="run the same command again if another process creates it; otherwise give an empty or a new path",
        ) from error


def _build_table(path: str, spec: TableSpec) -> None:
    DeltaTable.create(
        path,
        Schema.from_json(spec.schema.json()),
        partition_by=list(spec.partition_columns),
        configuration=spec.properties,
        raise_if_key_not_exists=False,  # deltalake does not know the properties of this package
    )


def publish_commit(commit: Path, content: bytes) -> bool:
    """Write a commit's file unless it exists; no reader sees it before it is complete.

    Returns:
        Whether this call wrote it.

    Raises:
        OSError: It cannot be written.
    """
    commit.parent.mkdir(parents=True, exist_ok=True)
    table = Storage(str(commit.parents[1]))
    written = commit.with_name(f".{commit.name}.{uuid4()}.tmp")
    try:
        written.write_bytes(content)
        table.sync([f"_delta_log/{written.name}"])
        os.link(written, commit)
    except FileExistsError:
        return False
    finally:
        written.unlink(missing_ok=True)
    table.sync([f"_delta_log/{commit.name}"])
    return True
