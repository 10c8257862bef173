"""`gs://bucket/object` and `gs://bucket/prefix` over Google's JSON API.

Tokens come from google-auth (service account file, workload identity, metadata server); without
any credentials requests are anonymous, as KServe does. Every object is verified by MD5 or CRC32C
as its metadata tells. `STORAGE_EMULATOR_HOST` as in Google's own clients.
"""

import base64
import threading
import time
from collections.abc import Iterator, Mapping
from posixpath import basename
from typing import Any
from urllib.parse import quote, urlencode

from storage_initializer.context import Context, refusal
from storage_initializer.errors import (
    AccessDenied,
    Changed,
    MissingExtra,
    NotFound,
    StorageError,
    TransferFailed,
)
from storage_initializer.items import PACKED_SUFFIXES, HttpSource, Item
from storage_initializer.uri import Uri
from storage_initializer.wire import Request, Tls

DEFAULT_ENDPOINT = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
RENEW_BEFORE_S = 120.0


def connect(uri: Uri, context: Context) -> "GcsSource":
    return GcsSource(uri, context)


class GcsSource(HttpSource):
    """One object or one `/`-bounded prefix of a bucket."""

    filtered = True

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._context = context
        self._bucket, self._name = uri.authority, uri.path
        self._sha256 = uri.sha256
        emulator = context.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self._endpoint = (emulator or DEFAULT_ENDPOINT).rstrip("/")
        named = context.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        self._tokens = None if emulator and not named else _tokens(context)
        self._tls = Tls()
        self._gzipped: set[str] = set()
        """Addresses of the objects that are stored with `Content-Encoding: gzip`."""

    def items(self) -> Iterator[Item]:
        name = self._name
        if name and not name.endswith("/"):
            status, _, _ = (answer := self._ask(self._object_url(name), ok=(200, 403, 404)))
            if status == 200:
                self.filtered = False
                item = self._item(_json(answer[2], self.shown), basename(name))
                checks = {**item.checks, **({"sha256": self._sha256} if self._sha256 else {})}
                yield item.but(checks=checks)
                return
        self.filtered = True
        prefix = name if not name or name.endswith("/") else f"{name}/"
        prefix = "" if prefix == "/" else prefix
        found = False
        for entry in self._list(prefix):
            relative = str(entry["name"]).removeprefix(prefix).lstrip("/")
            if relative:
                found = True
                yield self._item(entry, relative)
        if not found:
            what = f"no object {name!r} and nothing below {prefix!r}" if name else "an empty bucket"
            raise NotFound(self.shown, what)

    def _list(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        fields = "nextPageToken,items(name,size,md5Hash,crc32c,generation,etag,contentEncoding)"
        token = ""
        while True:
            query = {"prefix": prefix, "maxResults": "1000", "fields": fields}
            if token:
                query["pageToken"] = token
            url = f"{self._endpoint}/storage/v1/b/{quote(self._bucket)}/o?{urlencode(query)}"
            page = _json(self._ask(url)[2], self.shown)
            yield from page.get("items", [])
            token = str(page.get("nextPageToken") or "")
            if not token:
                return

    def _item(self, entry: Mapping[str, Any], relative: str) -> Item:
        checks = {}
        for field, algorithm in (("md5Hash", "md5"), ("crc32c", "crc32c")):
            if entry.get(field):
                checks[algorithm] = base64.b64decode(str(entry[field])).hex()
        name, generation = str(entry["name"]), str(entry.get("generation", ""))
        pinned = f"&generation={generation}" if generation else ""
        ref = f"{self._download_url(name)}?alt=media{pinned}"
        gzipped = str(entry.get("contentEncoding", "")).strip().lower() in ("gzip", "x-gzip")
        if gzipped:
            self._gzipped.add(ref)
        return Item(
            path=relative,
            size=int(entry["size"]),
            version=generation or str(entry.get("etag", "")),
            checks=checks,
            ref=ref,
            gzipped=gzipped and not relative.lower().endswith(PACKED_SUFFIXES),
        )

    def _object_url(self, name: str) -> str:
        return f"{self._endpoint}/storage/v1/b/{quote(self._bucket)}/o/{quote(name, safe='')}"

    def _download_url(self, name: str) -> str:
        return (
            f"{self._endpoint}/download/storage/v1/b/{quote(self._bucket)}/o/{quote(name, safe='')}"
        )

    def _to(self, url: str) -> Request:
        request = Request.to(url, where=self.shown, tls=self._tls)
        if self._tokens is not None:
            token = self._tokens.current()
            if token:
                request.headers["Authorization"] = f"Bearer {token}"
        return request

    def _ask(self, url: str, ok: tuple[int, ...] = (200,)) -> tuple[int, Mapping[str, str], bytes]:
        return self._context.ask(lambda: self._to(url), ok=ok, explain=self._refused)

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        request = self._to(item.ref)
        request.where = f"gs://{self._bucket}/{item.path}"
        if item.ref in self._gzipped:
            # Else it would be unpacked on the way: no ranges, and nothing to hold a checksum to.
            request.headers["Accept-Encoding"] = "gzip"
        if start or stop is not None:
            request.headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        return request

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        return item.checks

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        if item is not None and status in (404, 412, 416):
            return Changed(f"{self.shown} ({item.path})")  # this generation is gone
        return self._refused(status, headers, body)

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
        if status in (401, 403):
            advice = (
                "the account needs storage.objects.get and storage.objects.list"
                if self._tokens is not None and self._tokens.current()
                else "no credentials were found: mount a service account key and set "
                "GOOGLE_APPLICATION_CREDENTIALS, or use workload identity"
            )
            return AccessDenied(self.shown, str(status), advice)
        if status == 404:
            return NotFound(self.shown, f"bucket {self._bucket!r} or the object does not exist")
        return refusal(self.shown, status, headers, body)


class Tokens:
    """An access token that renews itself. `current` may be called from any thread."""

    def __init__(self, credentials: Any, transport: Any) -> None:
        self._credentials = credentials
        self._transport = transport
        self._lock = threading.Lock()
        self._good_until = 0.0

    def current(self) -> str:
        import google.auth.exceptions

        with self._lock:
            if time.time() >= self._good_until:
                try:
                    self._credentials.refresh(self._transport)
                except google.auth.exceptions.TransportError as exc:
                    raise TransferFailed("gs", f"the token cannot be fetched: {exc}") from exc
                except google.auth.exceptions.GoogleAuthError as exc:
                    advice = "check GOOGLE_APPLICATION_CREDENTIALS or the workload identity"
                    raise AccessDenied("gs", str(exc), advice) from exc
                expiry = self._credentials.expiry
                lifetime = expiry.replace(tzinfo=None) if expiry else None
                if lifetime is None:
                    self._good_until = time.time() + 600
                else:
                    import datetime

                    stamp = lifetime.replace(tzinfo=datetime.UTC).timestamp()
                    self._good_until = stamp - RENEW_BEFORE_S
            return str(self._credentials.token or "")


def _tokens(context: Context) -> Tokens | None:
    """Application default credentials; None means anonymous."""
    env = context.environ
    named = env.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError:
        if named:
            raise MissingExtra("a Google service account", "google-auth", "gcs") from None
        return None
    try:
        if named:  # not the process's environment: a library's settings are their own
            load: Any = google.auth.load_credentials_from_file
            credentials, _ = load(named, scopes=[SCOPE])
        else:
            credentials, _ = google.auth.default(scopes=[SCOPE])
    except google.auth.exceptions.DefaultCredentialsError as exc:
        if named:
            advice = "GOOGLE_APPLICATION_CREDENTIALS must name a readable key file"
            raise AccessDenied("gs", str(exc), advice) from exc
        return None
    return Tokens(credentials, google.auth.transport.requests.Request())


def _json(body: bytes, where: str) -> dict[str, Any]:
    import json

    try:
        data = json.loads(body)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise StorageError(f"{where}: the answer is not what Google's API promises")
    return data


__all__ = ["GcsSource", "connect"]
