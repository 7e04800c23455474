"""How the product's commands are run as processes that end by themselves."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from bronze.config import Config
from tests.support.paths import ROOT

# Two Sparks share two cores: the collector of one thread takes less of both than the default one's background threads.
SERIAL_GC = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} -XX:+UseSerialGC"
# A command's Spark lives for seconds, in which to compile well costs more than it saves: a start and a few queries take
# 22 s instead of 40 on a busy machine. Not for the session that all tests share.
SHORT_LIVED = {"SPARK_SUBMIT_OPTS": f"{SERIAL_GC} -XX:TieredStopAtLevel=1"}
ON_ONE_JVM = (sys.executable, "-m", "sandbox.jvm")
WITHOUT_JAVA = {**os.environ, "PATH": "", "JAVA_HOME": "/nonexistent"}


def list_flags(config: Config) -> list[str]:
    """The flags of a configuration, where they are not the defaults."""
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
    """Run a command of the product's environment in the checkout, and keep what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **SHORT_LIVED, "PATH": path, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


def run_bronze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bronze.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=WITHOUT_JAVA, timeout=60)
