"""The conditions of Kafka and of what a topic holds that end a command, each with its exit code and the cure."""

from collections.abc import Sequence

from bronze.errors import BronzeError


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
