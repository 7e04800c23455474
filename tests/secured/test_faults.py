"""Each fault of the settings is exit code 2 within 3 s, with the cause and the property to correct."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.certificates import PASSWORD, Authority
from sandbox.secured import SecuredKafka
from tests.support.lake import Lake, is_untouched
from tests.support.secured import USERS, log_in, present, run_ingest, trust
from tests.support.topic import Topic

LONGEST = 3  # seconds
OAUTH = log_in("OAUTHBEARER", protocol="SASL_PLAINTEXT")
# Listener, properties beside those that trust the broker (None removes one), and parts of the message.
FAULTS = {
    "wrong password": (
        "SASL",
        log_in("SCRAM-SHA-512", password="wrong"),
        ["user name or the password, and does not say which", "sasl.mechanism (SCRAM-SHA-512) if"],
    ),
    "wrong user": (
        "SASL",
        log_in("SCRAM-SHA-512", "nobody", "wrong"),
        ["user name or the password, and does not say which", "sasl.mechanism (SCRAM-SHA-512) if"],
    ),
    "wrong password, PLAIN": (
        "SASL",
        log_in("PLAIN", password="wrong"),
        ["user name or the password", "sasl.mechanism (PLAIN)"],
    ),
    "mechanism not offered": (
        "CLEAR",
        log_in("SCRAM-SHA-512", protocol="SASL_PLAINTEXT"),
        ["does not offer the SASL mechanism SCRAM-SHA-512 on this port, only PLAIN", "sasl.mechanism"],
    ),
    "login module of another mechanism": (
        "CLEAR",
        log_in("PLAIN", protocol="SASL_PLAINTEXT") | {"sasl.mechanism": None},
        [
            "sasl.jaas.config (PlainLoginModule) does not fit sasl.mechanism (not set, so it is GSSAPI)",
            "PlainLoginModule is for PLAIN",
        ],
    ),
    "login module of PLAIN for SCRAM": (
        "SASL",
        log_in("PLAIN") | {"sasl.mechanism": "SCRAM-SHA-512"},
        [
            "(PlainLoginModule) does not fit sasl.mechanism (SCRAM-SHA-512)",
            "ScramLoginModule for SCRAM-SHA-256 and SCRAM-SHA-512",
        ],
    ),
    "no login": ("SASL", {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}, ["sasl.jaas.config is not set"]),
    "token without its scope": (
        "OAUTH",
        OAUTH | {"sasl.jaas.config": OAUTH["sasl.jaas.config"].replace("read", "write")},
        ["does not accept the OAuth token", '"insufficient_scope", "scope":"[read]"', "check the token's scope"],
    ),
    "no token": (
        "OAUTH",
        OAUTH | {"sasl.jaas.config": OAUTH["sasl.jaas.config"].replace("_sub", "_other")},
        [
            "no OAuth token (Kafka's client does not say why)",
            "token.endpoint.url, the client id and secret in sasl.jaas.config",
        ],
    ),
    "no truststore": (
        "TLS",
        {"ssl.truststore.location": None, "ssl.truststore.password": None, "ssl.truststore.type": None},
        ["a CA that this client does not trust, and no truststore is set", "set ssl.truststore.location"],
    ),
    "expired certificate": ("EXPIRED", {}, ["the broker's certificate expired on ", "on the broker"]),
    "host name": (
        "OTHERHOST",
        {},
        ["not valid for the host name 127.0.0.1", "advertised.listeners a name that the certificate contains"],
    ),
    "no client certificate": (
        "MTLS",
        {},
        ["requires a client certificate (mTLS), but ssl.keystore.location is not set"],
    ),
    "TLS against a plain port": (
        "PLAINTEXT",
        {},
        ["does not use TLS", "port with TLS in --kafka-brokers, or, if there is none, set security.protocol=PLAINTEXT"],
    ),
    "plain against a TLS port": ("TLS", {"security.protocol": "PLAINTEXT"}, ["uses TLS", "set security.protocol=SSL "]),
    "plain against mTLS": ("MTLS", {"security.protocol": None}, ["uses TLS,", "set security.protocol=SSL "]),
    "plain against TLS with SASL": (
        "SASL",
        {"security.protocol": None},
        ["uses TLS and requires SASL", "the default", "=SASL_SSL in the --kafka-config file, with sasl.mechanism and"],
    ),
    "TLS against TLS with SASL": (
        "SASL",
        {},
        ["requires SASL authentication, but this client", "set security.protocol=SASL_SSL"],
    ),
    "SASL against TLS alone": (
        "TLS",
        log_in("PLAIN"),
        ["does not use SASL", "port with SASL in --kafka-brokers, or, if there is none, set security.protocol=SSL "],
    ),
    "plain against SASL": ("CLEAR", {"security.protocol": None}, ["requires SASL authentication", "=SASL_PLAINTEXT"]),
    "password of the truststore": (
        "TLS",
        {"ssl.truststore.password": "wrong-one"},
        [
            "the truststore /",
            "truststore.p12 cannot be opened with the given password",
            "correct ssl.truststore.password",
        ],
    ),
    "missing truststore": (
        "TLS",
        {"ssl.truststore.location": "/tmp/no-such.p12"},
        ["the truststore /tmp/no-such.p12 does not exist", "correct ssl.truststore.location"],
    ),
    "type of the truststore": (
        "TLS",
        {"ssl.truststore.type": "PEM"},
        ["PEM cannot have a password", "ssl.truststore.type"],
    ),
    "type PEM without a password": (
        "TLS",
        {"ssl.truststore.type": "PEM", "ssl.truststore.password": None},
        ["type PEM", "ssl.truststore.type"],
    ),
    "not a keystore": (
        "TLS",
        {"ssl.truststore.location": "/etc/hostname"},
        [
            "the truststore /etc/hostname is not a file of type PKCS12",
            "correct ssl.truststore.location or ssl.truststore.type",
        ],
    ),
    "no right to describe": (
        "SASL",
        log_in("SCRAM-SHA-512", "bob"),
        [
            "no right to DESCRIBE topic 'test-",
            "or there is no such topic",
            "--operation Read --topic",
            "sasl.jaas.config",
        ],
    ),
    "no right to read": (
        "SASL",
        log_in("PLAIN", "carol"),
        ["no right to READ topic 'test-", "--bootstrap-server 127.0.0.1:", "User:NAME"],
    ),
}


@pytest.fixture
def refuse(kafka: SecuredKafka, through: Callable[..., Lake], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that ingests in vain, and returns the message."""

    def ingest(listener: str, changes: dict[str, str | None]) -> str:
        given = {**trust(kafka.authority), **changes}
        lake = through(listener, {name: value for name, value in given.items() if value is not None})
        ended = run_ingest(lake.config, capsys)
        if ended.seconds >= LONGEST:  # on a busy machine
            ended = run_ingest(lake.config, capsys)
        assert (ended.code, is_untouched(lake)) == (2, True)
        assert ended.seconds < LONGEST
        assert not any(secret in ended.message for secret in (*USERS.values(), PASSWORD + " ", "wrong"))
        return ended.message

    return ingest


@pytest.mark.parametrize("fault", FAULTS)
def test_the_message_has_the_cause_and_the_property(fault: str, refuse: Callable[..., str]):
    listener, changes, parts = FAULTS[fault]
    message = refuse(listener, changes)
    assert [part for part in parts if part not in message] == []


def test_a_ca_that_is_not_in_the_truststore(refuse: Callable[..., str], tmp_path: Path):
    other = Authority(tmp_path / "other", "another-ca")
    assert "a CA that is not in this client's truststore; add the CA's certificate" in refuse("TLS", trust(other))


def test_a_client_certificate_of_another_ca(refuse: Callable[..., str], tmp_path: Path):
    message = refuse("MTLS", present(Authority(tmp_path / "other", "another-ca").issue("billing")))
    assert "the broker refuses the client certificate in ssl.keystore.location" in message
    assert (
        ", which is valid until 20" in message
        and "; the broker most often does not trust the CA that signed it, so ask" in message
    )


def test_a_client_certificate_that_has_expired(kafka: SecuredKafka, refuse: Callable[..., str]):
    message = refuse("MTLS", present(kafka.authority.issue("late", lifetime="-3d")))
    assert ", which expired on 20" in message and message.endswith("Z; put a new certificate into this keystore")


def test_a_client_certificate_for_a_port_with_sasl(kafka: SecuredKafka, through: Callable[..., Lake], capsys):
    """The port is asked for SASL only after a failure, because a port for certificates would log the question."""
    certificate = present(kafka.authority.folder / "billing.p12")
    ended = run_ingest(through("SASL", trust(kafka.authority) | certificate).config, capsys)
    assert (ended.code, "requires SASL authentication, but this client" in ended.message) == (2, True)


def test_a_password_of_the_keystore(kafka: SecuredKafka, refuse: Callable[..., str]):
    changes = present(kafka.authority.folder / "billing.p12") | {"ssl.keystore.password": "wrong-one"}
    assert "billing.p12 cannot be opened with the given password; correct ssl.keystore.password" in refuse(
        "MTLS", changes
    )


def test_no_file_at_all(kafka: SecuredKafka, topic: Topic, lake: Lake, capsys: pytest.CaptureFixture[str]):
    ended = run_ingest(replace(lake.config, kafka_brokers=kafka.get_address("SASL")), capsys)
    assert (ended.code, ended.seconds < LONGEST) == (2, True)
    assert "uses TLS and requires SASL" in ended.message
    assert "security.protocol=SASL_SSL in the --kafka-config file" in ended.message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("securty.protocol", "security.protocol"),
        ("kafka.security.protocol", "security.protocol"),
        ("sasl.mechanisms", "sasl.mechanism"),
        ("ssl.trustore.location", "ssl.truststore.location"),
    ],
)
def test_a_name_that_is_almost_one_of_kafka_s(written: str, meant: str, refuse: Callable[..., str]):
    message = refuse("PLAINTEXT", {"security.protocol": None, written: "SSL"})
    assert f"sets {written}, which Kafka's client does not know; write {meant} instead" in message


def test_other_unknown_names_are_warned_of(
    topic: Topic, through: Callable[..., Lake], bronze_log: pytest.LogCaptureFixture
):
    names = {"schema.registry.url": "http://x", "linger.ms": "5", "config.providers": "", "s3cret.word": ""}
    through("PLAINTEXT", names).ingest()
    (warning,) = [line for line in bronze_log.messages if "does not know" in line]
    assert warning.endswith(
        "nothing to do, unless a name is misspelt): schema.registry.url, 1 that may be parts of a secret"
    )


def test_an_address_that_the_broker_advertises_in_vain(kafka: SecuredKafka, through: Callable[..., Lake], capsys):
    lake = through("ELSEWHERE", {})
    ended = run_ingest(replace(lake.config, startup_timeout=5), capsys)
    assert ended.code == 1
    port = kafka.ports["ELSEWHERE"]
    assert (
        f"then named broker.invalid:{port} as its address, and this machine cannot resolve that name" in ended.message
    )
    assert "correct the brokers' advertised.listeners" in ended.message


def test_an_identity_provider_that_does_not_answer_is_not_a_wrong_setting(through: Callable[..., Lake], capsys):
    login = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=x clientSecret=y;"
    handler = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler"
    provider = {
        "sasl.login.callback.handler.class": handler,
        "sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token",
        "sasl.login.retry.backoff.max.ms": "200",
        "sasl.jaas.config": login,
    }
    ended = run_ingest(through("OAUTH", OAUTH | provider).config, capsys)
    assert ended.code == 1
    assert "the identity provider (http://127.0.0.1:1/token) cannot be reached" in ended.message
