"""Azure Blob Storage over its REST API.

`https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH[?SAS]`, `azure://ACCOUNT/CONTAINER/PATH`,
`abfs[s]://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH` and `wasb[s]://…blob…`. An exact blob wins,
otherwise PATH is a `/`-bounded directory. Verified by Content-MD5 where the blob has one.
"""

import functools
from collections.abc import Iterator, Mapping
from posixpath import basename
from urllib.parse import quote, unquote, urlencode, urlsplit

from storage_initializer import digest, retry
from storage_initializer.context import Context, refusal
from storage_initializer.errors import (
    AccessDenied,
    Changed,
    InvalidUri,
    NotFound,
    StorageError,
    TransferFailed,
)
from storage_initializer.items import HttpSource, Item
from storage_initializer.providers.azure_auth import Authorizer, connection_string
from storage_initializer.records import Record
from storage_initializer.uri import Uri
from storage_initializer.wire import Request


def connect(uri: Uri, context: Context) -> "BlobSource":
    return BlobSource(uri, context)


class Place(Record):
    """Where a URI points to."""

    endpoint: str
    """Base URL of the account's blob service, without trailing slash."""
    account: str
    container: str
    path: str
    """Unquoted, no leading slash."""
    sas: str


def locate(uri: Uri, environ: Mapping[str, str]) -> Place:
    """Resolve any of the URI forms; a connection string may name another endpoint."""
    parts = urlsplit(uri.text)
    if uri.scheme in ("abfs", "abfss", "wasb", "wasbs"):
        container, at, host = parts.netloc.rpartition("@")
        if not at:
            raise InvalidUri(uri.shown, f"write {uri.scheme}://CONTAINER@ACCOUNT.…/PATH")
        account, path = host.partition(".")[0], parts.path.lstrip("/")
        base = f"https://{host.replace('.dfs.', '.blob.', 1)}" if "." in host else ""
    else:
        host = parts.hostname or ""
        account = host.partition(".")[0]
        container, _, path = parts.path.lstrip("/").partition("/")
        base = f"https://{parts.netloc}" if "." in host else ""
    known = connection_string(environ)
    if known.get("BlobEndpoint") and known.get("AccountName", account) == account:
        base = known["BlobEndpoint"].rstrip("/")
    if not container:
        raise InvalidUri(uri.shown, "names no container")
    sas = parts.query if "sig=" in parts.query else ""
    base = base or f"https://{account}.blob.core.windows.net"
    return Place(base, account, unquote(container), unquote(path), sas)


class BlobSource(HttpSource):
    """One blob or one directory of a container."""

    filtered = True

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._context = context
        self._sha256 = uri.sha256
        self._place = locate(uri, context.environ)
        self._authorizer = Authorizer(self._place.account, self._place.sas, context)

    def items(self) -> Iterator[Item]:
        path = self._place.path
        if path and not path.endswith("/"):
            status, headers, _ = self._context.ask(
                lambda: self._to("HEAD", path), ok=(200, 403, 404), explain=self._explain
            )
            if status == 200 and headers.get("x-ms-meta-hdi_isfolder", "").lower() != "true":
                self.filtered = False
                size = headers.get("content-length", "")
                checks = _md5(headers.get("content-md5", ""))
                yield Item(
                    path=basename(path),
                    size=int(size) if size.isdigit() else None,
                    version=headers.get("etag", ""),
                    checks=checks | ({"sha256": self._sha256} if self._sha256 else {}),
                    ref=path,
                )
                return
        self.filtered = True
        prefix = path if not path or path.endswith("/") else path + "/"
        found = False
        for blob in self._list(prefix):
            relative = blob.name.removeprefix(prefix).lstrip("/")
            if relative:
                found = True
                yield Item(
                    path=relative,
                    size=blob.size,
                    version=blob.etag,
                    checks=_md5(blob.md5),
                    ref=blob.name,
                )
        if not found:
            what = (
                f"no blob {path!r} and nothing below {prefix!r}" if path else "an empty container"
            )
            raise NotFound(self.shown, what)

    def _list(self, prefix: str) -> Iterator["Blob"]:
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "maxresults": "5000"}
            query["include"] = "metadata"  # old clients mark their directories there
            if prefix:
                query["prefix"] = prefix
            if marker:
                query["marker"] = marker
            text = urlencode(query, quote_via=quote)
            make = functools.partial(self._to, "GET", "", text)
            _, _, body = self._context.ask(make, explain=self._explain)
            blobs, marker = parse_page(body, self.shown)
            yield from (blob for blob in blobs if not blob.folder)
            if not marker:
                return

    def _to(
        self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Request:
        place = self._place
        url = f"{place.endpoint}/{quote(place.container)}" + (f"/{quote(path)}" if path else "")
        request = Request.to(url + (f"?{query}" if query else ""), where=self.shown)
        if path:
            request.where = f"{self.shown} ({path})"
        request.method = method
        request.headers.update(headers or {})
        return self._authorizer.sign(request)

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        headers = {"If-Match": _quoted(item.version)} if item.version else {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        return self._to("GET", item.ref, "", headers)

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        return item.checks

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        where = f"{self.shown} ({item.path})" if item else self.shown
        code = headers.get("x-ms-error-code", "")
        said = f"{status} {code}".strip()
        if code == "ServerBusy" or status in retry.TRANSIENT:
            return refusal(where, 503 if code == "ServerBusy" else status, headers, b"")
        if status in (412, 416):
            return Changed(where)
        if status in (401, 403) or code == "PublicAccessNotPermitted":
            return AccessDenied(where, said, self._authorizer.advice)
        if code == "BlobArchived":
            return AccessDenied(where, said, "rehydrate the blob from the archive tier first")
        if status == 404:
            return NotFound(where, said)
        return StorageError(f"{where}: unexpected answer {said}")

    def _explain(self, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
        return self.explain(None, status, headers, body)


class Blob(Record, frozen=False):
    name: str = ""
    size: int = 0
    etag: str = ""
    md5: str = ""
    folder: bool = False
    """A directory entry of a hierarchical namespace."""


class _Reader:
    def __init__(self) -> None:
        self.blobs: list[Blob] = []
        self.marker = ""
        self.text: list[str] = []


def parse_page(body: bytes, where: str) -> tuple[list[Blob], str]:
    """One page of List Blobs: its blobs and the marker of the next page."""
    from xml.parsers import expat

    state = _Reader()

    def start(name: str, _: object) -> None:
        state.text.clear()
        if name == "Blob":
            state.blobs.append(Blob())

    def end(name: str) -> None:
        value = "".join(state.text)
        state.text.clear()
        if name == "NextMarker":
            state.marker = value
        elif state.blobs:
            blob = state.blobs[-1]
            if name == "Name":
                blob.name = value
            elif name == "Content-Length":
                blob.size = int(value)
            elif name == "Etag":
                blob.etag = value
            elif name == "Content-MD5":
                blob.md5 = value
            elif (name == "ResourceType" and value == "directory") or (
                name.lower() == "hdi_isfolder" and value.lower() == "true"
            ):
                blob.folder = True

    def refuse(*_: object) -> None:
        raise TransferFailed(where, "the listing has a document type declaration")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = state.text.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError) as exc:
        raise TransferFailed(where, f"the listing cannot be parsed: {exc}") from exc
    return state.blobs, state.marker


def _md5(text: str) -> dict[str, str]:
    found = digest.from_base64(text)
    return {"md5": found} if found else {}


def _quoted(etag: str) -> str:
    return etag if etag.startswith('"') else f'"{etag}"'
