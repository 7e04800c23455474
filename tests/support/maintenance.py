"""Maintenance of a lake, and files for it to delete."""

import os
import time
from pathlib import Path
from typing import Any

from bronze import maintain
from bronze.config import MaintainConfig
from bronze.ops.maintain import MaintenanceSummary
from tests.support.lake import Lake


def run_maintenance(lake: Lake, **changes: Any) -> MaintenanceSummary:
    return maintain(lake.configure(MaintainConfig, **changes), lake.spark)


def add_stray_file(lake: Lake, days: int) -> Path:
    """Put a file into bronze such as a task that failed days ago leaves behind."""
    file = Path(lake.config.output_path, "_event_date=2026-01-31", "_event_hour=22", "stray.zstd.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"PAR1")
    os.utime(file, (0, time.time() - days * 86_400))
    return file
