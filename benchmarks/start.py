"""Seconds that a short run takes: as Java starts, with the classes that make setup keeps, and with light compilation.

    python benchmarks/start.py [--rounds 3]

Each starts Spark in a process of its own, writes a small partitioned Delta table, reads it, and ends; in turn, in
rounds. The classes are those of ``make setup``.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from ratios import print_ratios

RUN = """
import tempfile
from bronze.session import get_session
from sandbox.classes import use_delta
with tempfile.TemporaryDirectory() as folder:
    use_delta(get_session(), folder + "/table")
"""
KEPT = f'-XX:SharedArchiveFile="{Path(sys.prefix, "spark-classes.jsa")}" -Xshare:on'
LIGHT = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
WAYS = {"as Java starts": "", "light": LIGHT, "kept classes": KEPT, "kept classes, light": f"{KEPT} {LIGHT}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    seconds = defaultdict(list)
    for _ in range(rounds):
        for name, options in WAYS.items():
            started = time.monotonic()
            command, environment = [sys.executable, "-c", RUN], {**os.environ, "SPARK_SUBMIT_OPTS": options}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            seconds[name].append(time.monotonic() - started)
    print_ratios(seconds, "as Java starts")


if __name__ == "__main__":
    main()
