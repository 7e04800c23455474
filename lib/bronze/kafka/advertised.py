"""Finds out why brokers that answered once cannot be reached: the addresses that they advertise do not work here.

A client connects to the address that it is given, asks there for the brokers, and from then on uses the addresses that
their ``advertised.listeners`` name. Kafka's client only times out if these are wrong.
"""

import socket
from contextlib import suppress
from typing import Any

from py4j.protocol import Py4JError

_TIMEOUT = 1.0  # seconds
_MAX_BROKERS = 3
_FIRST = "the first connection worked, but the broker then named"


def find_unreachable(admin: Any) -> str:
    """Describe the first advertised address that cannot be reached; empty if all can, or if none is known.

    Args:
        admin: Java's admin client.
    """
    for host, port in _list_advertised(admin)[:_MAX_BROKERS]:
        try:
            socket.create_connection((host, port), _TIMEOUT).close()
        except socket.gaierror:
            return f"{_FIRST} {host}:{port} as its address, and this machine cannot resolve that name"
        except OSError as error:
            return f"{_FIRST} {host}:{port} as its address, and this machine cannot connect to it ({error})"
    return ""


def _list_advertised(admin: Any) -> list[tuple[str, int]]:
    """The addresses in the client's metadata, which it does not publish; empty if this version has them elsewhere."""
    with suppress(Py4JError, TypeError):
        field = admin.getClass().getDeclaredField("metadataManager")
        field.setAccessible(True)
        nodes = field.get(admin).updater().fetchNodes()
        return [(str(node.host()), int(node.port())) for node in nodes if node.id() >= 0]  # others are the given ones
    return []
