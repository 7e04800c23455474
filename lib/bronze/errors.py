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
