"""Azure Files: `https://ACCOUNT.file.core.windows.net/SHARE/PATH[?SAS]`, a directory tree."""

import functools
from collections.abc import Iterator, Mapping
from posixpath import basename
from urllib.parse import quote, unquote, urlencode, urlsplit

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

MAX_DEPTH = 64


def connect(uri: Uri, context: Context) -> "ShareSource":
    return ShareSource(uri, context)


class ShareSource(HttpSource):
    """One file or one directory of a share."""

    filtered = True

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._context = context
        parts = urlsplit(uri.text)
        known = connection_string(context.environ)
        self._endpoint = known.get("FileEndpoint", "").rstrip("/") or f"https://{parts.netloc}"
        account = (parts.hostname or "").partition(".")[0]
        share, _, path = parts.path.lstrip("/").partition("/")
        if not share:
            raise InvalidUri(uri.shown, "names no share")
        self._share, self._path = unquote(share), unquote(path).rstrip("/")
        sas = parts.query if "sig=" in parts.query else ""
        self._authorizer = Authorizer(account, sas, context)

    def items(self) -> Iterator[Item]:
        if self._path:
            status, headers, _ = self._context.ask(
                lambda: self._to("HEAD", self._path), ok=(200, 403, 404), explain=self._explain
            )
            if status == 200 and headers.get("x-ms-type", "File") == "File":
                self.filtered = False
                size = int(headers.get("content-length", "0"))
                version = headers.get("etag", "")
                yield self._item(basename(self._path), self._path, size, version)
                return
        self.filtered = True
        found = False
        for item in self._walk(self._path, "", 0):
            found = True
            yield item
        if not found:
            raise NotFound(self.shown, "no such file, or an empty directory")

    def _walk(self, directory: str, prefix: str, depth: int) -> Iterator[Item]:
        if depth > MAX_DEPTH:
            raise StorageError(f"{self.shown}: directories deeper than {MAX_DEPTH}")
        marker = ""
        while True:
            query = {"restype": "directory", "comp": "list", "include": "ETag"}
            if marker:
                query["marker"] = marker
            text = urlencode(query)
            make = functools.partial(self._to, "GET", directory, text)
            _, _, body = self._context.ask(make, explain=self._explain)
            first = not marker
            entries, marker = parse_page(body, self.shown)
            if first and prefix and not entries and not marker:
                yield Item(path=prefix, size=0)
            for entry in entries:
                path = f"{directory}/{entry.name}".lstrip("/")
                if entry.directory:
                    yield from self._walk(path, f"{prefix}{entry.name}/", depth + 1)
                else:
                    yield self._item(prefix + entry.name, path, entry.size, entry.etag)
            if not marker:
                return

    def _item(self, relative: str, path: str, size: int, version: str) -> Item:
        return Item(path=relative, size=size, version=version, ref=path)

    def _to(self, method: str, path: str, query: str = "") -> Request:
        url = f"{self._endpoint}/{quote(self._share)}" + (f"/{quote(path)}" if path else "")
        request = Request.to(url + (f"?{query}" if query else ""), where=self.shown)
        request.method = method
        return self._authorizer.sign(request)

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        url = f"{self._endpoint}/{quote(self._share)}/{quote(item.ref)}"
        request = Request.to(url, where=f"{self.shown} ({item.path})")
        if start or stop is not None:
            request.headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        return self._authorizer.sign(request)

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        return item.checks

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        where = f"{self.shown} ({item.path})" if item else self.shown
        if status in (401, 403):
            return AccessDenied(where, str(status), self._authorizer.advice)
        if status == 416:
            return Changed(where)
        return refusal(where, status, headers, b"")

    def _explain(self, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
        return self.explain(None, status, headers, body)


class Entry(Record, frozen=False):
    name: str = ""
    size: int = 0
    etag: str = ""
    directory: bool = False


def parse_page(body: bytes, where: str) -> tuple[list[Entry], str]:
    """One page of List Directories and Files."""
    from xml.parsers import expat

    entries: list[Entry] = []
    text: list[str] = []
    marker: list[str] = [""]

    def start(name: str, _: object) -> None:
        text.clear()
        if name in ("File", "Directory"):
            entries.append(Entry(directory=name == "Directory"))

    def end(name: str) -> None:
        value = "".join(text)
        text.clear()
        if name == "NextMarker":
            marker[0] = value
        elif entries and name == "Name":
            entries[-1].name = value
        elif entries and name == "Etag":
            entries[-1].etag = value
        elif entries and name == "Content-Length":
            entries[-1].size = int(value)

    def refuse(*_: object) -> None:
        raise TransferFailed(where, "the listing has a document type declaration")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError) as exc:
        raise TransferFailed(where, f"the listing cannot be parsed: {exc}") from exc
    return entries, marker[0]
