"""Asks a port of Kafka whether it uses TLS and SASL: a client with the wrong ``security.protocol`` only times out.

The probe sends no credentials and verifies no certificate. It first speaks as the client will, so that a broker with
the right settings logs no failure.
"""

import re
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bronze.runtime.http import ask_server, make_trusting_context
from bronze.runtime.kafka_faults import Fault

_TIMEOUT = 1.0  # seconds
_MAX_ADDRESSES = 3
_UNAVAILABLE = (502, 503, 504)  # a provider may answer 500 to a wrong request
_PROTOCOLS = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
_ADDRESS = re.compile(r"(?:\w+://)?\[?([^\]]+?)\]?:(\d+)")
_SASL_HANDSHAKE, _CORRELATION, _NO_SASL = 17, 1967, 34  # Kafka's numbers of the request and of its answer
_TLS_RECORDS = (b"\x15", b"\x16")  # alert, handshake


@dataclass(frozen=True)
class Listener:
    """What a port speaks; ``has_sasl`` is None if it does not tell."""

    has_tls: bool
    has_sasl: bool | None

    def fits(self, protocol: str) -> bool:
        """Whether a client with this ``security.protocol`` can talk to it."""
        has_sasl = protocol.startswith("SASL_")
        return protocol.endswith("SSL") == self.has_tls and self.has_sasl in (None, has_sasl)

    @property
    def protocols(self) -> list[str]:
        """The values of ``security.protocol`` that fit, the one without a login first."""
        return list(filter(self.fits, _PROTOCOLS))


def find_mismatch(properties: Mapping[str, str], has_failed: bool = False) -> Fault | None:
    """Compare ``security.protocol`` with the first broker that can be reached.

    Args:
        properties: Properties of the client.
        has_failed: Whether the client has tried to connect; before, a client certificate must fit.

    Returns:
        The fault; None if they fit, if no broker answers, or if a broker's answer tells nothing.
    """
    protocol = properties.get("security.protocol", "PLAINTEXT").strip().upper()
    if protocol not in _PROTOCOLS:
        return None
    # A broker that asks for a client certificate would log a failed handshake.
    is_quiet = not has_failed and any(name.startswith("ssl.keystore.") for name in properties)
    for host, port in _list_addresses(properties["bootstrap.servers"]):
        with suppress(OSError):
            probe = _Probe(host, port, properties.get("sasl.mechanism", "PLAIN").strip())
            listener = probe.find_listener(protocol, is_quiet)
            if listener is None or listener.fits(protocol):
                return None
            return _mismatch(f"{host}:{port}", listener, properties)
    return None


def find_failure(url: str) -> str:
    """Return why an identity provider cannot answer any client now; empty if it can."""
    try:
        status = ask_server(url, "POST", _TIMEOUT)
    except OSError as error:
        return f"cannot be reached from this machine ({error.strerror or type(error).__name__})"
    return f"answers with status {status}" if status in _UNAVAILABLE else ""


def _mismatch(address: str, listener: Listener, properties: Mapping[str, str]) -> Fault:
    given = properties.get("security.protocol", "").strip()
    asks = {"TLS": given.upper().endswith("SSL"), "SASL": given.upper().startswith("SASL_")}
    has = {"TLS": listener.has_tls, "SASL": listener.has_sasl}
    lacks = [name for name in asks if asks[name] and has[name] is False]
    new = {"TLS": "uses TLS", "SASL": "requires SASL authentication"}
    speaks = [f"does not use {name}" for name in lacks] + [new[name] for name in asks if has[name] and not asks[name]]
    wanted = f"security.protocol={given}" if given else "the default, security.protocol=PLAINTEXT"
    is_login = listener.has_sasl is None and ("sasl.jaas.config" in properties or "sasl.mechanism" in properties)
    fitting = f"set security.protocol={listener.protocols[is_login]} in the --kafka-config file"
    if "=SASL_" in fitting and "sasl.jaas.config" not in properties:
        fitting += ", with sasl.mechanism and sasl.jaas.config"
    cure = f"{fitting}, or use another port in --kafka-brokers"
    if lacks:  # less security is the last resort
        cure = f"use the broker's port with {' and '.join(lacks)} in --kafka-brokers, or, if there is none, {fitting}"
    return Fault(f"{address} {' and '.join(speaks)}, but this client connects with {wanted}", cure)


def _list_addresses(brokers: str) -> Iterator[tuple[str, int]]:
    found = (_ADDRESS.fullmatch(broker.strip()) for broker in brokers.split(",")[:_MAX_ADDRESSES])
    return ((match[1], int(match[2])) for match in found if match)


@dataclass(frozen=True)
class _Probe:
    """A port, and the SASL mechanism to ask for; a mechanism that the broker lacks would be a failure in its log."""

    host: str
    port: int
    mechanism: str

    def find_listener(self, protocol: str, is_quiet: bool) -> Listener | None:
        """Return what the port speaks; None if it does not tell.

        Args:
            protocol: The client's ``security.protocol``, which is tried first.
            is_quiet: Whether to leave a TLS handshake incomplete.

        Raises:
            OSError: Nobody answers there.
        """
        if protocol.endswith("SSL") and self._starts_tls():
            return Listener(True, None if is_quiet else self._asks_sasl(make_trusting_context()))
        has_sasl = self._asks_sasl()
        if has_sasl is not None:
            return Listener(False, has_sasl)
        if not protocol.endswith("SSL") and self._starts_tls():
            return Listener(True, self._asks_sasl(make_trusting_context()))
        return None

    def _starts_tls(self) -> bool:
        """Whether the port answers the first message of TLS with one of TLS; the handshake is not completed."""
        sent = ssl.MemoryBIO()
        client = make_trusting_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=self.host)
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        with self._connect() as connection, suppress(OSError):  # a broker without TLS closes the connection
            connection.sendall(sent.read())
            return connection.recv(1)[:1] in _TLS_RECORDS
        return False

    def _asks_sasl(self, context: ssl.SSLContext | None = None) -> bool | None:
        """Whether the port uses SASL, asked in clear or with TLS; None if it does not answer as Kafka does."""
        with self._connect() as plain, suppress(OSError, struct.error):
            connection = context.wrap_socket(plain, server_hostname=self.host) if context else plain
            mechanism = self.mechanism.encode()
            body = struct.pack(">hhihh", _SASL_HANDSHAKE, 1, _CORRELATION, -1, len(mechanism)) + mechanism
            connection.sendall(struct.pack(">i", len(body)) + body)
            _, correlation, error = struct.unpack(">iih", connection.recv(10))
            return error != _NO_SASL if correlation == _CORRELATION else None
        return None

    def _connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), _TIMEOUT)
