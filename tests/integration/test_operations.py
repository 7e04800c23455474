"""The commands of docs/operations.md work in the order of the page."""

import re
import shlex
import subprocess
from string import Template

import pytest
from pyspark.sql import SparkSession

from bronze.cli import main
from sandbox.kafka import KafkaSandbox
from sandbox.produce import produce
from tests.support.pages import read_page, read_section

BLOCKS = re.findall(r"```sh\n(.*?)```", read_section(read_page("docs/operations.md"), "## Commands"), re.DOTALL)


@pytest.fixture(scope="module")
def run(kafka: KafkaSandbox, tmp_path_factory: pytest.TempPathFactory, spark: SparkSession):
    """A function that runs a line of the page on a topic with sample events, with tables in a separate folder."""
    data, topic = f"{tmp_path_factory.mktemp('operations')}/", "operations"
    produce(kafka.brokers, topic, 200, 0.05)
    ours = {"127.0.0.1:9092": kafka.brokers, "api-usage-events.v1": topic, "data/": data}

    def translate(text: str) -> str:
        for shown, used in ours.items():
            text = text.replace(shown, used)
        return text

    variables = dict(shlex.split(line)[0].split("=", 1) for line in translate(BLOCKS[0]).splitlines())

    def run_line(line: str) -> int:
        words = shlex.split(Template(translate(line)).substitute(variables))
        return main(words[1:]) if words[0] == "bronze" else subprocess.call(words)

    return run_line


@pytest.mark.parametrize("commands", BLOCKS[1:], ids=[block.split()[1] for block in BLOCKS[1:]])
def test_the_commands_of_the_page_work(commands: str, run):
    assert [line for line in commands.splitlines() if run(line) != 0] == []


def test_after_all_of_them_the_audit_is_complete(run, capsys: pytest.CaptureFixture[str]):
    run("bronze audit $BROKERS $TOPIC $TABLES $CHECKPOINT")
    assert "(190 in bronze, 10 in the DLQ" in capsys.readouterr().out
