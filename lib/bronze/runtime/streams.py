"""Standard output and standard error that never end a command: any encoding, and readers that have gone."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class TolerantStream:
    """A text stream whose reader may close it early, such as ``| head``. The output after that is lost.

    The exit code of the command then still says how it ended.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, unless the reader has gone."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush, unless the reader has gone."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Send the buffered text, and everything from now on, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def make_streams_tolerant() -> None:
    """Make standard output and standard error of this process tolerant; calling it again changes nothing.

    A stream that cannot encode a character writes it as an escape. A stream that was closed before the start stays so.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, TolerantStream):
            continue
        with suppress(AttributeError, ValueError):  # not a text file, as in a test or a notebook
            stream.reconfigure(errors="backslashreplace")
            stream.fileno()
            setattr(sys, name, TolerantStream(stream))
