"""Client properties for the ports of the secured broker, and a command that uses them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from bronze.cli import main
from bronze.config import IngestConfig
from bronze.kafka import client
from bronze.kafka.probe import find_mismatch
from bronze.runtime.kafka_faults import Fault
from sandbox.certificates import PASSWORD, Authority
from sandbox.secured import SecuredKafka
from tests.support.commands import list_flags

USERS = {
    "alice": "alice-secret",
    "bob": "bob-secret",
    "carol": "carol-secret",
}  # bob has no rights, carol DESCRIBE only
_MODULES = "org.apache.kafka.common.security"
_OAUTH = f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required"
_SCOPE = 'unsecuredLoginListClaim_scope=",read"'  # the first character separates the entries
_LOGINS = {
    "PLAIN": f'{_MODULES}.plain.PlainLoginModule required username="{{user}}" password="{{password}}";',
    "SCRAM-SHA-512": f'{_MODULES}.scram.ScramLoginModule required username="{{user}}" password="{{password}}";',
    "OAUTHBEARER": f'{_OAUTH} unsecuredLoginStringClaim_sub="{{user}}" {_SCOPE};',
}


def trust(authority: Authority) -> dict[str, str]:
    """The properties of a client that trusts the authority's certificates."""
    location = {"ssl.truststore.location": str(authority.truststore), "ssl.truststore.password": PASSWORD}
    return {"security.protocol": "SSL", **location, "ssl.truststore.type": "PKCS12"}


def present(keystore: Path) -> dict[str, str]:
    """The properties of a client certificate."""
    return {"ssl.keystore.location": str(keystore), "ssl.keystore.password": PASSWORD, "ssl.keystore.type": "PKCS12"}


def log_in(mechanism: str, user: str = "alice", password: str = "", protocol: str = "SASL_SSL") -> dict[str, str]:
    """The properties of a user."""
    login = _LOGINS[mechanism].format(user=user, password=password or USERS[user])
    return {"security.protocol": protocol, "sasl.mechanism": mechanism, "sasl.jaas.config": login}


def list_mechanisms(kafka: SecuredKafka) -> dict[str, tuple[str, dict[str, str]]]:
    """For each mechanism the listener, and the properties of a client that may read."""
    authority, trusted = kafka.authority, trust(kafka.authority)
    pem = {"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": str(authority.pem)}
    jks = {**trusted, "ssl.truststore.type": "JKS", "ssl.truststore.location": str(authority.jks)}
    return {
        "tls": ("TLS", trusted),
        "tls-pem": ("TLS", pem),
        "tls-jks": ("TLS", jks),
        "mtls": ("MTLS", trusted | present(authority.folder / "billing.p12")),
        "scram": ("SASL", trusted | log_in("SCRAM-SHA-512")),
        "plain": ("SASL", trusted | log_in("PLAIN")),
        "plain-without-tls": ("CLEAR", log_in("PLAIN", protocol="SASL_PLAINTEXT")),
        "oauth": ("OAUTH", log_in("OAUTHBEARER", protocol="SASL_PLAINTEXT")),
    }


def write_properties(file: Path, properties: dict[str, str]) -> str:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return str(file)


@dataclass(frozen=True)
class Ended:
    """A command that has ended: exit code, message, and the seconds since its first contact with a broker."""

    code: int
    message: str
    seconds: float


def run_ingest(config: IngestConfig, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Run ``bronze ingest`` in this process."""
    contacts: list[float] = []

    def note(properties: Mapping[str, str], has_failed: bool) -> Fault | None:
        contacts.append(time.monotonic())
        return find_mismatch(properties, has_failed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "find_mismatch", note)  # each attempt begins with it
        code = main(["ingest", *list_flags(config)])
    since = time.monotonic() - contacts[0] if contacts else 0
    return Ended(code, capsys.readouterr().err.strip().rpartition("bronze: ")[2], since)
