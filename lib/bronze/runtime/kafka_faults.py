"""Finds the setting that is wrong when Kafka, or its client, refuses a connection: TLS, SASL, keystores and rights.

Java reports most of these as a chain of nested exceptions, and the outermost ones say only that something failed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bronze.errors import BronzeError, ConfigError


@dataclass(frozen=True)
class Fault:
    """A condition that only a person can change.

    Attributes:
        problem: What is wrong.
        cure: What to change, without a full stop.
        alert: The alert of TLS with which the broker refuses a client certificate; empty for any other fault.
    """

    problem: str
    cure: str
    alert: str = ""


@dataclass(frozen=True)
class _Rule:
    """A pattern of the causes; ``problem`` and ``cure`` may use its named groups.

    Attributes:
        unset: The rule holds only if no property has a name that begins so; it needs the properties.
    """

    pattern: str
    problem: str
    cure: str
    unset: str = ""


_FILE = "the --kafka-config file"
# The cures of a client certificate that the broker refuses: of one that has expired, and of one that is valid.
RENEW = "put a new certificate into this keystore"
TRUST = (
    "the broker most often does not trust the CA that signed it, so ask an administrator of Kafka to add this CA to "
    "the broker's truststore, or use a certificate of a CA that it trusts (the broker's log has the exact reason)"
)
_UNKNOWN = "Kafka's client does not say why"
_UNFIT_LOGIN = _Rule(
    r"Failed to (?:create|configure) SaslClient|No serviceName defined in either JAAS or Kafka config",
    "the login module of sasl.jaas.config{module} does not fit sasl.mechanism{mechanism}",
    f"correct one of them in {_FILE} (PlainLoginModule is for PLAIN, ScramLoginModule for SCRAM-SHA-256 and "
    "SCRAM-SHA-512, OAuthBearerLoginModule for OAUTHBEARER, Krb5LoginModule for GSSAPI)",
)
_OPTIONAL = ("module", "mechanism", "endpoint", "topic", "error", "reason")  # shown in parentheses, if known
_RULES = (
    _Rule(
        r"CertificateExpiredException: (?:NotAfter: )?(?P<time>.+)",
        "the broker's certificate expired on {time}",
        "install a new certificate on the broker",
    ),
    _Rule(
        r"CertificateNotYetValidException: (?:NotBefore: )?(?P<time>.+)",
        "the broker's certificate is not valid before {time}",
        "check the clock of this machine, and the certificate of the broker",
    ),
    _Rule(
        r"No (?:subject alternative names matching IP address|subject alternative DNS name matching|name matching) "
        r"(?P<name>\S+) found|No subject alternative (?:DNS )?names present",
        "the broker's certificate is not valid for the host name {name}",
        "use in --kafka-brokers and advertised.listeners a name that the certificate contains (keytool -printcert "
        "-sslserver HOST:PORT shows its names), or issue a certificate for this name (an IP address needs an IP entry)",
    ),
    _Rule(
        r"unable to find valid certification path|PKIX path|trustAnchors parameter must be non-empty",
        "the broker's certificate is signed by a CA that this client does not trust, and no truststore is set",
        f"set ssl.truststore.location (and ssl.truststore.password) in {_FILE} to a truststore with that CA",
        unset="ssl.truststore.",
    ),
    _Rule(
        r"unable to find valid certification path|PKIX path|trustAnchors parameter must be non-empty",
        "the broker's certificate is signed by a CA that is not in this client's truststore",
        f"add the CA's certificate to the truststore that ssl.truststore.location in {_FILE} names",
    ),
    _Rule(
        r"fatal alert: (?:bad_certificate|certificate_required)",
        "the broker requires a client certificate (mTLS), but ssl.keystore.location is not set",
        f"set ssl.keystore.location and ssl.keystore.password in {_FILE}",
        unset="ssl.keystore.",
    ),
    _Rule(
        r"fatal alert: (?P<alert>\w*certificate\w*|unknown_ca|access_denied)",
        "the broker refuses the client certificate in ssl.keystore.location ({alert})",
        f"{RENEW} if it has expired; otherwise {TRUST}",
    ),
    _Rule(
        r"fatal alert: (?:protocol_version|handshake_failure|insufficient_security)|No appropriate protocol",
        "client and broker have no TLS version or cipher suite in common, or the broker requires a client certificate",
        f"correct ssl.enabled.protocols, ssl.cipher.suites or ssl.keystore.location in {_FILE}",
    ),
    _Rule(
        r"UnsupportedSaslMechanismException: .*?'(?P<given>[\w-]+)'.* mechanisms are \[(?P<enabled>[\w, -]+)\]",
        "Kafka does not offer the SASL mechanism {given} on this port, only {enabled}",
        f"correct sasl.mechanism in {_FILE}, and the login module of sasl.jaas.config to match",
    ),
    _Rule(
        r"UnsupportedSaslMechanismException|IllegalSaslStateException",
        "this port of Kafka does not use SASL",
        f"correct security.protocol in {_FILE} (SSL or PLAINTEXT), or use the port for SASL in --kafka-brokers",
    ),
    _Rule(
        r"Could not find a 'KafkaClient' entry",
        "security.protocol asks for SASL, but sasl.jaas.config is not set",
        f"set sasl.jaas.config in {_FILE}",
        unset="sasl.jaas.config",
    ),
    _UNFIT_LOGIN,
    _Rule(  # of the provider's answer, which may quote a secret, only the codes are shown
        r"LoginException: (?:An internal error occurred while retrieving token|.*oauthbearer.*(?P<status>response code "
        r"\d{3})(?:.*?\b(?P<error>invalid_(?:client|grant|request|scope)|unauthorized_client))?)",
        "the client got no OAuth token ({status}){error}",
        f"check in {_FILE}, in this order, sasl.oauthbearer.token.endpoint.url{{endpoint}}, the client id and "
        "secret in sasl.jaas.config, and the scope (the log may have a line of OAuthBearerLoginModule)",
    ),
    _Rule(
        r'SaslAuthenticationException: .*?(?:(?P<reason>"status":"\w{1,30}"(?:, ?"scope":"[\w\[\] .,:/-]{1,80}")?)'
        r"|invalid_token|insufficient_scope|OAUTHBEARER)",
        "Kafka does not accept the OAuth token of this client{reason}",
        "check the token's scope (the broker requires the scope that its answer names), lifetime, issuer "
        f"and audience: sasl.jaas.config, the token endpoint{{endpoint}} and other sasl.oauthbearer.* in {_FILE}",
    ),
    _Rule(
        r"SaslAuthenticationException",
        "Kafka does not accept the user name or the password, and does not say which",
        f"correct sasl.jaas.config, or sasl.mechanism{{mechanism}} if the user has no credential for it, in {_FILE}",
    ),
    _Rule(
        r"SSL trust store password cannot be specified for PEM",
        "a truststore of type PEM cannot have a password",
        f"remove ssl.truststore.password from {_FILE}, or correct ssl.truststore.type",
    ),
    _Rule(
        r"SSL key store password cannot be specified with PEM",
        "a keystore of type PEM cannot have ssl.keystore.password",
        f"write ssl.key.password instead in {_FILE}, or correct ssl.keystore.type",
    ),
    _Rule(
        r"SSL key store is specified, but key store password is not",
        "the keystore of ssl.keystore.location needs a password",
        f"set ssl.keystore.password in {_FILE}",
    ),
    _Rule(
        r"entries in PEM file|Invalid PEM|certificate expected, but none|Private key (?:not provided|could not)",
        "the truststore or the keystore is not a usable file of type PEM",
        f"correct ssl.truststore.type or ssl.keystore.type, or the file, in {_FILE}",
    ),
    _Rule(
        r"TopicAuthorizationException(?:: .*\[(?P<topic>[\w.-]+)\])?",
        "the user may not read the topic{topic}",
        "ask an administrator of Kafka to grant READ on the topic, which includes DESCRIBE (kafka-acls.sh)",
    ),
)
# Brokers report so when their own store of users does not answer.
_TEMPORARY = re.compile(r"SaslAuthenticationException: .*(?:temporar|unavailable|timed? ?out)", re.IGNORECASE)
_STORE = re.compile(r"Failed to load (?:PEM )?SSL keystore (?P<file>.+?)(?: of type (?P<kind>\S+))?$", re.MULTILINE)
_STORE_CAUSES = (
    (r"NoSuchFileException|FileNotFoundException", "does not exist", "location"),
    (r"AccessDeniedException|Permission denied", "cannot be read by this user", "location"),
    (r"password was incorrect|UnrecoverableKey|BadPadding", "cannot be opened with the given password", "password"),
)
_STORES = ("truststore", "keystore")
# What may be shown of properties that may hold a secret.
_SHOWN = {
    "module": ("sasl.jaas.config", r"\s*(?:[\w$]+\.)*(\w+LoginModule)\s"),
    "mechanism": ("sasl.mechanism", r"\s*((?i:plain|scram|gssapi|oauth|kerberos|aws)[\w-]{0,15})\s*$"),
    "endpoint": ("sasl.oauthbearer.token.endpoint.url", r"\s*(https?://[\w.-]+(?::\d+)?(?:/[\w.~/-]*)?)\s*$"),
}
# Kafka's client only times out with some of the other pairs. The module for SCRAM also works with PLAIN.
_FITTING = re.compile(r" .*|Plain\w+ PLAIN|Scram\w+ (?:SCRAM-SHA-(?:256|512)|PLAIN)|OAuth\w+ OAUTHBEARER|.*\$\{.*")

_REFUSED = re.compile(r"kafka\.common\.(?:errors\.\w*(?:Authentication|Authorization)|KafkaException)")
_CAUSE = re.compile(r"(?:\w+\.)+([\w$]+(?:Exception|Error)(?:: .*)?)$", re.MULTILINE)


def find_fault(causes: Sequence[str], properties: Mapping[str, str] | None = None) -> Fault | None:
    """Return the fault that a chain of exceptions reports; None if waiting may help, or if it is about something else.

    Args:
        causes: ``Class: message`` of each exception, the outermost first.
        properties: Properties of the client, if known. No value of them is shown except a file's path.
    """
    text = "\n".join(causes)
    if _TEMPORARY.search(text):
        return None
    if fault := _find_store_fault(text, properties or {}):
        return fault
    for rule in _RULES:
        if rule.unset and (properties is None or any(name.startswith(rule.unset) for name in properties)):
            continue
        if found := re.search(rule.pattern, text):
            return _make_fault(rule, found.groupdict(), properties or {})
    return None


def find_unfit_login(properties: Mapping[str, str]) -> Fault | None:
    """Return the fault of a login module of Kafka that does not work with ``sasl.mechanism``; None if there is none."""
    is_kafkas = properties.get("sasl.jaas.config", "").lstrip().startswith("org.apache.kafka.")
    is_used = properties.get("security.protocol", "").strip().upper().startswith("SASL_")
    pair = f"{show('module', properties)} {properties.get('sasl.mechanism', 'GSSAPI').strip()}"
    is_custom = not is_kafkas or "sasl.client.callback.handler.class" in properties
    return None if is_custom or not is_used or _FITTING.fullmatch(pair) else _make_fault(_UNFIT_LOGIN, {}, properties)


def _make_fault(rule: _Rule, found: Mapping[str, str | None], properties: Mapping[str, str]) -> Fault:
    values = {"name": "in --kafka-brokers", "status": _UNKNOWN} | {name: show(name, properties) for name in _SHOWN}
    values |= {name: value for name, value in found.items() if value}
    values |= {name: f" ({values[name]})" if values.get(name) else "" for name in _OPTIONAL}
    return Fault(rule.problem.format(**values), rule.cure.format(**values), found.get("alert") or "")


def show(name: str, properties: Mapping[str, str]) -> str:
    """What a message may show of the properties, by its name in ``_SHOWN``; empty if they do not have it."""
    source, pattern = _SHOWN[name]
    if name == "mechanism" and properties and source not in properties:
        return "not set, so it is GSSAPI"
    found = re.match(pattern, properties.get(source, ""))
    return found[1] if found else ""


def _find_store_fault(text: str, properties: Mapping[str, str]) -> Fault | None:
    """Return the fault of a file with keys or certificates that the client cannot load."""
    if not (found := _STORE.search(text)):
        fault = Fault("the key in the keystore cannot be opened", f"correct ssl.key.password in {_FILE}")
        return fault if re.search(r"UnrecoverableKeyException: (?:Get Key failed|Cannot recover key)", text) else None
    used = [name for name in _STORES if properties.get(f"ssl.{name}.location") == found["file"]]
    name = used[0] if len(used) == 1 else "keystore" if "keystore" in used else "truststore or keystore"
    shown = f"the {name} {found['file']}" if _is_path(found["file"]) else f"the file of the {name}"
    for pattern, problem, part in _STORE_CAUSES:
        if re.search(pattern, text):
            return Fault(f"{shown} {problem}", f"correct {_name_properties(used, part)} in {_FILE}")
    wrong = _name_properties(used, "location", "type")
    return Fault(f"{shown} is not a file of type {found['kind'] or 'PEM'}", f"correct {wrong} in {_FILE}")


def _name_properties(used: Sequence[str], *parts: str) -> str:
    return " or ".join(f"ssl.{name}.{part}" for name in used or _STORES for part in parts)


def _is_path(text: str) -> bool:
    """Whether a value is a path and not a password at the wrong place."""
    return Path(text).is_absolute() and Path(text).parent.is_dir()


def read_causes(java_exception: Any) -> list[str]:
    """Return each of nested Java exceptions as ``Class: message``, the outermost first."""
    causes = []
    while java_exception is not None:
        causes.append(f"{java_exception.getClass().getSimpleName()}: {java_exception.getMessage()}")
        java_exception = java_exception.getCause()
    return causes


def explain_kafka_refusal(error: BaseException) -> BronzeError | None:
    """Build the error for a running query that Kafka, or its client on an executor, refuses.

    Args:
        error: The error of Spark. Its text may name the outermost exceptions only.

    Returns:
        The error; None if it is about something else.
    """
    if not _REFUSED.search(str(error)):
        return None
    java_exception = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    causes = [*read_causes(java_exception), *(found[1] for found in _CAUSE.finditer(str(error)))]
    fault = find_fault(causes)
    if fault and any(map(_STORE.search, causes)):
        return ConfigError(
            f"Kafka's client on an executor cannot be created: {fault.problem}.",
            hint="Files that --kafka-config names must exist on every node that runs an executor",
        )
    return refused_again_error(fault) if fault else None


def refused_again_error(fault: Fault) -> BronzeError:
    """Build the error for a running query whose credentials or rights have ended; the next start reads them again."""
    return BronzeError(
        f"Kafka no longer accepts this client: {fault.problem}.",
        hint=f"Nothing was lost: {fault.cure}, then run the same command again to continue",
    )
