"""``python -m sandbox.jvm COMMAND``: run a command whose Sparks, one after the other, share one warm JVM.

A Spark of its own spends most of a short run on the start of its JVM, cold code and classes. The command's processes
find the JVM by the environment variables by which spark-submit hands its own down; each makes and stops a Spark
context in it. Figures: benchmarks/README.md.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from pyspark import SparkConf
from pyspark.java_gateway import launch_gateway

from bronze.session import describe_local


def main(command: Sequence[str]) -> int:
    """Start the JVM with the settings of a local session, run the command, end the JVM; the command's exit code.

    Raises:
        JavaNotFound: There is no usable Java.
        JarsNotResolved: The jars are not cached and could not be downloaded.
    """
    gateway = launch_gateway(SparkConf(loadDefaults=False).setAll(list(describe_local().items())))
    os.environ["PYSPARK_GATEWAY_PORT"] = str(gateway.java_parameters.port)
    os.environ["PYSPARK_GATEWAY_SECRET"] = gateway.java_parameters.auth_token
    # An interrupt is the command's, which may need the JVM until its batch is committed.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.call(command)
    finally:
        gateway.proc.stdin.close()  # the JVM ends with that
        gateway.proc.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
