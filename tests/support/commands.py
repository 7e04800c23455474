"""Runs the product's commands as processes that end by themselves."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from bronze.config import Config
from tests.support.paths import ROOT

# Two Sparks share two cores: a single-threaded garbage collector uses less of them than the default one.
SERIAL_GC = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} -XX:+UseSerialGC"
# A command's Spark lives for seconds, so that full compilation costs more than it saves: a start and a few queries take
# 22 s instead of 40 on a busy machine. The session that all tests share does not use this.
SHORT_LIVED = {"SPARK_SUBMIT_OPTS": f"{SERIAL_GC} -XX:TieredStopAtLevel=1"}
ON_ONE_JVM = (sys.executable, "-m", "sandbox.jvm")
WITHOUT_JAVA = {**os.environ, "PATH": "", "JAVA_HOME": "/nonexistent"}


def list_flags(config: Config) -> list[str]:
    """The flags of a configuration that differ from the defaults."""
    flags: list[str] = []
    for field in fields(config):
        value, flag = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if field.name == "fail_on_data_loss":
            flags += [] if value else ["--accept-data-loss"]
        elif value is True:
            flags.append(flag)
        elif value != field.default:
            flags += [flag, str(value)]
    return flags


def run_command(*command: str, timeout: float = 180, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the product's environment in the checkout, and capture its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **SHORT_LIVED, "PATH": path, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


def run_bronze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bronze.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=WITHOUT_JAVA, timeout=60)
