"""Machines that are set up in unusual ways: other environment variables, users, locales, limits and proxies."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bronze.errors import BronzeError
from bronze.runtime.jars import resolve_jars
from tests.support.audit import assert_complete
from tests.support.commands import list_flags, run_command
from tests.support.events import make_events
from tests.support.lake import Lake, change_path
from tests.support.topic import Topic

BRONZE = (sys.executable, "-m", "bronze.cli")
# It opens a session, and then says that there is no table.
SHORT = (*BRONZE, "maintain", "--output-path", "/nonexistent/bronze")
WITHOUT_NAME = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
STOPPED = """
from bronze import IngestConfig, ingest, get_session
from bronze.notebook.ingestion import read_rows
from bronze.runtime.frames import collect_frame
spark = get_session()
cached = spark.range(3)
spark.stop()
config = IngestConfig(kafka_brokers="127.0.0.1:1", output_path="/x/b", checkpoint_path="/x/c")
for cell in (lambda: ingest(config, spark), lambda: read_rows(spark, config), lambda: collect_frame(cached)):
    try:
        cell()
    except Exception as error:
        print(type(error).__name__, error.exit_code, error)
"""


def needs(*command: str) -> pytest.MarkDecorator:
    """Skip where the operating system does not allow a command."""
    is_allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return pytest.mark.skipif(not is_allowed, reason=f"{' '.join(command)} is not allowed here")


def read_error(*command: str, **environment: str) -> str:
    """The message of a command that ends with exit code 2."""
    done = run_command(*command, **environment)
    assert done.returncode == 2, done.stderr
    shown = (done.stdout + done.stderr).splitlines()  # spark-submit prints both on its standard output
    (message,) = [line for line in shown if line.startswith("bronze: ")]
    assert "Traceback" not in done.stderr
    return message


def test_another_spark_an_ascii_locale_and_a_reader_that_leaves(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(20))
    lake = change_path(lake, "output_path", tmp_path / "brønze ñ")
    command = [*BRONZE, "ingest", *list_flags(lake.config)]
    variables = {"SPARK_HOME": "/opt/gone", "SPARK_REMOTE": "sc://x", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = run_command("bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *command, **variables)
    assert done.returncode == 0, done.stderr
    assert "a local session uses the installed pyspark: SPARK_HOME=/opt/gone, SPARK_REMOTE" in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert_complete(lake, 20)


def test_a_jvm_of_an_ascii_locale_refuses_a_path_with_other_letters(tmp_path: Path):
    paths = ["--output-path", f"{tmp_path}/brønze", "--checkpoint-path", f"{tmp_path}/checkpoint"]
    submit = ["spark-submit", "lib/bronze_ingestion.py", "--kafka-brokers", "127.0.0.1:1", *paths]
    message = read_error(*submit, LC_ALL="C", PYSPARK_PYTHON="python")
    assert message.endswith(f"run with LC_ALL=C.UTF-8 set), got '{tmp_path}/br??nze'")
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_java_refuses_is_named():
    message = read_error(*SHORT, JAVA_TOOL_OPTIONS="-javaagent:/gone.jar")
    assert "does not start: Error opening zip file or JAR manifest missing : /gone.jar" in message
    assert message.endswith("correct JAVA_TOOL_OPTIONS")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("JAVA_HOME", "/gone", "/gone/bin/java cannot be run (No such file or directory)"),
        ("JDK_JAVA_OPTIONS", "-XX:NoSuch", "Unrecognized VM option 'NoSuch'; correct JDK_JAVA_OPTIONS"),
        ("_JAVA_OPTIONS", "-XX:NoSuch", "Unrecognized VM option 'NoSuch'; correct _JAVA_OPTIONS"),
        ("SPARK_SUBMIT_OPTS", "-Xmx9g_", "Invalid maximum heap size: -Xmx9g_; check SPARK_SUBMIT_OPTS"),
        ("SPARK_SUBMIT_OPTS", "'-Da=b", "No closing quotation in SPARK_SUBMIT_OPTS"),
        ("SPARK_LOCAL_DIRS", "/dev/null/x", "its JVM ended while it started; the lines above"),
    ],
)
def test_a_variable_that_keeps_java_from_starting_is_named(variable: str, value: str, message: str):
    shown = read_error(*SHORT, **{variable: value})
    assert message in shown and variable in shown


def test_a_locale_that_is_not_installed_is_replaced():
    assert "there is no table at file:/nonexistent/brønze" in read_error(
        *SHORT[:-1], "/nonexistent/brønze", LC_ALL="xx"
    )


def test_a_setting_that_spark_refuses_is_named_with_its_variable(tmp_path: Path):
    (tmp_path / "spark-defaults.conf").write_text("spark.eventLog.enabled true\nspark.eventLog.dir file:/no/such\n")
    message = read_error(*SHORT, SPARK_CONF_DIR=str(tmp_path))
    assert "Spark cannot start: FileNotFoundException: File file:/no/such does not exist" in message
    assert message.endswith(f"correct spark.eventLog.dir in {tmp_path}/spark-defaults.conf")


def test_arguments_for_spark_that_it_does_not_know_are_named():
    message = read_error(*SHORT, PYSPARK_SUBMIT_ARGS="--no-such-option")
    assert re.search("check (SPARK_SUBMIT_OPTS, )?PYSPARK_SUBMIT_ARGS in the environment$", message)


def test_too_little_memory_is_called_so(tmp_path: Path):
    limit = 'ulimit -v 4000000; cd "$0"; exec "$@"'  # Java leaves a report in the working directory
    message = read_error("bash", "-c", limit, str(tmp_path), *SHORT)
    assert message.startswith("bronze: Java gets too little memory to start")


@needs(*WITHOUT_NAME)
def test_a_user_id_without_a_name_is_named_with_the_cure():
    message = read_error(*WITHOUT_NAME, *SHORT)
    assert "the user id 12345 has no name on this machine" in message
    assert "/etc/passwd" in message


@needs(*WITHOUT_NAME)
def test_a_user_id_without_a_home_is_told_where_jars_can_go():
    message = read_error(*WITHOUT_NAME, "env", "-u", "HOME", "-u", "XDG_CACHE_HOME", *SHORT)
    assert "set XDG_CACHE_HOME to a folder" in message


@pytest.mark.soak
@needs("unshare", "--mount")
def test_a_folder_for_libraries_that_is_mounted_noexec_is_named(topic: Topic, lake: Lake, tmp_path: Path):
    topic.produce(make_events(5), **{"compression.type": "zstd"})
    mount = 'mount -t tmpfs -o noexec tmpfs "$0" && exec "$@"'
    ingest = [*BRONZE, "ingest", *list_flags(lake.config)]
    (tmp_path / "noexec").mkdir()
    options = {"JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={tmp_path}/noexec"}
    message = read_error("unshare", "--mount", "sh", "-c", mount, f"{tmp_path}/noexec", *ingest, **options)
    assert f"Java cannot load the library that decompresses records from {tmp_path}/noexec" in message
    lake.ingest()
    assert_complete(lake, 5)


def test_a_session_that_was_stopped_is_told_which_cell_to_run():
    done = run_command(sys.executable, "-c", STOPPED)
    told = "BronzeError 1 this Spark session was stopped; run the same command again, or in a notebook the cell with"
    assert [line.startswith(told) for line in done.stdout.splitlines()] == [True] * 3


@contextmanager
def open_proxy(asked: list[str]) -> Iterator[str]:
    """A proxy that notes the first line of each request, and refuses it."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096).decode().splitlines()[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()


def test_jars_are_downloaded_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[str] = []
    with open_proxy(asked) as address:
        monkeypatch.setenv("HTTPS_PROXY", address)
        with pytest.raises(BronzeError, match="from Maven, through the proxy of HTTPS_PROXY"):
            resolve_jars("org.example:no-such-artifact:1.0")
    assert "CONNECT repo1.maven.org:443 HTTP/1.1" in asked
