"""Ports, processes and locks of the operating system."""

import fcntl
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bronze.errors import ConfigError

HOST = "127.0.0.1"


def find_free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, variable: str, seconds: float = 2.0) -> None:
    """Wait until the port is free: the port of a killed process is released with a delay.

    Raises:
        ConfigError: The port is still in use after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            # As Java does: lingering connections of an earlier listener do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                return probe.bind((HOST, port))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"port {port} of 127.0.0.1 cannot be used: {error.strerror}.",
                        hint=f"Stop the process that uses it (lsof -i :{port}), or use another --port or {variable}.",
                    ) from None
        time.sleep(0.05)


def read_command_line(pid: int) -> str:
    """Return the command line of a running process; empty if there is none, or for a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()


@contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Hold an exclusive lock during the block; other processes wait."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
