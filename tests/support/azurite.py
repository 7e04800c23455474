"""Microsoft's emulator of Azure Blob Storage (Azurite, from npm) in a separate process."""

import os
from pathlib import Path

from pyarrow.fs import AzureFileSystem

from sandbox.server import Server
from sandbox.system import HOST
from tests.support.paths import ROOT

ACCOUNT = "devstoreaccount1"
# The key that each Azurite has; it is published in its documentation.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ACCOUNT_HOST = f"{ACCOUNT}.dfs.core.windows.net"
_PROGRAM = ROOT / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite-blob"


class Azurite(Server):
    """The emulator; its containers stay in the data directory."""

    name, variable, default_port, down = "Azurite", "AZURITE_PORT", 10000, "kill"

    @property
    def file_system(self) -> AzureFileSystem:
        """Pyarrow's file system."""
        kinds = ("blob_storage", "dfs_storage")
        schemes = {f"{kind}_scheme": "http" for kind in kinds}
        addresses = {f"{kind}_authority": f"{HOST}:{self.port}" for kind in kinds}
        return AzureFileSystem(ACCOUNT, account_key=KEY, **schemes, **addresses)

    @property
    def settings(self) -> str:
        """The lines of a spark-defaults.conf with which Hadoop's ABFS reaches it."""
        settings = {
            f"account.key.{ACCOUNT_HOST}": KEY,
            "account.hns.enabled": "false",
            "fns.account.service.type": "BLOB",
            "always.use.https": "false",
            "networking.library": "JDK_HTTP_URL_CONNECTION",
            "abfs.endpoint": f"{HOST}:{self.port}",
        }
        return "".join(f"spark.hadoop.fs.azure.{name} {value}\n" for name, value in settings.items())

    @property
    def _marker(self) -> str:
        return f"--location {self.data_dir}"

    def _spawn(self) -> None:
        address = ["--blobHost", HOST, "--blobPort", str(self._port)]
        options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        self._process = self._run([str(_PROGRAM), *address, *self._marker.split(" ", 1), *options], os.environ)

    def _answers(self) -> bool:
        try:
            self.file_system.create_dir("bronze")
        except OSError:
            return False
        return True


def write_settings(azurite: Azurite, folder: Path) -> Path:
    """Write the configuration folder of a Spark that uses the emulator."""
    (folder / "spark-defaults.conf").write_text(azurite.settings)
    return folder
