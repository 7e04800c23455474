"""Where a table is: on a local disk, in S3 or in Azure, as pyarrow and deltalake open it.

Executors import this module, so it may import only packages that ``make env-archive`` packs.
"""

import errno
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem


@dataclass(frozen=True)
class S3Access:
    """How to reach a bucket; tasks get it from the driver, because only S3A knows all settings."""

    region: str
    endpoint: str  # with its scheme; the bucket is in the path
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    @property
    def deltalake_options(self) -> dict[str, str]:
        """The storage options of deltalake; its commits never replace a file."""
        # All of them, because deltalake takes those that are missing from the environment.
        return {
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": str(self.endpoint.startswith("http:")).lower(),
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            **({"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {}),
            "AWS_CONDITIONAL_PUT": "etag",
        }

    def open_file_system(self) -> FileSystem:
        """Pyarrow's file system, which keeps its connections."""
        return _open_s3(self)


@lru_cache(8)  # renewed credentials open another one
def _open_s3(access: S3Access) -> FileSystem:
    from pyarrow.fs import S3FileSystem

    scheme, _, host = access.endpoint.partition("://")
    return S3FileSystem(
        access_key=access.access_key or None,
        secret_key=access.secret_key or None,
        session_token=access.session_token or None,
        region=access.region,
        scheme=scheme,
        endpoint_override=host,
        allow_delayed_open=True,  # a small file is one request, which leaves nothing behind if it fails
    )


@dataclass(frozen=True)
class AzureAccess:
    """How to reach a storage account with its key; the container is in the path."""

    account: str
    account_key: str = field(default="", repr=False)
    emulator: str = ""  # address and port of Azurite

    @property
    def deltalake_options(self) -> dict[str, str]:
        """The storage options of deltalake; its commits never replace a file."""
        # All of them, because deltalake takes those that are missing from the environment.
        return {
            "AZURE_STORAGE_ENDPOINT": f"https://{self.account}.blob.core.windows.net",
            "AZURE_SKIP_SIGNATURE": "false",
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.account_key,
            # deltalake takes Azurite's address from AZURITE_BLOB_STORAGE_URL. Azurite cannot list the names after a
            # given one, so deltalake must know that it is an emulator.
            "AZURE_STORAGE_USE_EMULATOR": str(bool(self.emulator)).lower(),
        }

    def open_file_system(self) -> FileSystem:
        """Pyarrow's file system, which keeps its connections."""
        return _open_azure(self)


@lru_cache(8)
def _open_azure(access: AzureAccess) -> FileSystem:
    from pyarrow.fs import AzureFileSystem

    kinds = ("blob_storage", "dfs_storage")
    schemes = {f"{kind}_scheme": "http" for kind in kinds if access.emulator}
    addresses = {f"{kind}_authority": access.emulator for kind in kinds if access.emulator}
    return AzureFileSystem(access.account, account_key=access.account_key, **schemes, **addresses)


@dataclass(frozen=True)
class Storage:
    """The place of a table.

    Attributes:
        uri: A local path, ``s3a://bucket/path``, or ``abfss://container@host/path``.
        access: How to reach the bucket or container; None for a local path.
    """

    uri: str
    access: S3Access | AzureAccess | None = None

    @property
    def is_direct(self) -> bool:
        """Whether the direct writer can reach it; other places can only be reached through Spark."""
        return self.access is not None or self.uri.startswith("/")

    @property
    def file_system(self) -> FileSystem:
        """Pyarrow's file system."""
        return self.access.open_file_system() if self.access else LocalFileSystem()

    @property
    def root(self) -> str:
        """The table's path on its file system."""
        return re.sub(r"^\w+://([^/@]+)(@[^/]+)?", r"\1", self.uri)

    @property
    def options(self) -> dict[str, str] | None:
        """Storage options of deltalake."""
        return self.access.deltalake_options if self.access else None

    def locate(self, name: str) -> str:
        """The path of a table's file on the file system."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        """Read a file of the table; None if it does not exist.

        Raises:
            OSError: It cannot be read.
        """
        try:
            with self.file_system.open_input_stream(self.locate(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def sync(self, names: Iterable[str]) -> bool:
        """Let local files survive a power failure, with the folders that name them; return whether they exist.

        Otherwise, a file that was just written may be empty afterwards. What an object store has acknowledged survives.

        Raises:
            OSError: The disk reports an error.
        """
        files = list(map(Path, names))
        if self.access or not all(Path(self.uri, file).exists() for file in files):
            return False
        with ThreadPoolExecutor(8) as pool:  # a disk does several at once in about the time of one
            for paths in (files, {folder for file in files for folder in file.parents}):
                list(pool.map(_sync, (Path(self.uri, path) for path in paths)))
        return True

    def list_names(self, folder: str = "") -> list[str]:
        """List the names in a folder of the table; empty if there is none."""
        selector = FileSelector(self.locate(folder) if folder else self.root, allow_not_found=True)
        return [info.base_name for info in self.file_system.get_file_info(selector)]

    @property
    def is_file(self) -> bool:
        """Whether there is a file at the place of the table."""
        found = self.file_system.get_file_info(self.root)
        # In Azure, Hadoop marks a folder by an empty file of its name.
        return bool(found.is_file and (found.size or not isinstance(self.access, AzureAccess)))

    def measure(self, names: Iterable[str]) -> list[int | None]:
        """Measure files of the table in bytes; None for one that does not exist."""
        found = self.file_system.get_file_info([self.locate(name) for name in names])
        return [info.size if info.type is FileType.File else None for info in found]


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
