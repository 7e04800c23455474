"""How long the phases of a batch take, and how much it writes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# In this order: look up which offsets the tables have, run the tasks, commit to both tables.
PHASES = ("overlap", "write", "commit")


@dataclass
class BatchStats:
    """Measurements of one batch; the attempts after a conflict add up.

    Attributes:
        seconds: Duration of each phase.
        files: Files that were committed, per table; none with the delta-spark writer, whose files only the logs name.
        size: Their bytes.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Add the duration of the block to a phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started

    def set_files(self, written: Mapping[str, Any]) -> None:
        """Note the files that were committed: lists of ``DataFile``; rows of Spark are not counted."""
        files = {name: rows for name, rows in written.items() if isinstance(rows, list)}
        self.files = {name: len(rows) for name, rows in files.items()}
        self.size = {name: sum(file.size for file in rows) for name, rows in files.items()}
