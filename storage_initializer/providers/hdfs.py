"""`hdfs://` and `webhdfs://` through the `hdfs` package (HdfsCLI), KServe's Secret conventions.

Settings are files in `/var/secrets/kserve-hdfscreds` (or `HDFS_SECRET_DIR`), overridden by
environment variables of the same names: HDFS_NAMENODE, HDFS_ROOTPATH, USER_PROXY, HEADERS,
TLS_CERT, TLS_KEY, TLS_CA, TLS_SKIP_VERIFY, KERBEROS_PRINCIPAL, KERBEROS_KEYTAB. A namenode in the
URI wins: `webhdfs://namenode:9870/path`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from posixpath import basename
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from storage_initializer.context import Context
from storage_initializer.errors import (
    AccessDenied,
    Changed,
    InvalidSettings,
    MissingExtra,
    NotFound,
    StorageError,
    TransferFailed,
)
from storage_initializer.items import CopySource, Item
from storage_initializer.retry import Retry
from storage_initializer.uri import Uri

DEFAULT_SECRETS = "/var/secrets/kserve-hdfscreds"
CHUNK = 1 << 20
_NAMES = ("HDFS_NAMENODE", "HDFS_ROOTPATH", "USER_PROXY", "HEADERS", "TLS_CERT", "TLS_KEY",
          "TLS_CA", "TLS_SKIP_VERIFY", "KERBEROS_PRINCIPAL", "KERBEROS_KEYTAB")  # fmt: skip


def connect(uri: Uri, context: Context) -> "HdfsSource":
    try:
        import hdfs  # noqa: F401 (is it there?)
    except ImportError:
        raise MissingExtra("hdfs and webhdfs sources", "hdfs", "hdfs") from None
    return HdfsSource(uri, context)


def read_secret(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings by name; TLS_* and the keytab are paths when they come from files."""
    directory = Path(environ.get("HDFS_SECRET_DIR") or DEFAULT_SECRETS)
    found: dict[str, str] = {}
    for name in _NAMES:
        file = directory / name
        if environ.get(name):
            found[name] = environ[name]
        elif file.is_file():
            as_path = name in ("TLS_CERT", "TLS_KEY", "TLS_CA", "KERBEROS_KEYTAB")
            found[name] = str(file) if as_path else file.read_text().strip()
    return found


class HdfsSource(CopySource):
    """One file or directory tree."""

    filtered = True

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._context = context
        secret = read_secret(context.environ)
        parts = urlsplit(uri.text)
        namenode = secret.get("HDFS_NAMENODE", "")
        root = secret.get("HDFS_ROOTPATH", "").rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        if namenode and parts.port and uri.scheme == "hdfs":  # the port of HDFS's own protocol
            self._path = parts.path or "/"
        elif parts.port or not namenode:
            if not host:
                problem = f"HDFS_NAMENODE: needed for {uri.shown}, which names no namenode"
                raise InvalidSettings([problem])
            scheme = "https" if "TLS_CERT" in secret or "TLS_CA" in secret else "http"
            namenode = f"{scheme}://{host}"
            self._path = parts.path or "/"
        elif host:  # KServe: everything after the scheme is the path, below the root path
            self._path = f"{root}/{host}{parts.path}"
        else:
            self._path = parts.path
        self._client = _client(namenode, secret, context, parts.username)

    def items(self) -> Iterator[Item]:
        status = self._ask(self._client.status, self._path)
        if status["type"] == "FILE":
            self.filtered = False
            yield _item(basename(self._path), self._path, status)
            return
        self.filtered = True
        found = False
        for item in self._walk(self._path, ""):
            found = True
            yield item
        if not found:
            raise NotFound(self.shown, "the directory is empty")

    def _walk(self, directory: str, prefix: str) -> Iterator[Item]:
        entries = self._ask(self._client.list, directory, status=True)
        if not entries and prefix:
            yield Item(path=prefix, size=0)
        for name, status in entries:
            path = f"{directory.rstrip('/')}/{name}"
            if status["type"] == "DIRECTORY":
                yield from self._walk(path, f"{prefix}{name}/")
            else:
                yield _item(prefix + name, path, status)

    def copy(self, item: Item, target: Path) -> None:
        """Goes on where a broken transfer ended, if it is still the same file then."""
        policy = Retry(self._context.control)
        with target.open("wb") as file:
            while True:
                before = file.tell()
                try:
                    self._call(self._read, item, file)
                    break
                except StorageError as exc:
                    policy.failed(exc, progressed=file.tell() > before)
        now = self._ask(self._client.status, item.ref)
        if _item(item.path, item.ref, now).version != item.version:
            raise Changed(f"{self.shown} ({item.path})")

    def _read(self, item: Item, file: BinaryIO) -> None:
        with self._client.read(item.ref, offset=file.tell(), chunk_size=CHUNK) as chunks:
            for chunk in chunks:
                self._context.control.check("downloading")
                file.write(chunk)
        if item.size is not None and file.tell() != item.size:
            raise TransferFailed(self.shown, f"{file.tell()} bytes of {item.size} came")

    def _ask(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """A small question, repeated while that may help."""
        policy = Retry(self._context.control)
        while True:
            try:
                return self._call(function, *arguments, **options)
            except StorageError as exc:
                policy.failed(exc)

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        import hdfs.util
        import requests

        try:
            return function(*arguments, **options)
        except hdfs.util.HdfsError as exc:
            text = " ".join(str(exc).split())
            if "FileNotFoundException" in str(exc.exception) or "not found" in text.lower():
                raise NotFound(self.shown, text) from exc
            if "AccessControl" in str(exc.exception) or "Authentication" in text:
                raise AccessDenied(self.shown, text, "check USER_PROXY or the keytab") from exc
            passing = ("Standby", "SafeMode", "Retriable")
            if not exc.exception or any(name in str(exc.exception) for name in passing):
                raise TransferFailed(self.shown, text) from exc
            raise StorageError(f"{self.shown}: {text}") from exc
        except requests.exceptions.RequestException as exc:
            raise TransferFailed(self.shown, _cause(exc)) from exc


def _cause(exc: Exception) -> str:
    """What happened, without the addresses and nested representations around it."""
    inner = exc.args[0] if exc.args else exc
    text = str(getattr(inner, "reason", None) or inner)
    return f"WebHDFS: {' '.join(text.rpartition('): ')[2].split())}"


def _item(relative: str, path: str, status: Mapping[str, Any]) -> Item:
    version = f"{status.get('modificationTime', '')}-{status.get('fileId', '')}"
    return Item(path=relative, size=int(status["length"]), version=version, ref=path, ranges=False)


def _client(namenode: str, secret: Mapping[str, str], context: Context, user: str | None) -> Any:
    import hdfs
    import requests

    session = requests.Session()
    headers = secret.get("HEADERS", "")
    if headers:
        try:
            session.headers.update(json.loads(headers))
        except ValueError:
            raise InvalidSettings(["HEADERS: expected a JSON object"]) from None
    if secret.get("TLS_CERT") and secret.get("TLS_KEY"):
        session.cert = (secret["TLS_CERT"], secret["TLS_KEY"])
    if secret.get("TLS_SKIP_VERIFY", "").lower() in ("1", "true"):
        session.verify = False
    elif secret.get("TLS_CA"):
        session.verify = secret["TLS_CA"]
    settings = context.settings
    options: dict[str, Any] = {
        "root": secret.get("HDFS_ROOTPATH") or None,
        "session": session,
        "timeout": (settings.connect_timeout_s, settings.stall_s),
    }
    if secret.get("KERBEROS_PRINCIPAL"):
        try:
            from hdfs.ext.kerberos import KerberosClient
        except ImportError:
            raise MissingExtra("Kerberos for HDFS", "requests-kerberos", "hdfs") from None
        os.environ.setdefault("KRB5_CLIENT_KTNAME", secret.get("KERBEROS_KEYTAB", ""))  # noqa: TID251
        return KerberosClient(namenode, principal=secret["KERBEROS_PRINCIPAL"], **options)
    proxy = secret.get("USER_PROXY") or None
    return hdfs.InsecureClient(namenode, user=user or proxy, **options)
