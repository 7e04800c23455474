"""``python -m sandbox.jvm COMMAND``: run a command whose short Sparks, one after the other, share one warm JVM.

A Spark of its own spends most of a short run on the start of its JVM, cold code and classes. The command's processes
find the JVM by the environment variables by which spark-submit hands its own down. Each makes a Spark context in it and
must stop it before the next: no ``bronze`` command does, so one can only be the last. The JVM resolves relative paths
where it was started, in the checkout. Figures: benchmarks/README.md.
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

# In the minute that it lives, to compile well costs more than it saves. Light compilation keeps 48 MB of code by
# default, which four notebooks fill, and then compiles no more.
LIGHT = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code, 128 and the signal's number where a signal ended it, 2 where there is none."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.jvm", description="Run a command on one warm JVM.")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command and its arguments")
    command = parser.parse_args(arguments).command
    if not command or not shutil.which(command[0]):
        parser.error(f"no such command: {command[0]}" if command else "a command is needed")
    try:
        code = run_on_one_jvm(command)
    except BronzeError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return error.exit_code
    return 128 - code if code < 0 else code


def run_on_one_jvm(command: Sequence[str]) -> int:
    """Start a JVM with the settings of a local session, run the command, end the JVM; ``subprocess``'s return code.

    An interrupt and SIGTERM are the command's, which may need the JVM until its batch is committed.

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
    signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to the command as well
    try:
        with subprocess.Popen(command, env={**os.environ, **handed}) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            return process.wait()
    finally:
        gateway.proc.stdin.close()  # the JVM ends with that
        gateway.proc.wait()


if __name__ == "__main__":
    sys.exit(main())
