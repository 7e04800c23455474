"""Events for property tests: valid ones, and ones with any JSON in their fields."""

import copy
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from pyspark.sql import types as T

from bronze.schema import get_event_schema
from tests.support.builders import REQUIRED, make_fields

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def list_leaves(schema: T.StructType, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], T.DataType]]:
    for field in schema:
        if isinstance(field.dataType, T.StructType):
            yield from list_leaves(field.dataType, (*path, field.name))
        else:
            yield (*path, field.name), field.dataType


LEAVES = list(list_leaves(get_event_schema()))
MAPS = [leaf for leaf in LEAVES if isinstance(leaf[1], T.MapType)]
PATHS = [path for path, _ in LEAVES] + [(field.name,) for field in get_event_schema()]


def values_of(data_type: T.DataType) -> st.SearchStrategy[Any]:
    match data_type:
        case T.ArrayType():
            return st.lists(TEXT, max_size=4)
        case T.MapType():
            return st.dictionaries(TEXT, ANY_JSON.filter(is_finite), max_size=4)
        case T.IntegerType():
            return st.integers(-(2**31), 2**31 - 1)
        case T.LongType():
            return st.integers(-(2**63), 2**63 - 1)
        case T.DoubleType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case T.BooleanType():
            return st.booleans()
    return TEXT


def is_finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case list() | dict():
            return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return True


def put(event: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(event.get(name), dict):
            event[name] = {}
        event = event[name]
    event[path[-1]] = value


@st.composite
def valid_events(draw: st.DrawFn) -> dict[str, Any]:
    event = make_fields(event_id=draw(TEXT) or "e", tenant_id=draw(TEXT) or "t")
    for path, data_type in draw(st.lists(st.sampled_from(LEAVES) | st.sampled_from(MAPS), max_size=6)):
        if path[0] not in REQUIRED:
            put(event, path, draw(st.none() | values_of(data_type)))
    return event


@st.composite
def odd_events(draw: st.DrawFn) -> dict[str, Any]:
    event = copy.deepcopy(REQUIRED)
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3)):
        put(event, path, draw(ANY_JSON))
    return event
