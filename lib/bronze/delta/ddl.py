"""SQL statements that create and register the tables."""

from bronze.schema import TableSpec


def create_table_statement(
    spec: TableSpec, location: str, table: str = "", properties: dict[str, str] | None = None
) -> str:
    """Return the ``CREATE TABLE IF NOT EXISTS`` statement of a table, with column comments.

    Args:
        spec: Specification of the table.
        location: Path of the table.
        table: Catalog name; empty for a table without one.
        properties: Table properties in addition to those of the specification.
    """
    columns = ",\n  ".join(
        f"`{f.name}` {f.dataType.simpleString()} COMMENT '{_escape(f.metadata['comment'])}'" for f in spec.schema
    )
    settings = {**spec.properties, **(properties or {})}
    listed = ",\n  ".join(f"'{_escape(key)}' = '{_escape(value)}'" for key, value in settings.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {table or quote_path(location)} (\n  {columns}\n)\nUSING DELTA\n"
        f"PARTITIONED BY ({', '.join(spec.partition_columns)})\nLOCATION '{_escape(location)}'\n"
        f"TBLPROPERTIES (\n  {listed}\n)"
    )


def register_table_statement(location: str, table: str) -> str:
    """Return the statement that registers an existing table in a catalog, with its columns and properties."""
    return f"CREATE TABLE IF NOT EXISTS {table} USING DELTA LOCATION '{_escape(location)}'"


def quote_path(location: str) -> str:
    """Return the name of the table at a path, for SQL and ``writeTo``."""
    return "delta.`" + location.replace("`", "``") + "`"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
