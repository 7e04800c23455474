"""``bronze create-tables``: the DDL of both tables, printed or executed, by path or under a catalog's name.

Ingestion creates missing tables itself; this is for who wants to see or to name them first.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from bronze.config import CreateTablesConfig
from bronze.delta.binding import check_not_gone
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
    """One table with the option that names it in a catalog."""

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
    # Whoever runs them has a session of their own, which would take ${…} in a path for a variable.
    return [f"SET {SUBSTITUTION}=false" for _ in statements[:1] if "${" in "".join(statements)] + statements


def _make_absolute(path: str) -> str:
    """The path as it will mean the same to whoever runs the statement."""
    local = to_local_path(path)
    return f"file:{Path(local).resolve()}" if local else path


def create_tables(config: CreateTablesConfig, spark: SparkSession | None = None) -> list[str]:
    """Create the tables that are missing, register those that are there; running it again changes nothing.

    Returns:
        A line per table: what was done.

    Raises:
        NotADeltaTableError: A path holds something else.
        ConfigError: A table has other columns or another partitioning. Bronze names a DLQ at the path, and it is gone.
            A catalog name is that of a table elsewhere.
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
        log.warning("this session's catalog is in memory, so the name %s ends with it", name)
    if table.state is None:
        spark.sql(create_table_statement(table.spec, table.path, name))
    elif name:
        spark.sql(register_table_statement(table.path, name))
    if name and (found := _find_location(spark, name)) != table.path:
        raise ConfigError(
            f"--{named.option}: {name} is the table at {found}, not at {table.path}", hint="give a free name"
        )
    done = "created" if table.state is None else "is there already and fits"
    return f"{table.spec.name} table at {table.path}: {done}" + (f", known as {name}" if name else "")


def _find_location(spark: SparkSession, name: str) -> str:
    """Where a catalog's table is; IF NOT EXISTS says nothing when it is another."""
    detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
    return qualify_path(spark, detail["location"]) if detail else "nowhere"
