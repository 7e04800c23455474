"""The command ``bronze``: its flags are the fields of the configuration, its exit codes those of the errors."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

from bronze.config import IngestConfig
from bronze.errors import BronzeError
from bronze.logs import configure_logging

_EXIT_CODES = """
exit codes: 0 done or stopped as asked; 1 the query, Kafka or storage failed; 2 bad arguments, configuration or
table; 3 Kafka deleted records before they were read
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="bronze",
        description="Kafka to a Delta Lake bronze table: every record exactly once in bronze or in the DLQ.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    ingest = commands.add_parser(
        "ingest",
        help="move a topic's records into bronze and the DLQ",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    for option in fields(IngestConfig):
        _add_flag(ingest, option)
    return parser


def _add_flag(parser: argparse.ArgumentParser, option: Field[Any]) -> None:
    """One field as one flag; those not given are left to the configuration's own defaults."""
    flag, help_text = "--" + option.name.replace("_", "-"), option.metadata["help"]
    shared: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
    if option.name == "fail_on_data_loss":
        parser.add_argument(flag, action="store_true", help=f"{help_text} (default)", **shared)
        parser.add_argument("--accept-data-loss", action="store_false", help="go on without such records", **shared)
    elif isinstance(option.default, bool):
        parser.add_argument(flag, action="store_true", help=help_text, **shared)
    else:
        default = "" if option.default in ("", 0) else f" (default: {option.default})"
        parser.add_argument(
            flag,
            type=type(option.default),
            required=option.metadata.get("required", False) and not option.default,
            choices=option.metadata.get("choices"),
            metavar=_describe_value(option),
            help=(help_text + default).replace("%", "%%"),
            **shared,
        )


def _describe_value(option: Field[Any]) -> str | None:
    if option.metadata.get("choices"):
        return None
    return "N" if isinstance(option.default, int) else option.name.rpartition("_")[2].upper()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; a known condition is one message, without a traceback."""
    given = vars(build_parser().parse_args(arguments))
    given.pop("command")
    configure_logging()
    try:
        config = IngestConfig(**given)
        from bronze.stream import run  # only now: --help and bad arguments answer without Spark

        summary = run(config)
    except BronzeError as error:
        print(f"bronze: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{summary.total:,} records in {summary.batch_count:,} batches: {summary.valid:,} valid, "
        f"{summary.invalid:,} invalid" + (f", {summary.present:,} in the tables already" if summary.present else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
