"""Prometheus, promtool and node_exporter of the machine, on free ports."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sandbox.system import HOST, find_free_port
from tests.support.waiting import wait_until


def find_program(name: str) -> str:
    """The path of a program; a test that needs it fails without it, and never passes silently."""
    found = shutil.which(name)
    assert found, f"{name} is missing: apt-get install prometheus prometheus-node-exporter"
    return found


def run_promtool(*arguments: str, given: bytes = b"") -> str:
    """Run promtool; return what it printed, or fail with it."""
    done = subprocess.run([find_program("promtool"), *arguments], input=given, capture_output=True, timeout=300)
    printed = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, printed
    return printed


def check_metrics(text: bytes) -> None:
    """Fail on every remark of ``promtool check metrics``."""
    assert run_promtool("check", "metrics", given=text) == ""


def get(url: str, **headers: str) -> tuple[int, str]:
    """The status and the text of a page."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The newest values of an expression."""
        return self._call("query", query=expression)

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The values of an expression over time."""
        return self._call("query_range", query=expression, start=str(start), end=str(end), step=str(step))

    def _call(self, name: str, **parameters: str) -> list[dict[str, Any]]:
        status, text = get(f"{self.url}/api/v1/{name}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, f"{parameters}: {text}"
        return json.loads(text)["data"]["result"]


@contextmanager
def run_process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


@contextmanager
def run_prometheus(
    folder: Path, targets: Mapping[str, str], rules: Sequence[Path] = (), interval: str = "1s"
) -> Iterator[Prometheus]:
    """A server that scrapes targets, ``host:port`` by job."""
    url, folder = f"http://{HOST}:{find_free_port()}", folder / "prometheus"
    folder.mkdir()
    jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
    settings = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config = {"global": settings, "rule_files": [str(file) for file in rules], "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    flags = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    address = url.removeprefix("http://")
    with run_process(find_program("prometheus"), *flags, f"--web.listen-address={address}") as process:
        wait_until(lambda: process.poll() is not None or _answers(f"{url}/-/ready"), 30)
        assert process.poll() is None, "prometheus does not start"
        yield Prometheus(url)


@contextmanager
def run_node_exporter(folder: Path) -> Iterator[str]:
    """A node_exporter that only reads the files ``.prom`` of a folder; its ``host:port``."""
    address = f"{HOST}:{find_free_port()}"
    flags = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}")
    with run_process(find_program("prometheus-node-exporter"), *flags, f"--web.listen-address={address}"):
        wait_until(lambda: _answers(f"http://{address}/metrics"), 30)
        yield address
