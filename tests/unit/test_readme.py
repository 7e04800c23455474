"""Arguments, packages, columns and error types on the pages match the code."""

import dataclasses

import pytest

from bronze.cli import COMMANDS
from bronze.config import IngestConfig
from bronze.runtime.jars import get_s3_packages, get_spark_packages
from bronze.schema import ERROR_TYPES, get_bronze_schema, get_dlq_schema
from tests.support.pages import read_page, read_section

CONFIGURATION = read_page("docs/configuration.md")
TABLES = read_page("docs/tables.md")
OPTIONS = [(name, field) for name, command in COMMANDS.items() for field in dataclasses.fields(command.config)]


def list_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("field", dataclasses.fields(IngestConfig), ids=lambda field: field.name)
def test_the_argument_table_has_each_flag_with_its_help(field: dataclasses.Field):
    rows = list_rows(read_section(CONFIGURATION, "## bronze ingest"))
    (row,) = [row for row in rows if row.startswith(f"| `--{field.name.replace('_', '-')}`")]
    assert row.split("|")[-2].strip() == field.metadata["help"]


@pytest.mark.parametrize(("command", "field"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_each_command_has_a_table_of_its_flags_with_default_and_help(command: str, field: dataclasses.Field):
    rows = list_rows(read_section(CONFIGURATION, f"## bronze {command}"))
    (row,) = [row for row in rows if row.startswith(f"| `--{field.name.replace('_', '-')}`")]
    flag, default, meaning = (cell.strip() for cell in row.strip("| ").split(" | "))
    assert meaning == field.metadata["help"]
    if field.name == "fail_on_data_loss":
        assert flag == "`--fail-on-data-loss` / `--accept-data-loss`"
    elif field.metadata.get("required") and not field.default:
        assert default == "required"
    elif not isinstance(field.default, bool) and field.default:
        assert default == f"`{field.default}`"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_has_a_flag_on_the_page_that_it_does_not_take(command: str):
    rows = list_rows(read_section(CONFIGURATION, f"## bronze {command}"))
    assert len(rows) == len(dataclasses.fields(COMMANDS[command].config))


@pytest.mark.parametrize("page", ["README.md", "docs/s3.md", "docs/operations.md"])
def test_spark_submit_is_shown_with_the_installed_versions(page: str):
    packages = [*get_spark_packages(), *([] if page == "docs/operations.md" else get_s3_packages())]
    assert f"--packages {','.join(packages)} \\\n" in read_page(page)


def test_the_bad_input_table_lists_the_error_types_in_their_order():
    table = read_section(TABLES, "## Bad input")
    named = [name for line in table.splitlines() for name in ERROR_TYPES if f"| `{name}` |" in line]
    assert named == list(ERROR_TYPES)


@pytest.mark.parametrize(
    ("heading", "schema"), [("## bronze", get_bronze_schema()), ("## DLQ", get_dlq_schema())], ids=["bronze", "dlq"]
)
def test_every_column_is_named(heading: str, schema):
    rows = [row.strip("| ").split(" | ")[:2] for row in list_rows(read_section(TABLES, heading))]
    kinds = [field.dataType.simpleString().partition("<")[0].upper() for field in schema]
    assert rows == [[f"`{field.name}`", kind] for field, kind in zip(schema, kinds, strict=True)]
