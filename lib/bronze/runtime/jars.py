"""The jars that no Python package ships, resolved once by the Ivy inside pyspark and cached.

Spark's own ``spark.jars.packages`` resolves them again at every start of a session, and prints a page of text to
standard error, which notebooks would show. Versions derive from the installed packages, so each is pinned only once.
"""

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from bronze.errors import BronzeError, ConfigError, ExitCode

SCALA = "2.13"
# The version that the tests run with; pyproject.toml pins it.
SPARK = "4.2"
MINIMUM_JAVA = 17
_CONDA_BIN = str(Path(sys.prefix, "bin"))
# Delta's log store for S3, from ConditionalLogStore.java (``make log-store``).
LOG_STORE = Path(__file__).parent / "java" / "bronze-log-store.jar"
LOG_STORE_CLASS = "bronze.ConditionalLogStore"
_OTHER_CACHE = "set XDG_CACHE_HOME to a folder that this user can write to"


def check_spark() -> None:
    """Refuse another version of Spark than that of the tests, such as that of the distribution of spark-submit.

    Raises:
        ConfigError: The driver's Python imports another version.
    """
    import pyspark

    found, folder = pyspark.__version__, Path(pyspark.__file__).parent
    if not found.startswith(f"{SPARK}."):
        raise ConfigError(
            f"the driver's Spark is {found}, from {folder}; Spark {SPARK} is needed.",
            hint=f"Use the spark-submit of Spark {SPARK}, or install pyspark {SPARK} and unset PYTHONPATH",
        )


def get_spark_packages() -> list[str]:
    """Maven coordinates of the jars that Spark needs beyond pyspark: the Kafka source and Delta Lake.

    Raises:
        ConfigError: The driver's Python lacks pyspark or delta-spark, which determine the versions.
    """
    spark = _read_version("pyspark")
    spark_minor = ".".join(spark.split(".")[:2])
    return [
        f"org.apache.spark:spark-sql-kafka-0-10_{SCALA}:{spark}",
        f"io.delta:delta-spark_{spark_minor}_{SCALA}:{_read_version('delta-spark')}",
    ]


# hadoop-aws depends on the whole AWS SDK (690 MB). These modules (14 MB with all they need) are enough.
S3_EXCLUDED = "software.amazon.awssdk:bundle"
_AWS_SDK = "2.35.4"  # the version that hadoop-aws 3.5.0 was built with


def get_s3_packages(hadoop: str = "") -> list[str]:
    """Maven coordinates of the jars that Spark needs for paths in S3, to be resolved without S3_EXCLUDED.

    Args:
        hadoop: Version of Hadoop; by default that of pyspark's jars.
    """
    parts = (f"software.amazon.awssdk:{name}:{_AWS_SDK}" for name in ("s3", "s3-transfer-manager", "sts"))
    return [f"org.apache.hadoop:hadoop-aws:{hadoop or _read_hadoop_version()}", *parts]


def get_azure_packages(hadoop: str = "") -> list[str]:
    """Maven coordinates of the jars that Spark needs for paths in Azure; the version is that of Hadoop."""
    return [f"org.apache.hadoop:hadoop-azure:{hadoop or _read_hadoop_version()}"]


def _read_hadoop_version() -> str:
    (version,) = (jar.stem.rpartition("-")[2] for jar in _pyspark_jars().glob("hadoop-client-api-*.jar"))
    return version


def _read_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise ConfigError(
            f"the driver's Python has no package {package!r}",
            hint="install this project into it (pip install .), even if spark-submit comes from a Spark "
            "distribution, and set PYSPARK_DRIVER_PYTHON to it",
        ) from None


def missing_jars_error() -> ConfigError:
    """For a session without the Kafka source or without Delta Lake."""
    return ConfigError(
        "this Spark session lacks the Kafka source or Delta Lake",
        hint="submit with --packages " + ",".join(get_spark_packages()),
    )


def find_java() -> str:
    """Path of ``java``: from JAVA_HOME, otherwise from PATH, otherwise from the conda environment of this Python.

    Raises:
        ConfigError: There is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java") or shutil.which("java", path=_CONDA_BIN)
    try:
        done = subprocess.run([str(java), "-version"], capture_output=True, text=True, errors="replace")
    except OSError as error:
        place = f"JAVA_HOME is {home}, and {java} cannot be run ({error.strerror})" if home else "no Java found"
        raise _no_java_error(place) from None
    printed = done.stderr
    if done.returncode:
        raise _broken_java_error(str(java), read_java_error(f"{done.stderr}\n{done.stdout}"))
    found = re.search(r'version "(\d+)', printed)
    if found and int(found[1]) < MINIMUM_JAVA:
        raise _no_java_error(f"{java} is Java {found[1]}")
    return str(java)


def _no_java_error(found: str) -> ConfigError:
    unset = " or unset JAVA_HOME," if os.environ.get("JAVA_HOME") else ""
    return ConfigError(
        f"{found}; Spark needs Java {MINIMUM_JAVA} or newer.",
        hint=f"Set JAVA_HOME to one,{unset} or install it (Debian: apt-get install openjdk-17-jre-headless, macOS: "
        "brew install openjdk@17).",
    )


# Environment variables with options of a JVM, and of the JVM that Spark's scripts start.
JAVA_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
# Lines of a JVM that does not start, other than the one with the cause.
_NOISE = re.compile(
    r"(?:NOTE: )?Picked up |Error: (?:Could not create the|A fatal exception)|Error occurred during init|\W*$|.*warning"
)


def read_java_error(output: str) -> str:
    """The line of Java's output that has the cause of an error."""
    lines = [line.strip("# \t") for line in output.splitlines()]
    return next((line.rstrip(".") for line in lines if line and not _NOISE.match(line)), "it ended without a message")


def is_short_of_memory(said: str) -> bool:
    """Whether Java says that it does not get the memory that it asks for."""
    return re.search(r"memory|[Cc]ould not (?:reserve|allocate)|unable to create native thread", said) is not None


def little_memory_error(said: str) -> ConfigError:
    """Build the error for a JVM that gets too little memory to start."""
    return ConfigError(
        f"Java gets too little memory to start: {said}",
        hint="allow this process more (ulimit -v, or the limit of its container): a local session needs 2 GB for the "
        "heap of its JVM, and 2 GB beyond it",
    )


def _broken_java_error(java: str, said: str) -> ConfigError:
    if is_short_of_memory(said):
        return little_memory_error(said)
    names = [name for name in JAVA_OPTIONS if os.environ.get(name)]
    return ConfigError(
        f"{java} does not start: {said}",
        hint=f"correct {' and '.join(names)}" if names else "install another Java, or set JAVA_HOME to one",
    )


def resolve_jars(*coordinates: str, beside_spark: bool = False) -> list[Path]:
    """Return the jar files of Maven coordinates and of their run-time dependencies.

    The first call downloads them and caches them below ``$XDG_CACHE_HOME/bronze-ingestion`` (``~/.cache``).

    Args:
        coordinates: ``group:artifact:version``, one or more, resolved together.
        beside_spark: Exclude the artifacts that pyspark ships itself.

    Raises:
        ConfigError: There is no Java to run Ivy with, or no folder for the jars.
        BronzeError: Maven Central could not be reached, or has no such artifact.
    """
    folder = _cache_folder() / "+".join(c.split(":", 1)[1].replace(":", "-") for c in coordinates)
    if not folder.is_dir():
        try:
            _retrieve_jars(coordinates, folder)
        except OSError as error:
            raise ConfigError(f"cannot store the jars in {folder.parent}: {error.strerror}", _OTHER_CACHE) from None
    jars = sorted(folder.glob("*.jar"))
    shipped = {_artifact_of(jar) for jar in _pyspark_jars().glob("*.jar")} if beside_spark else set()
    return [jar for jar in jars if _artifact_of(jar) not in shipped]


def list_jars(stores: Collection[str] = ()) -> list[Path]:
    """The jars of a session that pyspark lacks.

    Args:
        stores: The object stores that the session can use: ``s3``, ``azure``.

    Raises:
        ConfigError: There is no Java to run Ivy with.
        BronzeError: Maven Central could not be reached.
    """
    jars = resolve_jars(*get_spark_packages(), beside_spark=True)
    if "s3" in stores:
        jars += [*resolve_jars(*get_s3_packages(), beside_spark=True), LOG_STORE]
    if "azure" in stores:
        jars += resolve_jars(*get_azure_packages(), beside_spark=True)
    return jars


def _cache_folder() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bronze-ingestion", "jars")
    except RuntimeError:
        raise ConfigError(
            f"there is no folder for the jars, because HOME is not set and the user id {os.getuid()} has no home",
            _OTHER_CACHE,
        ) from None


def _pyspark_jars() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent / "jars"


def _artifact_of(jar: Path) -> str:
    return re.sub(r"-\d.*", "", jar.stem)


def _retrieve_jars(coordinates: tuple[str, ...], folder: Path) -> None:
    """Download into a temporary folder, then move it into the cache in one step.

    Ivy's own cache (``~/.ivy2``) is shared, and two downloads at once damage each other there: the second one waits.
    """
    java = find_java()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        ivy_file, target = Path(scratch, "ivy.xml"), Path(scratch, "jars")
        ivy_file.write_text(_write_ivy_module(coordinates))
        pattern = f"{target}/[artifact]-[revision](-[classifier]).[ext]"
        command = [java, *list_proxy_options(os.environ), "-cp", f"{_pyspark_jars()}/*", "org.apache.ivy.Main"]
        command += ["-warn", "-ivy", str(ivy_file), "-confs", "runtime"]
        command += ["-retrieve", pattern, "-types", "jar", "bundle"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0 or not target.is_dir():
            tail = "\n".join(line for line in done.stdout.splitlines() if line.strip(" ."))[-1500:]
            proxy = "through the proxy of HTTPS_PROXY" if list_proxy_options(os.environ) else "without a proxy"
            raise BronzeError(
                f"could not download {', '.join(coordinates)} from Maven, {proxy} (set HTTPS_PROXY to use one); Ivy "
                f"said:\n{tail}"
            )
        target.rename(folder)


def list_proxy_options(environment: Mapping[str, str]) -> list[str]:
    """The options with which Java uses the proxy of the environment, as pip does; Java itself ignores these variables.

    Args:
        environment: The environment variables.
    """
    options = []
    for scheme in ("https", "http"):
        names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
        text = next(filter(None, map(environment.get, names)), "")
        proxy = urlsplit(text if "//" in text else f"//{text}")
        if text and proxy.hostname:
            port = proxy.port or (443 if proxy.scheme == "https" else 80)
            options += [f"-D{scheme}.proxyHost={proxy.hostname}", f"-D{scheme}.proxyPort={port}"]
    excluded = environment.get("no_proxy") or environment.get("NO_PROXY", "")
    hosts = [
        f"*{host}" if host.startswith(".") else host for host in filter(None, excluded.replace(" ", "").split(","))
    ]
    return [*options, f"-Dhttp.nonProxyHosts={'|'.join(hosts)}"] if options and hosts else options


def _write_ivy_module(coordinates: tuple[str, ...]) -> str:
    """An Ivy module that requests only the run-time dependencies (Ivy's default adds test dependencies)."""
    entries = [c.split(":") for c in coordinates]
    dependencies = "".join(
        f'<dependency org="{org}" name="{name}" rev="{revision}" conf="runtime->runtime(*),master(*)"/>'
        for org, name, revision in entries
    )
    organisation, module = S3_EXCLUDED.split(":")
    dependencies += f'<exclude org="{organisation}" module="{module}"/>'
    return (
        '<ivy-module version="2.0"><info organisation="bronze" module="jars"/>'
        '<configurations><conf name="runtime"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )


def list_executor_packages() -> dict[str, str]:
    """The packages that tasks import, with their installed versions."""
    return {name: version(name) for name in ("arro3-core", "arro3-io", "msgspec", "numpy", "obstore", "pyarrow")}


def main(arguments: Sequence[str] | None = None) -> int:
    """The actions that make needs: check Java, fetch the jars, print the packages."""
    parser = argparse.ArgumentParser(prog="python -m bronze.runtime.jars", description=__doc__)
    actions = parser.add_mutually_exclusive_group(required=True)
    actions.add_argument("--check", action="store_true", help="check that there is a usable Java")
    actions.add_argument("--fetch", action="store_true", help="download the jars that are not cached yet")
    actions.add_argument("--packages", action="store_true", help="print spark-submit's --packages")
    actions.add_argument("--copy", metavar="FOLDER", help="copy the jars that pyspark lacks, for S3 too, to a folder")
    parser.add_argument("--s3", action="store_true", help="with --packages or --fetch: for paths in S3 too")
    actions.add_argument(
        "--executor-requirements", action="store_true", help="print the PyPI packages that executors need"
    )
    given = parser.parse_args(arguments)
    try:
        if given.check:
            find_java()
        elif given.packages:
            print(",".join([*get_spark_packages(), *(get_s3_packages() if given.s3 else [])]))
        elif given.copy:
            Path(given.copy).mkdir(parents=True, exist_ok=True)
            for jar in list_jars(["s3"]):
                shutil.copy(jar, given.copy)
        elif given.executor_requirements:
            print("\n".join(f"{name}=={number}" for name, number in list_executor_packages().items()))
        else:
            resolve_jars(*get_spark_packages())
            if given.s3:
                resolve_jars(*get_s3_packages())
    except BronzeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
