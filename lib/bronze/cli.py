"""The command ``bronze``. Its flags are the fields of the configurations; the errors have its exit codes."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from importlib import import_module
from typing import Any

from bronze.config import (
    AuditConfig,
    BackfillConfig,
    CheckpointConfig,
    Config,
    CreateTablesConfig,
    IngestConfig,
    MaintainConfig,
    ReplayConfig,
    StatusConfig,
)
from bronze.errors import BronzeError, ExitCode, to_flag
from bronze.runtime.jars import check_spark
from bronze.runtime.logs import configure_logging, event, is_json, report_failure, report_step
from bronze.runtime.streams import make_streams_tolerant

log = logging.getLogger("bronze.cli")  # not __main__, whose log is not shown

_EXIT_CODES = """
exit codes: 0 done or stopped as asked; 1 the query, Kafka or storage failed; 2 bad arguments, configuration or
table; 3 Kafka lost records, unread or read; 4 too many invalid records; 5 the audit has findings; 6 an
alert is firing; 130 interrupted before the query ran
"""


@dataclass(frozen=True)
class Command:
    """One command; the ``main`` of its module takes the configuration and returns the exit code."""

    module: str
    config: type[Config]
    help: str


COMMANDS = {
    "ingest": Command("stream", IngestConfig, "move a topic's records into bronze and the DLQ"),
    "backfill": Command("ops.backfill", BackfillConfig, "ingest the records missing from an offset or time range"),
    "audit": Command(
        "ops.audit", AuditConfig, "prove that every record is in the tables once, or list those that are not"
    ),
    "checkpoint": Command(
        "ops.checkpoint", CheckpointConfig, "show the state of a checkpoint, and whether the tables agree with it"
    ),
    "replay": Command("ops.replay", ReplayConfig, "append to bronze the DLQ records that are now valid"),
    "status": Command("ops.status", StatusConfig, "measure tables, lag and delays, and evaluate the alerts"),
    "maintain": Command("ops.maintain", MaintainConfig, "compact closed hours, clean the logs, vacuum"),
    "create-tables": Command("ops.create_tables", CreateTablesConfig, "print or run the DDL of both tables"),
}


class _Parser(argparse.ArgumentParser):
    """Reports unknown flags without their values: the value of ``--http-token`` may be a secret."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(flags or unknown)}")
        return found


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="bronze",
        description="Kafka to a Delta Lake bronze table: every record exactly once in bronze or in the DLQ.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        flags = commands.add_parser(name, help=command.help, epilog=_EXIT_CODES, allow_abbrev=False)
        for option in fields(command.config):
            _add_flag(flags, option)
    return parser


def _add_flag(parser: argparse.ArgumentParser, option: Field[Any]) -> None:
    """Add one field as one flag; a flag that is not given has the default of the configuration."""
    flag, help_text = to_flag(option.name), option.metadata["help"]
    shared: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
    if option.name == "fail_on_data_loss":
        parser.add_argument(flag, action="store_true", help=f"{help_text} (default)", **shared)
        parser.add_argument("--accept-data-loss", action="store_false", help="continue without such records", **shared)
    elif isinstance(option.default, bool):
        parser.add_argument(flag, action="store_true", help=help_text, **shared)
    else:
        default = "" if option.default in ("", 0) else f" (default: {option.default})"
        parser.add_argument(
            flag,
            type=type(option.default),
            required=option.metadata.get("required", False) and not option.default,
            choices=option.metadata.get("choices"),
            metavar=_choose_metavar(option),
            help=(help_text + default).replace("%", "%%"),
            **shared,
        )


def _choose_metavar(option: Field[Any]) -> str | None:
    if option.metadata.get("choices"):
        return None
    return "N" if isinstance(option.default, int | float) else option.name.rpartition("_")[2].upper()


def _is_no_interrupted_call(record: logging.LogRecord) -> bool:
    """Whether to log a record: false for the tracebacks that py4j logs when an interrupt cancels a call."""
    return not re.search("while (?:sending command|shutting down connection)", record.getMessage())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; a known condition is reported as one message, without a traceback."""
    make_streams_tolerant()
    try:
        given = vars(build_parser().parse_args(arguments))
        command = COMMANDS[name := given.pop("command")]
        configure_logging(log_format=given.get("log_format", "text"))
        for logger in ("", "py4j.clientserver"):
            logging.getLogger(logger).addFilter(_is_no_interrupted_call)
        config = command.config(**given)
        check_spark()
        # imported only now, so that bad arguments fail without loading Spark
        module = import_module(f"bronze.{command.module}")
        from bronze.runtime.spark_errors import explain_failures

        report_step(f"bronze {name}", "start", command=name)
        with explain_failures():
            code = int(module.main(config))
        report_step("Done", "end", exit_code=code)
        return code
    except BronzeError as error:
        report_failure(str(error), int(error.exit_code), problem=error.problem, hint=error.hint)
        return int(error.exit_code)
    except KeyboardInterrupt:
        report_failure("interrupted; run the same command again to continue", int(ExitCode.INTERRUPTED))
        return int(ExitCode.INTERRUPTED)
    except Exception as error:
        if not is_json():
            raise
        log.exception("%s: %s", type(error).__name__, error, extra=event("failed", exit_code=int(ExitCode.FAILED)))
        return int(ExitCode.FAILED)


if __name__ == "__main__":
    sys.exit(main())
