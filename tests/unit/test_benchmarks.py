"""The benchmarks that need neither Kafka nor Spark still fit the code that they measure and patch."""

import json
import subprocess
import sys

from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


def run_benchmark(name: str, records: int) -> str:
    command = [sys.executable, str(BENCHMARKS / name), str(records)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_each_feature_can_be_left_out():
    figures = dict(map(json.loads, run_benchmark("features.py", records=20).splitlines()))
    assert "without the raw value" in figures
    assert all(min(samples) > 0 for samples in figures.values())


def test_the_memory_of_a_task_can_be_measured():
    assert float(run_benchmark("memory.py", records=20)) > 0
