"""Which tables the direct writer can append to correctly, by their columns, properties and features."""

from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import types as T

from bronze.delta.features import FEATURES, PROPERTIES, find_feature, find_property
from bronze.delta.tables import TableState, check_table, find_obstacle, read_table_state
from bronze.errors import ConfigError
from bronze.schema import get_bronze_schema, get_bronze_spec
from tests.support.builders import create_table

PATH = "/lake/bronze"


def make_state(schema: T.StructType | None = None, features: tuple[str, ...] = (), **properties: str) -> TableState:
    return TableState(
        table_id="id",
        schema=schema or get_bronze_schema(),
        partition_columns=get_bronze_spec().partition_columns,
        properties={f"delta.{name}": value for name, value in properties.items()},
        writer_features=features,
    )


def with_property(name: str, value: str = "true") -> TableState:
    return make_state(**{name.removeprefix("delta."): value})


def change_column(name: str, **changes: object) -> T.StructType:
    """Bronze's schema with one column replaced; ``request.path`` is a column within a struct."""

    def change(schema: T.StructType, path: list[str]) -> T.StructType:
        fields = []
        for field in schema:
            found = field.jsonValue()
            if field.name == path[0]:
                found |= {"type": change(field.dataType, path[1:]).jsonValue()} if path[1:] else changes
            fields.append(T.StructField.fromJson(found))
        return T.StructType(fields)

    return change(get_bronze_schema(), name.split("."))


def refuse(state: TableState) -> str:
    with pytest.raises(ConfigError, match="does not fit; give another path") as refused:
        check_table(state, get_bronze_spec(), PATH, "output-path")
    return str(refused.value)


def test_a_table_as_we_create_it_has_no_obstacle():
    spec = get_bronze_spec()
    assert find_obstacle(PATH, replace(make_state(), properties=spec.properties)) == ""
    assert find_obstacle(PATH, None) == ""


@pytest.mark.parametrize("name", [name for name, row in PROPERTIES.items() if row.writer != "direct"])
def test_a_property_that_asks_for_more_than_rows_is_an_obstacle(name: str):
    assert find_obstacle(PATH, with_property(name)).startswith(f"{PATH} has {name} = true (")


@pytest.mark.parametrize("name", [name for name, row in PROPERTIES.items() if row.writer == "direct"])
def test_any_other_property_of_delta_is_none(name: str):
    assert find_obstacle(PATH, with_property(name)) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("compatibility.symlinkFormatManifest.enabled", "false"),
        ("writePartitionColumnsToParquet", "FALSE"),
        ("columnMapping.mode", "none"),
        ("checkpointPolicy", "classic"),
        ("universalFormat.enabledFormats", ""),
    ],
)
def test_a_property_that_is_off_is_no_obstacle(name: str, value: str):
    assert find_obstacle(PATH, with_property(name, value)) == ""


@pytest.mark.parametrize("name", ["DELTA.ENABLEROWTRACKING", "Delta.enableRowTracking"])
def test_the_case_of_a_property_does_not_matter(name: str):
    assert find_property(name, "TRUE").writer == "delta-spark"
    assert find_feature("ROWTRACKING").writer == "delta-spark"
    assert find_property("DELTA.APPENDONLY", "true").writer == "direct"


@pytest.mark.parametrize("value", ["true", "false", "0"])
def test_a_property_of_delta_that_has_no_row_is_an_obstacle_whatever_its_value(value: str):
    state = with_property("delta.ofTomorrow", value)
    assert find_obstacle(PATH, state) == f"{PATH} has delta.ofTomorrow = {value} (the direct writer does not know it)"


@pytest.mark.parametrize("name", ["bronze.topicId.events", "owner", "deltas", "spark.sql.sources.schema"])
def test_a_property_that_is_not_delta_s_is_no_obstacle(name: str):
    assert find_property(name, "true").writer == "direct"


def test_a_check_constraint_is_an_obstacle():
    assert find_obstacle(PATH, make_state(**{"constraints.small": "_kafka_offset < 9"})) == (
        f"{PATH} has the CHECK constraint small"
    )


@pytest.mark.parametrize("name", [*FEATURES, "ofTomorrow", "of writer version 8"])
def test_features_that_ask_for_more_than_rows_are_an_obstacle(name: str):
    obstacle = find_obstacle(PATH, make_state(features=("appendOnly", name)))
    if name in FEATURES and FEATURES[name].writer == "direct":
        assert obstacle == ""
    else:
        assert obstacle == f"{PATH} has table features that the direct writer does not support: {name}"


def test_a_feature_that_is_noted_as_a_property_is_that_feature():
    assert find_property("delta.feature.rowTracking", "supported").writer == "delta-spark"
    assert find_property("delta.feature.appendonly", "supported").writer == "direct"


@pytest.mark.parametrize(
    ("column", "changes", "what"),
    [
        ("tenant_id", {"nullable": False}, "the NOT NULL column tenant_id"),
        ("request.path", {"nullable": False}, "the NOT NULL column request.path"),
        ("event_id", {"metadata": {"CURRENT_DEFAULT": "'a'"}}, "the computed column event_id"),
        ("_event_date", {"metadata": {"delta.generationExpression": "f(x)"}}, "the computed column _event_date"),
        ("request.path", {"metadata": {"delta.invariants": "{}"}}, "the computed column request.path"),
        ("geo.city", {"metadata": {"delta.ofTomorrow": 1}}, "the computed column geo.city"),
        (
            "event_version",
            {"metadata": {"__CHAR_VARCHAR_TYPE_STRING": "varchar(5)"}},
            "the column event_version of type varchar(5)",
        ),
    ],
)
def test_a_column_that_asks_for_more_than_its_rows_is_an_obstacle(column: str, changes: dict, what: str):
    assert find_obstacle(PATH, make_state(change_column(column, **changes))) == f"{PATH} has {what}"


@pytest.mark.parametrize("metadata", [{"comment": "delta.x"}, {"delta.columnMapping.id": 3}])
def test_what_else_is_noted_of_a_column_is_no_obstacle(metadata: dict):
    assert find_obstacle(PATH, make_state(change_column("geo.city", metadata=metadata))) == ""


def test_a_map_that_may_hold_no_null_is_refused_as_the_event_s_may():
    holds_none = T.MapType(T.StringType(), T.StringType(), valueContainsNull=False).jsonValue()
    message = refuse(make_state(change_column("client.user_agent_parsed", type=holds_none)))
    assert (
        "column client.user_agent_parsed: expected map<string,string>, found map<string,string> without null" in message
    )


def test_an_array_that_may_hold_no_null_fits_as_the_event_s_holds_none():
    state = make_state(change_column("identity.scopes", type=T.ArrayType(T.StringType(), False).jsonValue()))
    check_table(state, get_bronze_spec(), PATH, "output-path")
    assert find_obstacle(PATH, state) == ""


@pytest.mark.parametrize("name", [name for name, row in PROPERTIES.items() if row.writer == "none"])
def test_a_property_with_which_no_writer_is_right_is_refused(name: str):
    assert f"property {name} = x: " in refuse(with_property(name, "x"))


@pytest.mark.parametrize("name", [name for name, row in FEATURES.items() if row.writer == "none"])
def test_a_feature_with_which_no_writer_is_right_is_refused(name: str):
    assert f"table feature {name}: " in refuse(make_state(features=(name,)))


def test_a_table_of_a_later_protocol_is_left_to_delta_spark(tmp_path: Path):
    path = create_table(tmp_path / "bronze", get_bronze_spec())
    commit = next(Path(path, "_delta_log").glob("*.json"))
    commit.write_text(commit.read_text().replace('"minWriterVersion":2', '"minWriterVersion":8'))
    assert "of writer version 8" in find_obstacle(path, read_table_state(path, "output-path"))
