"""The jars that no Python package ships, resolved once by the Ivy inside pyspark and cached.

Spark's own ``spark.jars.packages`` resolves them again at every start of a session, and prints a page of text to
standard error, which notebooks would show. Versions derive from the installed packages, so each is pinned only once.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bronze.errors import BronzeError, ConfigError, ExitCode

SCALA = "2.13"
MINIMUM_JAVA = 17
_CONDA_BIN = str(Path(sys.prefix, "bin"))


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
        printed = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        raise _no_java_error(f"no Java at {java!r}" if java else "no Java found") from None
    found = re.search(r'version "(\d+)', printed)
    if found and int(found[1]) < MINIMUM_JAVA:
        raise _no_java_error(f"{java} is Java {found[1]}")
    return str(java)


def _no_java_error(found: str) -> ConfigError:
    return ConfigError(
        f"{found}; Spark needs Java {MINIMUM_JAVA} or newer.",
        hint="Install it (Debian: apt-get install openjdk-17-jre-headless, macOS: brew install openjdk@17) or set "
        "JAVA_HOME to one.",
    )


def resolve_jars(*coordinates: str, beside_spark: bool = False) -> list[Path]:
    """Return the jar files of Maven coordinates and of their run-time dependencies.

    The first call downloads them and caches them below ``$XDG_CACHE_HOME/bronze-ingestion`` (``~/.cache``).

    Args:
        coordinates: ``group:artifact:version``, one or more, resolved together.
        beside_spark: Exclude the artifacts that pyspark ships itself.

    Raises:
        ConfigError: There is no Java to run Ivy with.
        BronzeError: Maven Central could not be reached, or has no such artifact.
    """
    folder = _cache_folder() / "+".join(c.split(":", 1)[1].replace(":", "-") for c in coordinates)
    if not folder.is_dir():
        _retrieve_jars(coordinates, folder)
    jars = sorted(folder.glob("*.jar"))
    shipped = {_artifact_of(jar) for jar in _pyspark_jars().glob("*.jar")} if beside_spark else set()
    return [jar for jar in jars if _artifact_of(jar) not in shipped]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bronze-ingestion", "jars")


def _pyspark_jars() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent / "jars"


def _artifact_of(jar: Path) -> str:
    return re.sub(r"-\d.*", "", jar.stem)


def _retrieve_jars(coordinates: tuple[str, ...], folder: Path) -> None:
    """Download into a temporary folder, then move it into the cache in one step: two processes may run at once."""
    java = find_java()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ivy_file, target = Path(scratch, "ivy.xml"), Path(scratch, "jars")
        ivy_file.write_text(_write_ivy_module(coordinates))
        pattern = f"{target}/[artifact]-[revision](-[classifier]).[ext]"
        command = [java, "-cp", f"{_pyspark_jars()}/*", "org.apache.ivy.Main", "-warn", "-ivy", str(ivy_file)]
        command += ["-confs", "runtime", "-retrieve", pattern, "-types", "jar", "bundle"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0 or not target.is_dir():
            tail = "\n".join(line for line in done.stdout.splitlines() if line.strip(" ."))[-1500:]
            raise BronzeError(f"could not download {', '.join(coordinates)} from Maven; Ivy said:\n{tail}")
        try:
            target.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _write_ivy_module(coordinates: tuple[str, ...]) -> str:
    """An Ivy module that requests only the run-time dependencies (Ivy's default adds test dependencies)."""
    entries = [c.split(":") for c in coordinates]
    dependencies = "".join(
        f'<dependency org="{org}" name="{name}" rev="{revision}" conf="runtime->runtime(*),master(*)"/>'
        for org, name, revision in entries
    )
    return (
        '<ivy-module version="2.0"><info organisation="bronze" module="jars"/>'
        '<configurations><conf name="runtime"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )


def list_executor_packages() -> dict[str, str]:
    """The packages that tasks import, with their installed versions."""
    return {name: version(name) for name in ("arro3-core", "arro3-io", "msgspec", "numpy", "pyarrow")}


def main(arguments: Sequence[str] | None = None) -> int:
    """The actions that make needs: check Java, fetch the jars, print the packages."""
    parser = argparse.ArgumentParser(prog="python -m bronze.runtime.jars", description=__doc__)
    actions = parser.add_mutually_exclusive_group(required=True)
    actions.add_argument("--check", action="store_true", help="check that there is a usable Java")
    actions.add_argument("--fetch", action="store_true", help="download the jars that are not cached yet")
    actions.add_argument("--packages", action="store_true", help="print spark-submit's --packages")
    actions.add_argument(
        "--executor-requirements", action="store_true", help="print the PyPI packages that executors need"
    )
    given = parser.parse_args(arguments)
    try:
        if given.check:
            find_java()
        elif given.packages:
            print(",".join(get_spark_packages()))
        elif given.executor_requirements:
            print("\n".join(f"{name}=={number}" for name, number in list_executor_packages().items()))
        else:
            resolve_jars(*get_spark_packages())
    except BronzeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
