"""The errors that end a command: one class per exit code, and subclasses that the code catches by type.

The message is written where the error is raised. If several places raise the same error, a function ``…_error`` makes
it.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the commands, for schedulers."""

    DONE = 0
    FAILED = 1
    CONFIG = 2
    DATA_LOSS = 3
    TOO_MANY_INVALID = 4
    INCOMPLETE = 5
    ALERTS_FIRING = 6
    INTERRUPTED = 130  # the code that shells use


class BronzeError(Exception):
    """An error that the command prints as one message, without a traceback. This class itself means: run it again.

    Attributes:
        exit_code: Exit code of the command.
        problem: What is wrong.
        hint: What to do; empty if the problem says it.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, problem: str, hint: str = ""):
        self.problem, self.hint = problem, hint
        # A hint that starts with a capital is a separate sentence; any other completes the problem's sentence.
        join = " " if hint[:1].isupper() else "; "
        super().__init__(f"{problem}{join}{hint}" if hint else problem)


class ConfigError(BronzeError):
    """Arguments, configuration, tables or checkpoint cannot be used; the same command would fail again."""

    exit_code = ExitCode.CONFIG


class DataLossError(BronzeError):
    """Kafka no longer has records that the command must read.

    Attributes:
        lost: The lost offsets; empty if they are not known.
    """

    exit_code = ExitCode.DATA_LOSS

    def __init__(self, problem: str, hint: str = "", lost: str = ""):
        self.lost = lost
        super().__init__(problem, hint)


class TooManyInvalidError(BronzeError):
    """A batch has more invalid records than allowed. It is committed, and no other batch was started."""

    exit_code = ExitCode.TOO_MANY_INVALID


class AlertsFiringError(BronzeError):
    """An alert is firing, and the run is configured to fail on alerts."""

    exit_code = ExitCode.ALERTS_FIRING


class UnknownTopicError(ConfigError):
    """Kafka has no such topic."""


class NotADeltaTableError(ConfigError):
    """A table's path holds files that are not a Delta table."""


class TransientError(BronzeError):
    """Kafka or the storage did not answer; the same may succeed a moment later."""


class TopicVanishedError(TransientError):
    """Kafka answered a running query that the topic does not exist."""


class AppendConflictError(BronzeError):
    """Other writers committed to the table first on every attempt to commit a batch."""


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
    """A placeholder in messages for a value that may hold a secret."""

    def __repr__(self) -> str:
        return "a value that is not shown, because it may hold a secret"


def show_value(value: object) -> str:
    """Format a value of any type for a message: on one line, with a bounded length."""
    if isinstance(value, dict):  # a mapping in place of a file name may be the file's content
        value = Hidden()
    try:
        text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    except ValueError:  # Python does not format numbers of more than 4,300 digits
        return f"a very long {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def to_flag(name: str) -> str:
    """Return the command-line flag of a parameter."""
    return f"--{name.replace('_', '-')}"


class InvalidOptionError(ConfigError):
    """The value of a parameter cannot be used."""

    def __init__(self, name: str, value: object, expected: str):
        super().__init__(f"{to_flag(name)}: expected {expected}, got {show_value(value)}")
