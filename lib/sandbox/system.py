"""What the sandbox asks of the operating system: ports, processes, locks."""

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
    """Return a port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, seconds: float = 2.0) -> None:
    """Return once a program could listen on the port: a killed process gives its own back a little late.

    Raises:
        ConfigError: It still could not after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            # As Java does: connections of an earlier listener that still linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                return probe.bind((HOST, port))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"port {port} of 127.0.0.1 cannot be used: {error.strerror}.",
                        hint=f"Stop what has it (lsof -i :{port}) or choose another port with --port or SANDBOX_PORT.",
                    ) from None
        time.sleep(0.05)


def read_command_line(pid: int) -> str:
    """Return the command line of a running process, empty where there is none (also of a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()


@contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Let one process at a time into the block; the others wait."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
