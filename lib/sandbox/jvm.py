"""``python -m sandbox.jvm COMMAND``: run a command whose short Spark sessions, one after another, share a warm JVM.

A short Spark run spends most of its time on starting the JVM, on loading classes and on cold code. The command's
processes find the JVM through the environment variables that spark-submit uses to pass its own. Each process creates a
Spark context and must stop it before the next process starts. ``bronze`` commands do not stop theirs, so such a command
can only be the last one. The JVM resolves relative paths against the folder where it was started. Figures:
benchmarks/README.md.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from pyspark import SparkConf
from pyspark.java_gateway import launch_gateway

from bronze.errors import BronzeError
from bronze.runtime.session import has_jvm, local_settings

# In a JVM that lives for a minute, full compilation costs more than it saves. Light compilation has a code cache of
# 48 MB by default; four notebooks fill it, and then the JVM stops compiling.
LIGHT = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; 128 plus the signal's number if a signal ended it."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.jvm", description="Run a command on one warm JVM.")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command and its arguments")
    command = parser.parse_args(arguments).command
    if not command or not shutil.which(command[0]):
        parser.error(f"no such command: {command[0]}" if command else "no command is given")
    try:
        code = run_on_one_jvm(command)
    except BronzeError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return error.exit_code
    return 128 - code if code < 0 else code


def run_on_one_jvm(command: Sequence[str]) -> int:
    """Start a JVM with the settings of a local session, run the command, end the JVM; return ``subprocess``'s code.

    Interrupts and SIGTERM go to the command, which may need the JVM until its batch is committed.

    Raises:
        ConfigError: There is no usable Java.
        BronzeError: The jars are not cached and could not be downloaded.
    """
    if has_jvm():
        return subprocess.call(command)
    os.environ["SPARK_SUBMIT_OPTS"] = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} {LIGHT}"
    gateway = launch_gateway(SparkConf(loadDefaults=False).setAll(list(local_settings().items())))
    address = gateway.java_parameters
    handed = {"PYSPARK_GATEWAY_PORT": str(address.port), "PYSPARK_GATEWAY_SECRET": address.auth_token}
    signal.signal(signal.SIGINT, lambda *_: None)  # a terminal also sends it to the command
    try:
        with subprocess.Popen(command, env={**os.environ, **handed}) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            return process.wait()
    finally:
        gateway.proc.stdin.close()  # this ends the JVM
        gateway.proc.wait()


if __name__ == "__main__":
    sys.exit(main())
