"""The log that users see: one line per event with the time in UTC, as text or as JSON."""

import json
import logging
import os
import re
import sys
import time
from typing import Any, TextIO
from uuid import uuid4

RUN_VARIABLE = "BRONZE_RUN_ID"
# Identifies the process in its log, in the notes of its commits and in an executed notebook. A JVM option contains it,
# so it has no spaces and no quotes.
RUN_ID = re.sub(r"[^\w.:+-]", "_", os.environ.get(RUN_VARIABLE, ""))[:200] or uuid4().hex


class _TextFormatter(logging.Formatter):
    """Prefixes the message of a warning with ``Warning:``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if record.levelno >= logging.WARNING:
            record.message = f"Warning: {record.message}"
        return super().formatMessage(record)


class _JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line; log4j2.properties has the same for Spark's log."""

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "run_id": RUN_ID,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def configure_logging(stream: TextIO | None = None, log_format: str = "text") -> None:
    """Show this product's log; calling it again changes nothing. Other libraries keep their settings.

    Args:
        stream: Target of the log; standard error by default. Notebooks use standard output, which is not red.
        log_format: ``text`` or ``json``.
    """
    logger = logging.getLogger("bronze")
    if logger.handlers:
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def is_json() -> bool:
    """Whether the log is JSON."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger("bronze").handlers)


def event(name: str, **fields: object) -> dict[str, Any]:
    """Name a log line for programs, and add fields to it: the ``extra`` of a call of the logger.

    Args:
        name: The kind of event.
        fields: Values that ``json`` can encode; only the JSON log shows them.
    """
    return {"fields": {"event": name, **fields}}


def report_step(text: str, name: str, **fields: object) -> None:
    """Log an event that only a JSON log has."""
    if is_json():
        logging.getLogger(__name__).info("%s", text, extra=event(name, **fields))


def report(text: str, name: str, **fields: object) -> None:
    """Print the result of a command; in a JSON log it is an event, because both may end up in the same stream."""
    if is_json():
        logging.getLogger(__name__).info("%s", text, extra=event(name, **fields))
    else:
        print(text)


def report_failure(message: str, exit_code: int, **fields: object) -> None:
    """Print the error that ends a command on standard error; in a JSON log it is an event."""
    if is_json():
        logging.getLogger(__name__).error("%s", message, extra=event("failed", exit_code=exit_code, **fields))
    else:
        print(f"bronze: {message}", file=sys.stderr)
