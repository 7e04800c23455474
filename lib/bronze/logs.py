"""The log that users see: a line per event with the time in UTC, on standard error."""

import logging
import sys
import time


def configure_logging(level: int = logging.INFO) -> None:
    """Show this product's log; calling it again changes nothing. Other libraries keep their own settings."""
    logger = logging.getLogger("bronze")
    if logger.handlers:
        return
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
