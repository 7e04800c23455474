"""The conditions of checkpoints that end a command, each with its exit code and the cure."""

from collections.abc import Sequence

from bronze.errors import BronzeError


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
