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


class JarsNotResolved(BronzeError):
    """Raised when Maven Central does not deliver the jars."""

    def __init__(self, coordinates: Sequence[str], log: str):
        tail = "\n".join(line for line in log.splitlines() if line.strip(" ."))[-1500:]
        super().__init__(f"could not download {', '.join(coordinates)} from Maven; Ivy said:\n{tail}")


class InvalidOption(BronzeError):
    """Raised when a parameter has a value that cannot be used."""

    exit_code = 2

    def __init__(self, name: str, value: object, expected: str):
        super().__init__(f"--{name.replace('_', '-')}: expected {expected}, got {value!r}")


class OptionMissing(BronzeError):
    """Raised when a required parameter is empty."""

    exit_code = 2

    def __init__(self, name: str, purpose: str):
        super().__init__(f"--{name.replace('_', '-')} is required: {purpose}")


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


class JarsMissing(BronzeError):
    """Raised when Spark runs without the Kafka source or without Delta Lake."""

    exit_code = 2

    def __init__(self, packages: Sequence[str]):
        super().__init__(
            "this Spark session lacks the Kafka source or Delta Lake; submit with --packages " + ",".join(packages)
        )


class ExecutorDependencyMissing(BronzeError):
    """Raised when the Python of an executor cannot import what the tasks need."""

    exit_code = 2

    def __init__(self, module: str):
        super().__init__(
            f"the executors' Python has no module {module!r}; pack the environment with `make env-archive` and submit "
            "with --archives dist/bronze-env.tar.gz#env --conf spark.executorEnv.PYTHONPATH=env"
        )


class CheckpointUnreadable(BronzeError):
    """Raised when a file of the checkpoint is missing, cut off or of another topic."""

    exit_code = 2

    def __init__(self, path: str, topic: str):
        super().__init__(
            f"{path} names no offsets of {topic}: the checkpoint is of another topic, or damaged. Start with a new "
            "--checkpoint-path; what is in the tables already is left out then"
        )


class CheckpointOfOtherTables(BronzeError):
    """Raised when the checkpoint exists and the bronze table does not: what was read before would be missing in it."""

    exit_code = 2

    def __init__(self, checkpoint_path: str, output_path: str):
        super().__init__(
            f"the checkpoint {checkpoint_path} says that records were ingested, but there is no table at "
            f"{output_path}; correct --output-path, or give a new --checkpoint-path to ingest from the start"
        )


class AppendConflict(BronzeError):
    """Raised when others kept appending to the table while a batch was to be committed."""

    def __init__(self, path: str, attempts: int):
        super().__init__(
            f"could not commit to {path} in {attempts} attempts, because other writers kept committing first; "
            "nothing was lost, run the same command again"
        )


class DataLoss(BronzeError):
    """Raised when Kafka no longer has offsets that were not read yet."""

    exit_code = 3

    def __init__(self, reason: str):
        super().__init__(
            f"Kafka has deleted records before they were read: {reason}; go on without them with --accept-data-loss"
        )


class QueryFailed(BronzeError):
    """Raised when the streaming query ended with an error; nothing is lost, the next start resumes."""

    def __init__(self, reason: str):
        super().__init__(f"the query failed: {reason}; run the same command again to resume")
