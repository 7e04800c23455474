"""A server in a separate process that outlives the one that started it."""

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from bronze.errors import BronzeError, InvalidOptionError
from sandbox.system import HOST, find_free_port, hold_lock, read_command_line, wait_for_port

START_TIMEOUT, STOP_TIMEOUT = 90, 30  # seconds
LOG_TAIL = 15  # lines


class Server(ABC):
    """The server of one data directory, even if another process started it; a context manager starts and stops it.

    Its data stays in the data directory when it ends, even if it is killed.
    """

    name: str  # for messages
    variable: str  # environment variable of the port
    default_port: int
    down: str  # the command that stops it

    def __init__(self, data_dir: Path, port: int | None):
        """
        Args:
            data_dir: Folder of the server's files.
            port: Port on 127.0.0.1, 0 for a free one; by default that of a running server, otherwise that of the
                environment.
        """
        self.data_dir = data_dir.resolve()
        self.log = self.data_dir / f"{self.name.lower()}.log"
        self._state_file = self.data_dir / "sandbox.json"
        self._port = port if port is None else check_port_number(port, self.variable)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def _marker(self) -> str:
        """The part of the command line that identifies this server."""

    @abstractmethod
    def _spawn(self) -> None:
        """Start the process, with ``_run``."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server serves requests now."""

    @property
    def pid(self) -> int | None:
        """The server's process id; None if it is not running, or if another program now has its id."""
        if self._process and self._process.poll() is None:
            return self._process.pid
        pid = self._read_state().get("pid", 0)
        return pid if f"{self._marker} " in read_command_line(pid) else None

    @property
    def port(self) -> int:
        """The port that the server listens on or will listen on; 0 if a free one is not chosen yet."""
        running = self._read_state().get("port") if self.pid else None
        return self._port or running or (self._read_default_port() if self._port is None else 0)

    def _read_default_port(self) -> int:
        return check_port_number(os.environ.get(self.variable) or self.default_port, self.variable)

    def start(self) -> bool:
        """Start the server if it is not running, and wait until it answers; return whether it had to be started.

        Raises:
            ConfigError: Another program listens on the port, or a program that it needs is missing.
            InvalidOptionError: This server is already running on another port.
            BronzeError: It died, or did not answer within 90 seconds. Its program could not be downloaded.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.data_dir / "start.lock"):
            # A server that was just killed may still have its pid, but does not answer.
            if self._is_running_as_wanted() and self._wait_for_answer():
                return False
            self._port = self.port or find_free_port()
            wait_for_port(self._port, self.variable)
            for _ in range(2):  # another program may take one of its further ports before it does
                self._spawn()
                assert self._process is not None
                state = {"pid": self._process.pid, "port": self._port, "log": str(self.log)}
                self._state_file.write_text(json.dumps(state))
                try:
                    if self._wait_for_answer():
                        return True
                except BaseException:
                    self.kill()
                    raise
            raise self._start_error("ended twice while starting")

    def stop(self) -> bool:
        """Stop the server gracefully, after 30 seconds by force; return whether it was running."""
        was_running = self.pid is not None
        self._end(signal.SIGTERM)
        self.kill()
        self._state_file.unlink(missing_ok=True)
        return was_running

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would: its state file stays."""
        self._end(signal.SIGKILL)

    def _read_state(self) -> dict[str, Any]:
        try:
            return json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}

    def _is_running_as_wanted(self) -> bool:
        running = self._read_state().get("port") if self.pid else None
        if running and self._port not in (None, 0, running):
            expected = f"{running}, because the server of {self.data_dir} runs there until {self.down}"
            raise InvalidOptionError("port", self._port, expected)
        return running is not None

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
        """Run a command in the data directory, in a separate process session, so that it outlives the terminal."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.data_dir,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_answer(self) -> bool:
        """Wait until the server answers, and print progress; return False if it ends first."""
        begun = time.monotonic()
        while self.pid:
            if self._answers():
                return True
            time.sleep(0.1)
            waited = time.monotonic() - begun
            if waited > START_TIMEOUT:
                raise self._start_error(f"did not answer within {START_TIMEOUT} s")
            if waited > 5:
                print(f"waiting for {self.name} at {HOST}:{self.port}: {waited:.0f} s", file=sys.stderr)
        return False

    def _start_error(self, what: str) -> BronzeError:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return BronzeError("\n  ".join([f"{self.name} {what}; the end of {self.log}:", *lines[-LOG_TAIL:]]))

    def _end(self, how: signal.Signals) -> None:
        """Send a signal to the server if it is running, and wait until it has ended."""
        deadline = time.monotonic() + STOP_TIMEOUT
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        while self.pid and time.monotonic() < deadline:
            time.sleep(0.05)


def check_port_number(given: int | str, variable: str) -> int:
    """Return a port as a number.

    Raises:
        InvalidOptionError: It is not a port.
    """
    if not str(given).isdecimal() or int(given) > 65535:
        raise InvalidOptionError("port", given, f"1 to 65535, or 0 for a free port (also in {variable})")
    return int(given)
