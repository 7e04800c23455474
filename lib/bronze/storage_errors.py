"""The conditions of tables and Kafka's log that end a command, each with its exit code and the cure."""

from collections.abc import Sequence

from bronze.errors import BronzeError


class NotADeltaTable(BronzeError):
    """Raised when a table's path has files in it, but no Delta table."""

    exit_code = 2

    def __init__(self, option: str, path: str):
        super().__init__(f"--{option}: {path} holds files but is no Delta table; give an empty or a new path")


class TableMismatch(BronzeError):
    """Raised when an existing table does not have the columns or the partitioning it must have."""

    exit_code = 2

    def __init__(self, option: str, path: str, differences: list[str]):
        listed = "\n  ".join(differences)
        super().__init__(f"--{option}: the table at {path} does not fit; give another path, or migrate it:\n  {listed}")


class TopicRecreated(BronzeError):
    """Raised when the topic was deleted and made anew since the table was: its offsets mean other records."""

    exit_code = 2

    def __init__(self, topic: str, path: str, known: str, found: str):
        super().__init__(
            f"topic {topic} was deleted and recreated since {path} was made (topic id {found}, the table has {known}); "
            "its offsets mean other records now. Give new --output-path, --dlq-path and --checkpoint-path."
        )


class WriterUnsuitable(BronzeError):
    """Raised when the direct writer is asked for on a table that it cannot append to correctly."""

    exit_code = 2

    def __init__(self, reason: str):
        super().__init__(f"--writer direct cannot be used: {reason}; use --writer auto or delta-spark")


class TableChanged(BronzeError):
    """Raised when a table's schema, properties or features changed, or it was replaced or deleted, meanwhile."""

    def __init__(self, path: str):
        super().__init__(
            f"{path} was altered, replaced or deleted since this run began; run the same command again: the table is "
            "checked anew"
        )


class RowsRefused(BronzeError):
    """Raised when rows of a batch break a rule of the table: a constraint, a NOT NULL column, a VARCHAR's length."""

    exit_code = 2

    def __init__(self, path: str, reason: str):
        super().__init__(
            f"{path or 'a table'} does not take rows of this batch: {reason}. Nothing was lost, and running again does "
            "not help: change that rule of the table (ALTER TABLE), then run the same command again to go on"
        )


class WriteRefused(BronzeError):
    """Raised when the disk is full, or a table or checkpoint cannot be written to any more."""

    def __init__(self, path: str, reason: str):
        cure = "make it writable" if reason in ("Read-only file system", "Permission denied") else "free space"
        super().__init__(
            f"cannot write to {path} ({reason}); nothing was lost: {cure}, then run the same command again to go on"
        )


class DataFileMissing(BronzeError):
    """Raised when a file that the log of a table refers to is gone: its rows are missing, and a retry does not help."""

    def __init__(self, path: str):
        table = _find_table(path)
        super().__init__(
            f"{path} is gone, though the log of its table refers to it; its rows cannot be read any more. Restore the "
            f"file, or take it out of the log (DeltaTable({table!r}).repair() of the Python package deltalake) and add "
            "its rows again by bronze backfill, from what Kafka still holds; bronze audit then says what is missing"
        )


class DeletionVectorMissing(BronzeError):
    """Raised when a file is gone that says which rows of a table are deleted: the table cannot be read without it."""

    def __init__(self, path: str):
        super().__init__(
            f"{path} is gone, which says what rows of its table are deleted, so the table cannot be read. Restore the "
            f"file, or take the deletion back: RESTORE TABLE delta.`{_find_table(path)}` TO VERSION AS OF the version "
            "before it (DESCRIBE HISTORY names it), then add what was ingested since by bronze backfill"
        )


def _find_table(path: str) -> str:
    """The folder of the table that a file is of."""
    folders = path.split("/")[:-1]  # of a URI too
    return "/".join(folders[: next((n for n, name in enumerate(folders) if "=" in name), None)])


class FileNotSeen(BronzeError):
    """Raised when the driver does not see a file that an executor wrote."""

    def __init__(self, path: str):
        super().__init__(
            f"an executor wrote {path}, but the driver does not see it, or not whole: is the path on a disk that all "
            "nodes share? If not, use --writer delta-spark with a path on a shared file system; nothing was committed"
        )


class TableNotSeen(BronzeError):
    """Raised when a task finds no table where it is to write its files."""

    def __init__(self, path: str):
        super().__init__(
            f"there is no table at {path} any more, or not where the executors run; nothing was committed. If it was "
            "deleted, run the same command again: it says what to do. If the path is not on a disk that all nodes "
            "share, use --writer delta-spark with a path on a shared file system"
        )


class AppendConflict(BronzeError):
    """Raised when others kept appending to the table while a batch was to be committed."""

    def __init__(self, path: str, attempts: int):
        super().__init__(
            f"could not commit to {path} in {attempts} attempts, because other writers kept committing first; "
            "nothing was lost, run the same command again"
        )


class TableMissing(BronzeError):
    """Raised when a command needs a table that is not there."""

    exit_code = 2

    def __init__(self, option: str, path: str):
        super().__init__(f"--{option}: there is no table at {path}; ingest first, or correct the path")


class RangeNotHeld(BronzeError):
    """Raised when a part of the range to backfill is neither in the tables nor, any more or yet, in Kafka."""

    exit_code = 2

    def __init__(self, topic: str, outside: Sequence[str]):
        super().__init__(
            f"Kafka does not hold the whole range of {topic}: {'; '.join(outside)}. Correct the range, or take what "
            "there is with --allow-partial"
        )


class DeletedMeanwhile(BronzeError):
    """Raised when Kafka deleted records of a backfill's range between its plan and their reading."""

    exit_code = 3

    def __init__(self, reason: str):
        super().__init__(
            f"Kafka has deleted records of the range before they were read: {reason}. What was appended stays; run the "
            "same command again with --allow-partial for what is left"
        )


class DlqMissing(BronzeError):
    """Raised when a DLQ that bronze names is gone; a new one would hide that its records are lost."""

    exit_code = 2

    def __init__(self, dlq_path: str, output_path: str):
        super().__init__(
            f"the DLQ {dlq_path} of {output_path} is gone, and the invalid records that waited in it are in no other "
            "table. Restore it; or give --change-dlq with a new --checkpoint-path, which reads again what Kafka still "
            "holds of them (what is in the tables is left out)"
        )


class DlqMismatch(BronzeError):
    """Raised when a run has another DLQ than bronze names for the topic, or none."""

    exit_code = 2

    def __init__(self, output_path: str, topic: str, known: Sequence[str], given: str):
        names = " or ".join(known)
        where = f"in the DLQ {names}" if known else "in itself, without a DLQ"
        super().__init__(
            f"{output_path} keeps the invalid records of {topic} {where}, and this run has "
            f"{'the DLQ ' + given if given else 'none'}. {'Give --dlq-path ' + names if known else 'Omit --dlq-path'}; "
            f"or --change-dlq, to use {given or 'no DLQ'} from now on (what the DLQ before holds still counts)"
        )


class DlqTaken(BronzeError):
    """Raised when a DLQ keeps the records of the topic for another bronze table."""

    exit_code = 2

    def __init__(self, dlq_path: str, topic: str, owner: str, missing: str = ""):
        cure = "give a --dlq-path of its own, or --change-dlq to take it over for this table"
        if missing:
            cure = (
                f"there is no table at {missing}. Correct --output-path, or restore it; or give --change-dlq with "
                "a new --checkpoint-path, which reads the topic again into a new table"
            )
        super().__init__(
            f"the DLQ {dlq_path} keeps the invalid records of {topic} for another bronze table, {owner}; {cure}"
        )


class DlqChanged(BronzeError):
    """Raised when another run has changed the DLQ of bronze, or the bronze table of the DLQ, meanwhile."""

    exit_code = 2

    def __init__(self, output_path: str, topic: str, dlq_path: str):
        super().__init__(
            f"another run has changed where the invalid records of {topic} go: {output_path} names "
            f"{'the DLQ ' + dlq_path if dlq_path else 'no DLQ'} now, or its DLQ belongs to another table. Nothing was "
            f"lost: start again {'with that --dlq-path' if dlq_path else 'without --dlq-path'}"
        )


class CheckpointReplaced(BronzeError):
    """Raised when the checkpoint of a running query is not the one that it wrote any more."""

    def __init__(self, path: str):
        super().__init__(
            f"the checkpoint {path} was deleted or replaced while the query was running; nothing was lost: run the "
            "same command again, which goes on from the checkpoint that is there now"
        )


class TopicTruncated(BronzeError):
    """Raised when the topic ends before what was read: its next records get offsets that meant others."""

    exit_code = 3

    def __init__(self, topic: str, ends: dict[int, tuple[int, int]]):
        listed = "; ".join(f"partition {p} ends at {end}, but was read to {read}" for p, (end, read) in ends.items())
        super().__init__(
            f"{topic} has lost its newest records: {listed}. New records would get offsets that are in the tables "
            "already. Give new --output-path, --dlq-path and --checkpoint-path"
        )


class MaintenanceConflict(BronzeError):
    """Raised when others kept changing the files that a maintenance step was to replace."""

    def __init__(self, path: str, attempts: int):
        super().__init__(
            f"could not maintain {path} in {attempts} attempts, because others kept changing the same files; "
            "nothing was lost, run the same command again"
        )


class CatalogNameTaken(BronzeError):
    """Raised when a catalog name is that of a table at another path."""

    exit_code = 2

    def __init__(self, option: str, name: str, path: str, found: str):
        super().__init__(f"--{option}: {name} is the table at {found}, not at {path}; give a free name")
