"""Where a table is: on a local disk, in S3 or in Azure.

obstore and deltalake reach object stores through the same library, object_store, and so take the same settings.
Executors import this module, so it may import only packages that ``make env-archive`` packs.
"""

import errno
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

_BYTES_PER_MINUTE = 6_000_000  # an upload that is slower fails


@dataclass(frozen=True)
class Storage:
    """The place of a table.

    Attributes:
        uri: A local path, or a path with its file system, such as ``s3a://bucket/path``.
        settings: How to reach a bucket or container; names in lower case concern HTTP. Tasks get them from the driver,
            because only Hadoop's connectors know all of them.
    """

    uri: str
    settings: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the table is on a disk."""
        return self.uri.startswith("/")

    @property
    def is_direct(self) -> bool:
        """Whether the direct writer can reach it; other places can only be reached through Spark."""
        return self.is_local or bool(self.settings)

    @property
    def options(self) -> dict[str, str] | None:
        """Storage options of deltalake; its commits never replace a file."""
        return dict(self.settings) or None

    def read(self, name: str) -> bytes | None:
        """Read a file of the table; None if it does not exist.

        Raises:
            OSError: It cannot be read.
        """
        try:
            if self.is_local:
                return Path(self.uri, name).read_bytes()
            with _raise_os_errors():
                return bytes(obstore.get(_open_store(self), name).bytes())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: memoryview) -> None:
        """Write a file of the table, in an object store by one request, which leaves nothing behind if it fails.

        Raises:
            OSError: It cannot be written.
        """
        if self.is_local:
            _write_local(Path(self.uri, name), content)
            return
        with _raise_os_errors():
            store = _open_store(self, minutes=1 + len(content) // _BYTES_PER_MINUTE)
            obstore.put(store, name, content, use_multipart=False)

    def open(self, name: str) -> str | io.RawIOBase:
        """Open a file of the table for pyarrow, which reads only the parts that it needs."""
        return f"{self.uri}/{name}" if self.is_local else _RemoteFile(self, name)

    def sync(self, names: Iterable[str]) -> bool:
        """Let local files survive a power failure, with the folders that name them; return whether they exist.

        Otherwise, a file that was just written may be empty afterwards. What an object store has acknowledged survives.

        Raises:
            OSError: The disk reports an error.
        """
        files = list(map(Path, names))
        if not self.is_local or not all(Path(self.uri, file).exists() for file in files):
            return False
        with ThreadPoolExecutor(8) as pool:  # a disk does several at once in about the time of one
            for paths in (files, {folder for file in files for folder in file.parents}):
                list(pool.map(_sync, (Path(self.uri, path) for path in paths)))
        return True

    def list_names(self, folder: str = "") -> list[str]:
        """List the names in a folder of the table; empty if there is none."""
        if self.is_local:
            path = Path(self.uri, folder)
            return [file.name for file in path.iterdir()] if path.exists() else []
        with _raise_os_errors():
            found = obstore.list_with_delimiter(_open_store(self), folder)
        paths = [*found["common_prefixes"], *(file["path"] for file in found["objects"])]
        return [path.rpartition("/")[2] for path in paths if path != folder]  # an object of its name marks a folder

    @property
    def is_file(self) -> bool:
        """Whether there is a file at the place of the table."""
        if not self.is_local and self.uri.count("/") < 3:  # a bucket
            return False
        size = self._measure("")
        # In Azure, Hadoop marks a folder by an empty file of its name.
        return size is not None and (size > 0 or not self.uri.startswith("abfs"))

    def measure(self, names: Iterable[str]) -> list[int | None]:
        """Measure files of the table in bytes; None for one that does not exist."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._measure, names))

    def _measure(self, name: str) -> int | None:
        try:
            if self.is_local:
                path = Path(self.uri, name)
                return path.stat().st_size if path.is_file() else None
            with _raise_os_errors():
                return obstore.head(_open_store(self), name)["size"]
        except FileNotFoundError:
            return None


class _RemoteFile(io.RawIOBase):
    """A file of an object store for pyarrow, which needs more methods than that of obstore has."""

    def __init__(self, place: Storage, name: str):
        with _raise_os_errors():
            self._file = obstore.open_reader(_open_store(place), name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        with _raise_os_errors():
            return bytes(self._file.read(None if size is None or size < 0 else size))


@lru_cache(16)  # which keeps the connections; renewed credentials open another one
def _open_store(place: Storage, minutes: int = 1) -> S3Store | AzureStore:
    settings: Any = {name: value for name, value in place.settings if name.isupper()}
    client: Any = {name: value for name, value in place.settings if name.islower()}
    client["timeout"] = timedelta(minutes=minutes)
    # The query is started again later; an interrupt waits for the end of a call.
    retries: Any = {"retry_timeout": timedelta(seconds=30)}
    scheme, _, rest = place.uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    kind = S3Store if scheme == "s3a" else AzureStore
    return kind(
        bucket.partition("@")[0],  # a container is followed by the host
        prefix=prefix or None,
        config=settings,
        client_options=client,
        retry_config=retries,
    )


@contextmanager
def _raise_os_errors() -> Iterator[None]:
    """Raise what the library says about a request as an OSError, without the dump of its data."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(str(error).partition("\n\nDebug source:")[0]) from None


def _write_local(file: Path, content: memoryview) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:  # that of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(file)) from error


# What file systems answer that cannot sync a folder, or a file that is open for reading, such as some network mounts.
_CANNOT_SYNC = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EROFS)


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise OSError(error.errno, error.strerror, str(path)) from error
