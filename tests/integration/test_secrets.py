"""A secret is only in its file: not in a message, a log, a plan, a checkpoint or a table."""

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bronze.config import IngestConfig
from tests.support.commands import run_command
from tests.support.events import make_events
from tests.support.topic import Topic

SECRET = "c4nary"  # part of each secret
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SASL = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config="
OAUTH = (
    "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n"
    "sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler\n"
    'sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientSecret="x";\n'
)
PEM = "security.protocol=SSL\nssl.keystore.type=PEM\nssl.truststore.type=PEM\n"
REFUSED = {
    "password-with-a-space": f"{SASL}{PLAIN} required username=u password=first {SECRET};",
    "quote-not-closed": f'{SASL}{PLAIN} required username="u" password="{SECRET};',
    "no-semicolon": f'{SASL}{PLAIN} required username="u" password="{SECRET}"',
    "text-after": f'{SASL}{PLAIN} required username="u" password="x"; {SECRET}',
    "flag-after": f'{SASL}{PLAIN} required username="u" password="x"; a {SECRET};',
    "two-modules": f'{SASL}{PLAIN} required password="{SECRET}"; {PLAIN} required password="{SECRET}";',
    "no-flag": f'{SASL}{PLAIN} {SECRET} username="u";',
    "password-alone": f"{SASL}{SECRET}",
    "password-as-module": f"{SASL}{SECRET} required;",
    "password-in-the-module": f"{SASL}a.{SECRET}.B required x=y;",
    "semicolon-within": f"{SASL}{PLAIN} required password=a;{SECRET};",
    "equals-within": f"{SASL}{PLAIN} required password=a={SECRET};",
    "at-within": f"{SASL}{PLAIN} required password=p@{SECRET};",
    "comment-within": f"{SASL}{PLAIN} required password=p//{SECRET};",
    "key-without-value": f"{SASL}{PLAIN} required username=u password= {SECRET}= ;",
    "continued": f"{SASL}{PLAIN} required \\\n username=u \\\n password=first {SECRET};",
    "not-continued": f'{SASL}{PLAIN} required\n username="u"\n {SECRET}="{SECRET}";',
    "bad-escape": f"ssl.key.password={SECRET}\\u00 x",
    "name": SECRET,
    "name-of-a-value": f"{SECRET}=true",
    "url": f"{OAUTH}sasl.oauthbearer.token.endpoint.url=:{SECRET}:",
    "url-with-password": f"{OAUTH}sasl.oauthbearer.token.endpoint.url=x://u:{SECRET}@h/",
    "pem-key": f"{PEM}ssl.keystore.key=-----BEGIN PRIVATE KEY-----{SECRET}\nssl.keystore.certificate.chain={SECRET}",
    "pem-lines": f"{PEM}ssl.keystore.key=-----BEGIN PRIVATE KEY-----\nMIIEv{SECRET}/+x==\n-----END PRIVATE KEY-----",
    "pem-certificate": f"{PEM}ssl.truststore.certificates={SECRET}",
    "keystore": f"security.protocol=SSL\nssl.keystore.location={SECRET}\nssl.keystore.password=/no/such.jks",
    "wrong-property": f"security.protocol={PLAIN} required password={SECRET};",
    "number": f"request.timeout.ms={SECRET}",
    "number-of-consumers": f"fetch.min.bytes={SECRET}",
    "class": f"sasl.login.class={SECRET}",
    "list-of-classes": f"metric.reporters=a.B,{SECRET}",
    "provider": f"config.providers=file\nconfig.providers.file.class={SECRET}",
    "set-by-spark": f"key.deserializer={SECRET}",
    "watched": f"default.api.timeout.ms={SECRET}",
}
GOOD = f"""
client.id=billing
sasl.jaas.config={PLAIN} required username="u" password="{SECRET}";
ssl.key.password={SECRET}
ssl.keystore.key={SECRET}
sasl.oauthbearer.token.endpoint.url=https://u:{SECRET}@127.0.0.1:1/
basic.auth.user.info=u:{SECRET}
"""


class Provider(BaseHTTPRequestHandler):
    """An identity provider that refuses each request and quotes its credentials; the path is the status."""

    def do_POST(self) -> None:
        credentials = base64.b64decode(self.headers.get("Authorization", "").partition(" ")[2]).decode()
        answers = {"/401": {"error": "invalid_client", "error_description": credentials}}
        self.send_response(int(self.path[1:]))
        self.end_headers()
        self.wfile.write(json.dumps(answers.get(self.path, f"Headers:\n{credentials}")).encode())


@pytest.fixture(scope="module")
def refused() -> Iterator[dict[str, str]]:
    """All files that cannot be used, with those of clients that a running provider refuses."""
    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        login = OAUTH.replace('clientSecret="x"', f'clientId="u" clientSecret="{SECRET}"')
        login += "sasl.login.retry.backoff.max.ms=200\nsasl.oauthbearer.token.endpoint.url=http://127.0.0.1:"
        yield REFUSED | {f"provider-{code}": f"{login}{server.server_port}/{code}" for code in (401, 404, 500, 503)}
        server.shutdown()


@dataclass
class Said:
    """The output of the process, and the folder with all files that it wrote."""

    process: subprocess.CompletedProcess[str]
    folder: Path


@pytest.fixture(scope="module")
def said(kafka, refused: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Said:
    from sandbox.topics import create_topic

    folder, secrets = tmp_path_factory.mktemp("lake"), tmp_path_factory.mktemp("secrets")
    create_topic(kafka.brokers, "secrets", 1, {})
    Topic(kafka.brokers, "secrets").produce([*make_events(3), b"broken"])
    (secrets / "refused").mkdir()
    for name, text in refused.items():
        (secrets / "refused" / name).write_text(text)
    (secrets / "good").write_text(GOOD)
    (secrets / "token").write_text(f"{SECRET}-token\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = {name: str(folder / name) for name in ("output_path", "dlq_path", "checkpoint_path")}
    config = IngestConfig(
        kafka_brokers=kafka.brokers, kafka_topic="secrets", available_now=True, startup_timeout=5,
        http_port=port, http_token_file=str(secrets / "token"), **paths,
    )  # fmt: skip
    (folder / "events").mkdir()
    history = "--conf spark.eventLog.enabled=true --conf spark.eventLog.compress=false"
    history = f"{history} --conf spark.eventLog.dir=file:{folder}/events pyspark-shell"
    arguments = [str(secrets / "refused"), json.dumps(asdict(config)), str(secrets / "good")]
    command = [sys.executable, "-m", "tests.support.scripts.refused", *arguments]
    return Said(run_command(*command, timeout=500, PYSPARK_SUBMIT_ARGS=history), folder)


def test_each_file_that_cannot_be_used_is_exit_code_2_unless_the_provider_fails(said: Said, refused: dict[str, str]):
    lines = said.process.stdout.splitlines()
    codes = {**dict.fromkeys(sorted(refused), 2), "provider-503": 1, "good": 4}
    assert [line for line in lines if ": " in line] == [f"{name}: {code}" for name, code in codes.items()]


def test_no_message_log_or_traceback_holds_a_secret(said: Said):
    shown = (said.process.stdout + said.process.stderr).splitlines()
    assert [line[:300] for line in shown if SECRET in line] == []
    assert any("about sasl.jaas.config" in line for line in shown)


@pytest.mark.parametrize("name", ["events", "checkpoint_path", "output_path", "dlq_path"])
def test_no_file_that_is_written_holds_a_secret(said: Said, name: str):
    """The event log is what Spark's UI shows."""
    files = [file for file in (said.folder / name).rglob("*") if file.is_file()]
    assert files
    assert name != "events" or any(b"SparkListenerEnvironmentUpdate" in file.read_bytes() for file in files)
    assert [str(file) for file in files if SECRET.encode() in file.read_bytes()] == []
