"""The errors that end a command: one class per exit code, and below them those that the code catches by type.

The message stands where the error is raised. Where several places raise the same one, a function ``…_error`` makes it.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended, for schedulers."""

    DONE = 0
    FAILED = 1
    CONFIG = 2
    DATA_LOSS = 3
    TOO_MANY_INVALID = 4
    INCOMPLETE = 5
    ALERTS_FIRING = 6
    INTERRUPTED = 130  # as a shell reports it


class BronzeError(Exception):
    """A condition that a user is told about in one message, without a traceback. By itself: run the command again.

    Attributes:
        exit_code: What the command ends with.
        problem: What is wrong.
        hint: What to do; empty where the problem says it.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, problem: str, hint: str = ""):
        self.problem, self.hint = problem, hint
        # A hint that begins with a capital is a sentence after the problem's; any other completes it.
        join = " " if hint[:1].isupper() else "; "
        super().__init__(f"{problem}{join}{hint}" if hint else problem)


class ConfigError(BronzeError):
    """Arguments, configuration, tables or checkpoint cannot be used; the same command fails again."""

    exit_code = ExitCode.CONFIG


class DataLossError(BronzeError):
    """Kafka no longer has records that were to be read.

    Attributes:
        lost: Which ones; empty where that is not known.
    """

    exit_code = ExitCode.DATA_LOSS

    def __init__(self, problem: str, hint: str = "", lost: str = ""):
        self.lost = lost
        super().__init__(problem, hint)


class TooManyInvalidError(BronzeError):
    """More records of a batch are invalid than allowed; the batch is committed, and no other was begun."""

    exit_code = ExitCode.TOO_MANY_INVALID


class AlertsFiringError(BronzeError):
    """An alert fires, and that is to fail the run."""

    exit_code = ExitCode.ALERTS_FIRING


class UnknownTopicError(ConfigError):
    """Kafka has no such topic."""


class NotADeltaTableError(ConfigError):
    """A table's path has files in it, but no Delta table."""


class TopicVanishedError(BronzeError):
    """Kafka told a running query that there is no such topic."""


class AppendConflictError(BronzeError):
    """Others kept appending to the table while a batch was to be committed."""


class RecordUnreadableError(BronzeError):
    """Spark cannot read a record.

    Attributes:
        partition: Kafka partition of the record.
        offset: Its offset.
    """

    def __init__(self, problem: str, hint: str = "", *, partition: int, offset: int):
        self.partition, self.offset = partition, offset
        super().__init__(problem, hint)


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


def to_flag(name: str) -> str:
    """The command-line flag of a parameter."""
    return f"--{name.replace('_', '-')}"


class InvalidOptionError(ConfigError):
    """A parameter has a value that cannot be used."""

    def __init__(self, name: str, value: object, expected: str):
        super().__init__(f"{to_flag(name)}: expected {expected}, got {show_value(value)}")
