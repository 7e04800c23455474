"""Runs the product's commands as processes that end by themselves."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bronze.config import Config
from tests.support.paths import ROOT

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
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


def run_bronze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bronze.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=WITHOUT_JAVA, timeout=60)


def list_fields(log: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The fields that the JSON log has of each event of a kind."""
    found = [getattr(record, "fields", {}) for record in log.records]
    return [fields for fields in found if fields.get("event") == event]
