"""Certificates for a broker and its clients, made with the JDK's keytool."""

import subprocess
from functools import cached_property
from pathlib import Path

from bronze.errors import BronzeError
from bronze.runtime.jars import find_java

PASSWORD = "sandbox"  # of all keystores and truststores; keytool wants six characters


class Authority:
    """A certificate authority, whose key and certificates are in one folder.

    Args:
        folder: Folder of its files; created if it is missing.
        name: Name of the authority.
    """

    def __init__(self, folder: Path, name: str = "sandbox-ca"):
        self.folder, self._keys = folder, folder / "authority.p12"
        folder.mkdir(parents=True, exist_ok=True)
        if not self._keys.exists():
            self._create_key("authority", name, "-ext", "bc:c", "-validity", "3650")

    def issue(self, name: str, *, hosts: str = "", lifetime: str = "") -> Path:
        """Return the keystore of a new certificate; an existing one of that name is replaced.

        Args:
            name: Common name, and the name of the file.
            hosts: Subject alternative names as keytool takes them: ``ip:127.0.0.1,dns:localhost``.
            lifetime: Start of its one day as keytool takes it: ``-1d+60S`` ends in a minute. By default it has a year.
        """
        keystore = self.folder / f"{name}.p12"
        keystore.unlink(missing_ok=True)
        period = ["-startdate", lifetime, "-validity", "1"] if lifetime else ["-validity", "365"]
        self._run("-delete", "-alias", name, *self._open(self._keys), check=False)
        self._create_key(name, name, "-signer", "authority", *(["-ext", f"san={hosts}"] if hosts else []), *period)
        source = ["-srckeystore", str(self._keys), "-srcstorepass", PASSWORD, "-srcalias", name]
        target = ["-destkeystore", str(keystore), "-deststorepass", PASSWORD, "-deststoretype", "PKCS12"]
        self._run("-importkeystore", *source, *target)
        return keystore

    @cached_property
    def pem(self) -> Path:
        """The authority's certificate as text."""
        file = self.folder / "authority.pem"
        self._run("-exportcert", "-rfc", "-alias", "authority", "-file", str(file), *self._open(self._keys))
        return file

    @cached_property
    def truststore(self) -> Path:
        """A PKCS12 truststore with the authority's certificate."""
        return self._create_truststore("truststore.p12", "PKCS12")

    @cached_property
    def jks(self) -> Path:
        """The same as a JKS file."""
        return self._create_truststore("truststore.jks", "JKS")

    def _create_truststore(self, name: str, kind: str) -> Path:
        file = self.folder / name
        file.unlink(missing_ok=True)
        self._run("-importcert", "-noprompt", "-alias", "authority", "-file", str(self.pem), *self._open(file, kind))
        return file

    def _create_key(self, alias: str, name: str, *options: str) -> None:
        identity = ["-alias", alias, "-dname", f"CN={name}", "-keyalg", "EC"]
        self._run("-genkeypair", *identity, *options, *self._open(self._keys))

    def _open(self, keystore: Path, kind: str = "PKCS12") -> list[str]:
        return ["-keystore", str(keystore), "-storepass", PASSWORD, "-storetype", kind]

    def _run(self, *arguments: str, check: bool = True) -> None:
        program = Path(find_java()).resolve().with_name("keytool")
        done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check and done.returncode:
            raise BronzeError(f"keytool could not make a certificate: {done.stdout.strip()}")
