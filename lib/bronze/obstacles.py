"""Why the direct writer cannot append to a table: what its columns, properties and features ask of an append."""

from collections.abc import Iterator

from pyspark.sql import types as T

from bronze.delta_features import list_reasons
from bronze.tables import TableState, to_local_path

# Keys of a column's metadata that ask nothing of an append; mapped columns are those of a property.
_HARMLESS = ("delta.columnMapping.",)
# How Spark notes CHAR(n) and VARCHAR(n), and the DEFAULT of a column.
_LENGTH, _DEFAULT = "__CHAR_VARCHAR_TYPE_STRING", "CURRENT_DEFAULT"


def find_obstacle(path: str, state: TableState | None) -> str:
    """Why the direct writer cannot append to a table correctly; empty where it can."""
    if to_local_path(path) is None:
        return f"{path} is not on a local file system"
    if state is None:
        return ""
    if state.obstacle:
        return state.obstacle
    reasons = [*_list_column_reasons(state.schema), *list_reasons(state.properties, state.writer_features)]
    return f"{path} has {reasons[0]}" if reasons else ""


def _list_column_reasons(schema: T.DataType, prefix: str = "") -> Iterator[str]:
    """What columns ask. Within arrays and maps of ours, only values of maps may be null, and all tables allow that."""
    for column in schema if isinstance(schema, T.StructType) else ():
        name = prefix + column.name
        if not column.nullable:
            yield f"the NOT NULL column {name}"
        if _LENGTH in column.metadata:
            yield f"the column {name} of type {column.metadata[_LENGTH]}"
        if any(_is_rule(key) for key in column.metadata):
            yield f"the computed column {name}"
        yield from _list_column_reasons(column.dataType, f"{name}.")


def _is_rule(key: str) -> bool:
    return key == _DEFAULT or (key.startswith("delta.") and not key.startswith(_HARMLESS))
