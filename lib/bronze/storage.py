"""Where a table is: on a local disk, in S3 or in Azure.

obstore and deltalake reach object stores through the same library, object_store, and so take the same settings.
Executors import this module, so it may import only packages that ``make env-archive`` packs.
"""

import errno
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
from obstore.store import ObjectStore, from_url

_TIMEOUT = timedelta(minutes=1)  # of one request, which may be the upload of a large file


@dataclass(frozen=True)
class Storage:
    """The place of a table.

    Attributes:
        uri: A local path, ``s3a://bucket/path``, or ``abfss://container@host/path``.
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
            obstore.put(_open_store(self), name, content, use_multipart=False)

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
        return [path.rpartition("/")[2] for path in paths]

    @property
    def is_file(self) -> bool:
        """Whether there is a file at the place of the table."""
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


@lru_cache(16)  # which keeps the connections; renewed credentials open another one
def _open_store(place: Storage) -> ObjectStore:
    settings: Any = {name: value for name, value in place.settings if name.isupper()}
    client: Any = {name: value for name, value in place.settings if name.islower()}
    return from_url(place.uri, config=settings, client_options=client | {"timeout": _TIMEOUT})


@contextmanager
def _raise_os_errors() -> Iterator[None]:
    """Raise what the library says about a request as an OSError, without the dump of its data."""
    try:
        yield
    except BaseError as error:
        raise OSError(str(error).partition("\n\nDebug source:")[0]) from None


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
