"""The commands of docs/operations.md work in the order of the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.kafka import KafkaSandbox
from sandbox.produce import produce
from tests.support.commands import SHORT_LIVED
from tests.support.paths import ROOT

SECTION = (ROOT / "docs" / "operations.md").read_text().partition("\n## Commands\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def shell(kafka: KafkaSandbox, tmp_path_factory: pytest.TempPathFactory):
    """A function that runs shell commands in a separate folder, on a topic that holds sample events."""
    folder, topic = tmp_path_factory.mktemp("operations"), "operations"
    produce(kafka.brokers, topic, 2_000, 0.05)
    definitions = BLOCKS[0].replace("127.0.0.1:9092", kafka.brokers).replace("api-usage-events.v1", topic)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(commands: str) -> subprocess.CompletedProcess[str]:
        script = f"set -e\n{definitions}\n{commands}"
        env = {**os.environ, **SHORT_LIVED, "PATH": path}
        return subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.parametrize("commands", BLOCKS[1:], ids=[block.split()[1] for block in BLOCKS[1:]])
def test_the_commands_of_the_page_work(commands: str, shell):
    done = shell(commands)
    assert done.returncode == 0, done.stderr[-2000:]


def test_after_all_of_them_the_audit_is_complete(shell):
    assert "(1,900 in bronze, 100 in the DLQ" in shell("bronze audit $BROKERS $TOPIC $TABLES $CHECKPOINT").stdout
