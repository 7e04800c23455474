"""What the README says of arguments, packages, columns and error types is what the code has."""

import dataclasses
from pathlib import Path

import pytest

from bronze.config import IngestConfig
from bronze.runtime.jars import get_spark_packages
from bronze.schema import ERROR_TYPES, get_bronze_schema, get_dlq_schema

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("field", dataclasses.fields(IngestConfig), ids=lambda field: field.name)
def test_the_argument_table_has_each_flag_with_its_help(field: dataclasses.Field):
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `--{field.name.replace('_', '-')}`")]
    assert row.split("|")[-2].strip() == field.metadata["help"]


def test_spark_submit_is_shown_with_the_installed_versions():
    assert f"--packages {','.join(get_spark_packages())}" in README


def test_the_bad_input_table_lists_the_error_types_in_their_order():
    table = README.partition("## Bad input")[2].partition("## Restart")[0]
    named = [name for line in table.splitlines() for name in ERROR_TYPES if f"| `{name}` |" in line]
    assert named == list(ERROR_TYPES)


@pytest.mark.parametrize("schema", [get_bronze_schema(), get_dlq_schema()], ids=["bronze", "dlq"])
def test_every_column_is_named(schema):
    tables = README.partition("## Tables")[2].partition("## Bad input")[0]
    assert [field.name for field in schema if field.name not in tables] == []
