"""``bronze create-tables``: print or run the DDL of both tables, by path or under a catalog name.

The ingestion creates missing tables itself. This command shows the DDL, or registers the tables in a catalog.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from bronze.config import CreateTablesConfig
from bronze.delta.binding import check_not_gone
from bronze.delta.create import create_table
from bronze.delta.ddl import create_table_statement, register_table_statement
from bronze.delta.tables import CheckedTable, locate_tables
from bronze.errors import ConfigError, ExitCode
from bronze.pipeline import check_local_tables, open_session
from bronze.runtime.paths import qualify_path, to_local_path
from bronze.runtime.session import SUBSTITUTION
from bronze.schema import get_bronze_spec, get_dlq_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Named:
    """A table, and the option with its catalog name."""

    option: str
    name: str
    table: CheckedTable


def main(config: CreateTablesConfig) -> int:
    """The command ``bronze create-tables``: print the statements, or run them; existing tables are checked."""
    if config.execute:
        for line in create_tables(config):
            print(line)
        return ExitCode.DONE
    check_local_tables(config)
    print("\n\n".join(f"{statement};" for statement in list_statements(config)))
    return ExitCode.DONE


def list_statements(config: CreateTablesConfig) -> list[str]:
    """The DDL of the tables; needs no Spark."""
    named = [(get_bronze_spec(), config.output_path, config.bronze_table)]
    if config.dlq_path:
        named.append((get_dlq_spec(), config.dlq_path, config.dlq_table))
    statements = [create_table_statement(spec, _make_absolute(path), name) for spec, path, name in named]
    # The statements run in another session, which would read ${…} in a path as a variable.
    return [f"SET {SUBSTITUTION}=false" for _ in statements[:1] if "${" in "".join(statements)] + statements


def _make_absolute(path: str) -> str:
    """An absolute path, which means the same wherever the statement runs."""
    local = to_local_path(path)
    return f"file:{Path(local).resolve()}" if local else path


def create_tables(config: CreateTablesConfig, spark: SparkSession | None = None) -> list[str]:
    """Create missing tables and register existing ones; running it again changes nothing.

    Returns:
        A line per table that says what was done.

    Raises:
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning. Bronze names a DLQ at the path, and it is
            missing. A catalog name belongs to a table elsewhere.
    """
    spark = open_session(config, spark)
    bronze, dlq = locate_tables(spark, config)
    check_not_gone(bronze, dlq)
    named = [_Named("bronze-table", config.bronze_table, bronze)]
    if dlq:
        named.append(_Named("dlq-table", config.dlq_table, dlq))
    return [_create(spark, each) for each in named]


def _create(spark: SparkSession, named: _Named) -> str:
    name, table = named.name, named.table
    if name and spark.conf.get("spark.sql.catalogImplementation") == "in-memory" and "." not in name:
        log.warning("this session's catalog is in memory, so the name %s ends with the session", name)
    _check_name(spark, named)
    if table.state is None:
        create_table(spark, table.path, table.spec)
    if name:
        spark.sql(register_table_statement(table.path, name))
        _check_name(spark, named)  # IF NOT EXISTS is silent if another process has taken the name meanwhile
    done = "created" if table.state is None else "already exists and fits"
    return f"{table.spec.name} table at {table.path}: {done}" + (f", known as {name}" if name else "")


def _check_name(spark: SparkSession, named: _Named) -> None:
    """Raise if the name belongs to another table."""
    if not named.name or not spark.catalog.tableExists(named.name):
        return
    detail = spark.sql(f"DESCRIBE DETAIL {named.name}").first()
    found = qualify_path(spark, detail["location"]) if detail else "nowhere"
    if found != named.table.path:
        raise ConfigError(
            f"--{named.option}: {named.name} is the table at {found}, not at {named.table.path}",
            hint="choose a name that is not in use",
        )
