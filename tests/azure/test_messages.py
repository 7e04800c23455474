"""What is wrong with an account or its settings is told within seconds, with the cure and without the key."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bronze.config import PATHS
from tests.support.azurite import ACCOUNT, ACCOUNT_HOST, KEY, Azurite
from tests.support.events import make_events
from tests.support.ingestion import Ingestion
from tests.support.kills import LONG
from tests.support.lake import Lake
from tests.support.topic import Topic
from tests.support.waiting import when

pytestmark = pytest.mark.soak

OTHER = KEY.replace("Eby8", "Eby9")
LOG = "spark.eventLog.enabled true\nspark.eventLog.compress false\n"
NEXT = "spark.hadoop.fs.azure.always"
PLACES = [
    ("bronze", "there is no 'missing'"),
    (ACCOUNT, "cannot be read from Azure"),
    (f"@{ACCOUNT_HOST}", "a path with container and account"),
]
# A text of the settings, its replacement, and the message.
SETTINGS = {
    "another key": (KEY, OTHER, "Azure refuses the credentials for abfs://bronze@"),
    "no key": (f"fs.azure.account.key.{ACCOUNT_HOST}", "any", "there is no usable account key"),
    "a key in quotes": (KEY, f"'{OTHER}'", "there is no usable account key"),
    "an unknown login": (
        NEXT,
        f"spark.hadoop.fs.azure.account.auth.type.{ACCOUNT_HOST} Secret\n{NEXT}",
        "cannot be read from Azure",
    ),
    "an event log that shows it": (NEXT, LOG + NEXT, "event log shows"),
}


@pytest.fixture
def end(start: Callable[..., Ingestion], azurite: Azurite, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run an ingestion with changed settings; return its exit code and its last line, which has no key."""

    def run(lake: Lake, old: str = "", new: str = "") -> tuple[int, str]:
        logs = f"spark.eventLog.dir {tmp_path}\n"
        (tmp_path / "spark-defaults.conf").write_text(azurite.settings.replace(old, new) + logs)
        ingestion, started = start(lake.config, SPARK_CONF_DIR=str(tmp_path)), time.monotonic()
        code, log = ingestion.wait(LONG), ingestion.log
        assert time.monotonic() - started < 30
        assert KEY not in log and OTHER not in log
        return code, log.rstrip().splitlines()[-1]

    return run


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_wrong_setting_ends_with_exit_code_2(lake: Lake, end: Callable[..., tuple[int, str]], kind: str):
    old, new, expected = SETTINGS[kind]
    code, message = end(lake, old, new)
    assert code == 2
    assert expected in message


@pytest.mark.parametrize(("name", "expected"), PLACES)
def test_a_place_that_does_not_exist_ends_with_exit_code_2(
    lake: Lake, end: Callable[..., tuple[int, str]], name: str, expected: str
):
    paths = {each: getattr(lake.config, each).replace(name, "missing", 1) for each in PATHS}
    key = f"key.{ACCOUNT}".replace(name, "missing")
    code, message = end(replace(lake, config=replace(lake.config, **paths)), f"key.{ACCOUNT}", key)
    assert code == 2
    assert expected in message


@pytest.mark.parametrize("is_once", [True, False])
def test_the_key_is_in_no_event_log_that_is_redacted(
    topic: Topic, lake: Lake, end: Callable[..., tuple[int, str]], tmp_path: Path, is_once: bool
):
    topic.produce(make_events(5))
    lake = replace(lake, config=replace(lake.config, available_now=is_once, stop_file=str(tmp_path / "stop")))
    when(partial(lake.has_rows, 5), (tmp_path / "stop").touch)
    redaction = "spark.redaction.regex (?i)secret|password|token|access[.]?key|account[.]key\n"
    code, _ = end(lake, NEXT, redaction + LOG + NEXT)
    assert code == 0
    logs = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and "local-" in str(file)]
    assert any(ACCOUNT_HOST.encode() in log for log in logs)
    assert all(KEY.encode() not in log for log in logs)
