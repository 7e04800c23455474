"""The log that users see: a line per event with the time in UTC."""

import logging
import time
from typing import TextIO


class _Formatter(logging.Formatter):
    """Begins the message of a warning with the word."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        if record.levelno >= logging.WARNING:
            record.message = f"Warning: {record.message}"
        return super().formatMessage(record)


def configure_logging(stream: TextIO | None = None) -> None:
    """Show this product's log; calling it again changes nothing. Other libraries keep their own settings.

    Args:
        stream: Where to; standard error when not given. Notebooks take standard output, which is not red.
    """
    logger = logging.getLogger("bronze")
    if logger.handlers:
        return
    formatter = _Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
