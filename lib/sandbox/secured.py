"""The sandbox's broker with secured listeners: TLS, mTLS, SASL and ACLs; for the tests, and to try a configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from sandbox.certificates import PASSWORD, Authority
from sandbox.kafka import KafkaSandbox
from sandbox.system import HOST, find_free_port

HOSTS = f"ip:{HOST},dns:localhost"
EXPIRED = "-3d"  # of one day
# Listeners by name, each with its protocol. All that need no user name have the principal ANONYMOUS, a super user.
LISTENERS = {
    "TLS": "SSL",
    "MTLS": "SSL",
    "EXPIRED": "SSL",
    "OTHERHOST": "SSL",
    "SASL": "SASL_SSL",
    "CLEAR": "SASL_PLAINTEXT",
    "OAUTH": "SASL_PLAINTEXT",
    "ELSEWHERE": "PLAINTEXT",
}
# Brokers advertise the addresses on which they listen, except that of ELSEWHERE, which no machine can resolve.
_ADVERTISED = {"ELSEWHERE": "broker.invalid"}
_MODULE = "org.apache.kafka.common.security"
# SASL clients authenticate again every few seconds, so that a changed password takes effect.
_SETTINGS = """\
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port},{secured}
advertised.listeners=PLAINTEXT://{host}:{port},{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}
inter.broker.listener.name=PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
connections.max.idle.ms={idle_ms}
ssl.keystore.location={certificates}/broker.p12
ssl.keystore.password={password}
ssl.truststore.location={certificates}/truststore.p12
ssl.truststore.password={password}
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/,DEFAULT
listener.name.expired.ssl.keystore.location={certificates}/expired.p12
listener.name.expired.ssl.keystore.password={password}
listener.name.otherhost.ssl.keystore.location={certificates}/otherhost.p12
listener.name.otherhost.ssl.keystore.password={password}
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.connections.max.reauth.ms={reauth_ms}
listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {plain_users};
listener.name.clear.sasl.enabled.mechanisms=PLAIN
listener.name.clear.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {plain_users};
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required \
unsecuredLoginStringClaim_sub="broker" unsecuredValidatorRequiredScope="read";
"""


def _name_rule(user: str, operation: AclOperation, prefix: str, kind: ResourceType) -> tuple[Any, ...]:
    """The arguments of a rule for topics or groups."""
    place = (kind, prefix, ResourcePatternType.PREFIXED)
    return (*place, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


class SecuredKafka(KafkaSandbox):
    """The broker with a port for each of LISTENERS, an authorizer, and its certificates.

    Args:
        data_dir: Folder of the broker's files and certificates.
        users: Names and passwords for SASL/PLAIN.
        idle_ms: After this time, the broker closes idle connections.
        reauth_ms: After this time, SCRAM clients authenticate again.
    """

    def __init__(self, data_dir: Path, users: dict[str, str], idle_ms: int = 600_000, reauth_ms: int = 0):
        super().__init__(data_dir, port=0)
        self._users, self._idle_ms, self._reauth_ms = users, idle_ms, reauth_ms
        self.ports = {name: find_free_port() for name in LISTENERS}
        self.authority = Authority(self.data_dir / "certificates")
        self.authority.issue("broker", hosts=HOSTS)
        self.authority.issue("expired", hosts=HOSTS, lifetime=EXPIRED)
        self.authority.issue("otherhost", hosts="dns:kafka.example.com")
        self._truststore = self.authority.truststore

    def get_address(self, listener: str) -> str:
        """The address of PLAINTEXT or of one of LISTENERS for clients."""
        return f"{HOST}:{self.ports.get(listener, self.port)}"

    def set_password(self, user: str, password: str) -> None:
        """Set the password of a user for SCRAM-SHA-512; creates the user."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        admin = self._connect()  # keep a reference: a temporary would be deleted, with its request, before the answer
        admin.alter_user_scram_credentials([change])[user].result(10)

    def allow(self, user: str, operation: AclOperation, prefix: str, kind: ResourceType = ResourceType.TOPIC) -> None:
        """Allow an operation on all topics (or consumer groups) whose names begin so."""
        self._wait(AdminClient.create_acls, AclBinding(*_name_rule(user, operation, prefix, kind)))

    def forbid(self, user: str, operation: AclOperation, topic: str) -> None:
        """Take away a right that ``allow`` gave with the same arguments."""
        self._wait(AdminClient.delete_acls, AclBindingFilter(*_name_rule(user, operation, topic, ResourceType.TOPIC)))

    def _wait(self, request: Callable[..., dict[Any, Any]], rule: Any) -> None:
        admin = self._connect()
        for answer in request(admin, [rule]).values():
            answer.result(10)

    def _connect(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})

    def _write_settings(self, controller_port: int) -> str:
        return super()._write_settings(controller_port) + _SETTINGS.format(
            host=HOST,
            port=self._port,
            controller_port=controller_port,
            secured=",".join(f"{name}://{HOST}:{port}" for name, port in self.ports.items()),
            advertised=",".join(f"{name}://{_ADVERTISED.get(name, HOST)}:{port}" for name, port in self.ports.items()),
            protocols=",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items()),
            certificates=self.authority.folder,
            password=PASSWORD,
            module=_MODULE,
            plain_users=" ".join(f'user_{name}="{password}"' for name, password in self._users.items()),
            idle_ms=self._idle_ms,
            reauth_ms=self._reauth_ms,
        )
