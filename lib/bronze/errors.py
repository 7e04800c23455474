"""One small class per condition that ends a command, each with its exit code and the cure in its message."""

from collections.abc import Sequence


class BronzeError(Exception):
    """Base of all conditions that a user is told about in one message, without a traceback."""

    exit_code = 1


class JavaNotFound(BronzeError):
    """Raised when there is no Java, or one that is too old for Spark."""

    exit_code = 2

    def __init__(self, found: str, minimum: int):
        super().__init__(
            f"{found}; Spark needs Java {minimum} or newer. Install it (Debian: apt-get install "
            "openjdk-17-jre-headless, macOS: brew install openjdk@17) or set JAVA_HOME to one."
        )


class PackageMissing(BronzeError):
    """Raised when the Python of the driver lacks a package whose version decides which jars fit."""

    exit_code = 2

    def __init__(self, package: str):
        super().__init__(
            f"the driver's Python has no package {package!r}; install this project into it (pip install .), also where "
            "spark-submit is that of a Spark distribution, and set PYSPARK_DRIVER_PYTHON to it"
        )


class JarsNotResolved(BronzeError):
    """Raised when Maven Central does not deliver the jars."""

    def __init__(self, coordinates: Sequence[str], log: str):
        tail = "\n".join(line for line in log.splitlines() if line.strip(" ."))[-1500:]
        super().__init__(f"could not download {', '.join(coordinates)} from Maven; Ivy said:\n{tail}")


class TooManyInvalid(BronzeError):
    """Raised when more records of a batch are invalid than allowed; the batch is committed, and no other was begun."""

    exit_code = 4

    def __init__(self, batch_id: int, invalid: int, records: int, limit: float):
        super().__init__(
            f"{invalid:,} of the {records:,} records of batch {batch_id} are invalid, {invalid / records:.1%}; "
            f"--max-invalid-ratio allows {limit:g}. The batch is committed, and nothing after it was read. See what "
            "came (notebooks/dlq_inspection.ipynb), then run the same command again to go on with the next batch"
        )


_SHOWN = 200


class Hidden:
    """Stands in a message for a value that may hold a secret."""

    def __repr__(self) -> str:
        return "a value that is not shown, because it may hold a secret"


def show_value(value: object) -> str:
    """A value of any type as a message shows it: on one line and of a bounded length."""
    if isinstance(value, dict):  # a mapping in the place of a file's name may be what the file should hold
        value = Hidden()
    try:
        text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a very long {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class InvalidOption(BronzeError):
    """Raised when a parameter has a value that cannot be used."""

    exit_code = 2

    def __init__(self, name: str, value: object, expected: str):
        super().__init__(f"--{name.replace('_', '-')}: expected {expected}, got {show_value(value)}")


class OptionMissing(BronzeError):
    """Raised when a required parameter is empty."""

    exit_code = 2

    def __init__(self, name: str, purpose: str):
        super().__init__(f"--{name.replace('_', '-')} is required: {purpose}")


class RangeMissing(BronzeError):
    """Raised when a backfill is not told what to add."""

    exit_code = 2

    def __init__(self) -> None:
        super().__init__(
            "no range is given: name it by --starting-offsets and --ending-offsets, or by --start-timestamp and "
            "--end-timestamp; --starting-offsets earliest is all that Kafka holds"
        )


class RangeAmbiguous(BronzeError):
    """Raised when a backfill is given a range both by offsets and by time."""

    exit_code = 2

    def __init__(self, by_offsets: Sequence[str], by_time: Sequence[str]):
        one, other = (", ".join(f"--{name.replace('_', '-')}" for name in names) for names in (by_offsets, by_time))
        super().__init__(f"the range is given twice, by offsets ({one}) and by time ({other}); leave one of them empty")


class JarsMissing(BronzeError):
    """Raised when Spark runs without the Kafka source or without Delta Lake."""

    exit_code = 2

    def __init__(self, packages: Sequence[str]):
        super().__init__(
            "this Spark session lacks the Kafka source or Delta Lake; submit with --packages " + ",".join(packages)
        )


class ExecutorDependencyMissing(BronzeError):
    """Raised when the Python of an executor cannot import what the tasks need, or this package itself."""

    exit_code = 2

    def __init__(self, module: str):
        cure = (
            "run lib/bronze_ingestion.py by spark-submit, which sends it, or submit with --py-files and a zip of it"
            if module.partition(".")[0] == "bronze"
            else "pack the environment with `make env-archive` and submit "
            "with --archives dist/bronze-env.tar.gz#env --conf spark.executorEnv.PYTHONPATH=env"
        )
        super().__init__(f"the executors' Python has no module {module!r}; {cure}")


class QueryFailed(BronzeError):
    """Raised when the streaming query ended with an error; nothing is lost, the next start resumes."""

    def __init__(self, reason: str):
        super().__init__(f"failed: {reason}; nothing was lost, run the same command again to go on")


class NotebookMissing(BronzeError):
    """Raised when there is no such notebook or parameter file."""

    exit_code = 2

    def __init__(self, path: str):
        super().__init__(f"there is no file {path}")


class FileUnreadable(BronzeError):
    """Raised when a notebook or a parameter file is not what it should be."""

    exit_code = 2

    def __init__(self, path: str, expected: str, error: Exception):
        super().__init__(f"{path} is no {expected}: {' '.join(str(error).split())[:200]}")


class UnknownParameter(BronzeError):
    """Raised when a notebook is given a parameter that it does not have."""

    exit_code = 2

    def __init__(self, notebook: str, unknown: Sequence[str], known: Sequence[str]):
        super().__init__(f"{notebook} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}")


class InvalidParameter(BronzeError):
    """Raised when a notebook's parameter is given a value of another type."""

    exit_code = 2

    def __init__(self, name: str, value: object, kind: str):
        cure = "; write True or False with papermill -p, true or false in YAML" if kind == "bool" else ""
        super().__init__(f"parameter {name}: expected a value of type {kind}, got {show_value(value)}{cure}")


class PortUnusable(BronzeError):
    """Raised when the HTTP server cannot listen where it is told to."""

    exit_code = 2

    def __init__(self, host: str, port: int, reason: str):
        super().__init__(f"cannot listen on {host}:{port}: {reason}; choose another --http-port or --http-host")


class AlertsFiring(BronzeError):
    """Raised when an alert fires and that is to fail the run."""

    exit_code = 6

    def __init__(self, firing: Sequence[str]):
        super().__init__(f"{len(firing)} of the alerts are firing: " + "; ".join(firing))


class CheckpointUnreadable(BronzeError):
    """Raised when a file of the checkpoint that Spark needs is missing or cut off."""

    exit_code = 2

    def __init__(self, path: str, condition: str):
        super().__init__(
            f"{path} is {condition}, so the checkpoint does not say where to go on. Start with a new "
            "--checkpoint-path and --starting-offsets earliest; what is in the tables already is left out then"
        )


class CheckpointInUse(BronzeError):
    """Raised when another process runs a query on the same checkpoint; what both committed is there once."""

    def __init__(self, path: str):
        super().__init__(
            f"another process works with the checkpoint {path}, so this one has ended; nothing was lost or doubled. "
            "Let one process only use a checkpoint; where the other has ended too, run the same command again"
        )


class CheckpointOfOtherTopic(BronzeError):
    """Raised when the checkpoint has the offsets of another topic."""

    exit_code = 2

    def __init__(self, path: str, topic: str, found: Sequence[str]):
        super().__init__(
            f"{path} has the offsets of {', '.join(found) or 'no topic'}, not of {topic}; correct --checkpoint-path or "
            "--kafka-topic, or give a new --checkpoint-path (what is in the tables already is left out then)"
        )


class CheckpointOfOtherTables(BronzeError):
    """Raised when the checkpoint was used with another bronze table: what it left behind would be missing in this."""

    exit_code = 2

    def __init__(self, checkpoint_path: str, output_path: str, found: str):
        super().__init__(
            f"the checkpoint {checkpoint_path} says that records were ingested, but not into the table at "
            f"{output_path} ({found}); correct --output-path, or give a new --checkpoint-path to ingest from the "
            "start (what is in the tables already is left out then)"
        )


class CheckpointMissing(BronzeError):
    """Raised when there is no checkpoint at the path."""

    exit_code = 2

    def __init__(self, path: str):
        super().__init__(
            f"--checkpoint-path: no query has planned a batch at {path}; correct the path, or ingest into it: a new "
            "checkpoint starts from the earliest offsets, and what is in the tables already is left out"
        )


class PartitionsMissing(BronzeError):
    """Raised when JSON offsets do not name every partition; Spark needs them all."""

    exit_code = 2

    def __init__(self, name: str, topic: str, missing: list[int]):
        super().__init__(
            f"--{name.replace('_', '-')} must name every partition of {topic}; missing: "
            f"{', '.join(map(str, missing))} (-2 is the earliest offset, -1 the latest)"
        )


class PartitionsUnknown(BronzeError):
    """Raised when JSON offsets name partitions that the topic does not have."""

    exit_code = 2

    def __init__(self, name: str, topic: str, unknown: list[int]):
        super().__init__(
            f"--{name.replace('_', '-')} names partitions that {topic} does not have: {', '.join(map(str, unknown))}"
        )


class UnknownTopic(BronzeError):
    """Raised when the broker has no such topic."""

    exit_code = 2

    def __init__(self, topic: str, brokers: str):
        super().__init__(f"Kafka at {brokers} has no topic {topic!r}; create it, or correct --kafka-topic")


class TopicVanished(BronzeError):
    """Raised when a running query was told that there is no such topic."""

    def __init__(self, reason: str):
        super().__init__(f"Kafka did not know the topic for a moment: {reason}; run the same command again to go on")


class InvalidKafkaConfig(BronzeError):
    """Raised when the Kafka client refuses its configuration, a broker's name or its credentials."""

    exit_code = 2

    def __init__(self, brokers: str, reason: str):
        super().__init__(f"cannot read from Kafka at {brokers}: {reason}; check --kafka-brokers and --kafka-config")


class KafkaUnavailable(BronzeError):
    """Raised when no broker answers within the startup timeout."""

    def __init__(self, brokers: str, seconds: float, reason: str):
        super().__init__(
            f"Kafka at {brokers} did not answer within {seconds:g} s (--startup-timeout): {reason}; "
            "start the broker or correct --kafka-brokers, then run the same command again"
        )


class KafkaLost(BronzeError):
    """Raised when no broker answers a running query for longer than its clients wait."""

    def __init__(self, reason: str):
        super().__init__(
            f"Kafka did not answer for longer than its clients wait: {reason}; nothing was lost, run the same command "
            "again to go on, once it answers"
        )


class DataLoss(BronzeError):
    """Raised when Kafka no longer has offsets that were not read yet."""

    exit_code = 3

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(
            f"Kafka has deleted records before they were read: {reason}. Go on without them with --accept-data-loss"
        )


class OffsetsOutOfRange(BronzeError):
    """Raised when JSON offsets are not among those that Kafka holds."""

    exit_code = 2

    def __init__(self, name: str, topic: str, outside: Sequence[str]):
        super().__init__(f"--{name.replace('_', '-')}: {topic} does not hold {'; '.join(outside)}")


class RecordUnreadable(BronzeError):
    """Raised when Spark cannot read a record, because its Kafka timestamp does not fit into Spark's."""

    def __init__(self, topic: str, partition: int, offset: int, timestamp: int):
        self.partition, self.offset = partition, offset
        super().__init__(
            f"Spark cannot read the record at partition {partition}, offset {offset} of {topic}: its Kafka timestamp "
            f"{timestamp} is beyond what Spark can hold. It is in the batch that the checkpoint has planned (its "
            "newest offsets file), so the same command ends here every time. The way on: first a new --checkpoint-path "
            "with --starting-offsets at that batch's start and --max-offsets-per-trigger 1 ingests what lies before "
            "the record and ends here again; then another new --checkpoint-path with --starting-offsets that name "
            f"{offset + 1} for partition {partition} and -2 for the others. The tables leave out what they have"
        )


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
