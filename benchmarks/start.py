"""Seconds of three short runs: default JVM, archived classes, light compilation, and one shared JVM.

    python benchmarks/start.py [--rounds 3]

Each run starts Spark in a separate process, writes a small partitioned Delta table, reads it, and ends. Each round runs
all methods in turn. The archived classes are those of ``make fast-start``, the light options those of ``sandbox.jvm``.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from ratios import print_ratios

from sandbox.jvm import LIGHT

RUN = """
import tempfile
from bronze.runtime.session import get_session
from sandbox.classes import use_delta
with tempfile.TemporaryDirectory() as folder:
    use_delta(spark := get_session(), folder + "/table")
spark.stop()
"""
THREE_RUNS = ["sh", "-ec", f"for run in 1 2 3; do '{sys.executable}' -c '{RUN}'; done"]
ON_ONE_JVM = [sys.executable, "-m", "sandbox.jvm", *THREE_RUNS]
KEPT = f'-XX:SharedArchiveFile="{Path(sys.prefix, "spark-classes.jsa")}" -Xshare:on'
WAYS = {
    "as Java starts": (THREE_RUNS, ""),
    "light": (THREE_RUNS, LIGHT),
    "kept classes": (THREE_RUNS, KEPT),
    "kept classes, light": (THREE_RUNS, f"{KEPT} {LIGHT}"),
    "on one JVM, light": (ON_ONE_JVM, ""),
    "on one JVM, kept classes, light": (ON_ONE_JVM, KEPT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    seconds = defaultdict(list)
    for _ in range(rounds):
        for name, (command, options) in WAYS.items():
            started = time.monotonic()
            environment = {**os.environ, "SPARK_SUBMIT_OPTS": options}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            seconds[name].append(time.monotonic() - started)
    print_ratios(seconds, "as Java starts")


if __name__ == "__main__":
    main()
