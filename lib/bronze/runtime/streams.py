"""Standard output and standard error in any encoding, whose reader may go, and on a disk that may be full."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from bronze.errors import BronzeError


class TolerantStream:
    """A text stream whose reader may close it early, such as ``| head``. The output after that is lost.

    The exit code of the command then still says how it ended. An output that cannot be written for another reason, such
    as a full disk, ends the command; a log that cannot be written does not.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, unless the reader has gone.

        Raises:
            BronzeError: Standard output cannot be written.
        """
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush, unless the reader has gone.

        Raises:
            BronzeError: Standard output cannot be written.
        """
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Lose the text, and all that follows it if nobody reads it any more or the command ends."""
        has_reader = not isinstance(error, BrokenPipeError)
        if has_reader and self._stream is sys.__stderr__:
            return  # the disk may have space for the next line of the log
        _send_to_nowhere(self._stream.fileno())
        if has_reader:
            raise BronzeError(
                f"cannot write to standard output: {error.strerror}",
                hint="free space or choose another file, then run the same command again",
            )


def _send_to_nowhere(descriptor: int) -> None:
    """Discard what this process, and those that it starts, write to a descriptor."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.set_inheritable(descriptor, True)
    if nowhere != descriptor:
        os.close(nowhere)


def make_streams_tolerant() -> None:
    """Make standard output and standard error of this process tolerant; calling it again changes nothing.

    A stream that cannot encode a character writes it as an escape. A stream that was closed before the start leads to
    nowhere: otherwise the next file that is opened would get its number, and a process that is started its output.
    """
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _send_to_nowhere(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "w"))
        if stream is None or isinstance(stream, TolerantStream):
            continue
        with suppress(AttributeError, ValueError):  # not a text file, as in a test or a notebook
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
            stream.fileno()
            setattr(sys, name, TolerantStream(stream))
