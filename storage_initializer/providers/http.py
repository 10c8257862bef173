"""`http(s)://`: one file, with ranges and resume where the server has them.

A first request for one byte tells the size, the validator (ETag or Last-Modified), whether ranges
work, and where redirects lead. Headers for a host come from KServe's `<host>-headers` variable
(JSON), userinfo in the URL becomes Basic authorization; both go to that host and port only, never
along a redirect to another one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from posixpath import basename
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

from storage_initializer.context import Context, refusal
from storage_initializer.digest import from_base64
from storage_initializer.errors import Changed, InvalidSettings, NotFound, Relocated, StorageError
from storage_initializer.items import PACKED_SUFFIXES, HttpSource, Item
from storage_initializer.uri import Uri
from storage_initializer.wire import Request, Tls

MAX_REDIRECTS = 10
_CODINGS = frozenset({"gzip", "x-gzip", "br", "deflate", "zstd", "compress"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def connect(uri: Uri, context: Context) -> "HttpFile":
    return HttpFile(uri, context)


class HttpFile(HttpSource):
    """One file behind a URL."""

    filtered = False

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._uri = uri
        self._context = context
        self._home = _server(uri.text)
        self._basic = Request.to(uri.text, where=uri.shown).headers
        self._headers: dict[str, dict[str, str]] = {}
        """By host: KServe's variable may exist for the one a redirect leads to, too."""
        self._headers_for(self._home[0])
        self._tls = Tls()
        self._url = uri.text.partition("#")[0]
        self._location: str | None = None
        self._if_range = ""

    def items(self) -> Iterator[Item]:
        status, headers = self._probe()
        size = _size(status, headers)
        ranges = status == 206 and size is not None
        etag = headers.get("etag", "")
        version = etag or headers.get("last-modified", "")
        strong = etag if not etag.startswith("W/") else ""
        self._if_range = strong or headers.get("last-modified", "")
        checks = {"sha256": self._uri.sha256} if self._uri.sha256 else {}
        name = _name(self._url, headers)
        if not name:
            raise NotFound(self.shown, "the URL does not name a file")
        coding = headers.get("content-encoding", "").strip().lower()
        if coding in _CODINGS and not name.lower().endswith(PACKED_SUFFIXES):
            raise StorageError(
                f"{self.shown}: the server sends it {coding}-compressed although asked for the "
                "plain bytes; switch that off there for this file"
            )
        yield Item(
            path=name,
            size=size,
            version=f"{version}-{size}" if version else "",
            checks=checks,
            validators=_validators(headers),
            ref=self._url,
            ranges=ranges,
        )

    def _probe(self) -> tuple[int, Mapping[str, str]]:
        """Follow redirects to the file and look at its first byte."""
        from storage_initializer.retry import Retry

        policy = Retry(self._context.control)
        while True:
            try:
                return self._probe_once()
            except StorageError as exc:
                policy.failed(exc)

    def _probe_once(self) -> tuple[int, Mapping[str, str]]:
        url = self._url
        for _ in range(MAX_REDIRECTS):
            request = self._to(url)
            request.headers["Range"] = "bytes=0-0"
            self._context.control.gate()
            response = self._context.client.send(request)
            if response.status in _REDIRECTS:
                url = self._redirect(url, response.headers.get("location", ""))
                response.done()
                continue
            if response.status in (200, 206, 416):
                response.done()
                self._location = url
                return response.status, response.headers
            body = response.read(1 << 20)
            raise refusal(self.shown, response.status, response.headers, body)
        raise StorageError(f"{self.shown}: more than {MAX_REDIRECTS} redirects")

    def _redirect(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
        if not location or scheme not in ("http", "https"):
            raise StorageError(f"{self.shown}: redirected to nowhere or to {scheme}://")
        if scheme == "http" and url.startswith("https:"):
            raise StorageError(f"{self.shown}: redirected from https to plain http; refused")
        return target

    def _to(self, url: str) -> Request:
        request = Request.to(url, where=self.shown, tls=self._tls)
        server = _server(url)
        if server == self._home:
            request.headers.update(self._basic)
        if server == self._home or server[0] != self._home[0]:  # not for its other ports
            request.headers.update(self._headers_for(server[0]))
        return request

    def _headers_for(self, host: str) -> dict[str, str]:
        if host not in self._headers:
            self._headers[host] = host_headers(self._context.environ, host)
        return self._headers[host]

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        request = self._to(self._location or self._url)
        if start or stop is not None:
            request.headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if self._if_range:
                request.headers["If-Range"] = self._if_range
        return request

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        return {**header_checks(headers), **item.checks}

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        if status in _REDIRECTS or (status in (401, 403, 404, 410) and self._moved()):
            self._location = None  # a signed address has expired: find the way again
            try:
                self._probe()
            except StorageError as exc:
                return exc
            return Relocated(self.shown, f"answered {status}; its address was renewed")
        if status in (412, 416):
            return Changed(self.shown)
        return refusal(self.shown, status, headers, body)

    def _moved(self) -> bool:
        return self._location is not None and self._location != self._url


def host_headers(environ: Mapping[str, str], host: str) -> dict[str, str]:
    """KServe's convention: `<host>-headers` holds a JSON object (or `Name: value` lines)."""
    text = environ.get(f"{host}-headers", "").strip()
    try:
        if text.startswith("{"):
            pairs = [(str(name), str(value)) for name, value in json.loads(text).items()]
        else:
            lines = (line.split(":", 1) for line in text.splitlines() if line.strip())
            pairs = [(name, value) for name, value in lines]
        headers = {name.strip(): value.strip() for name, value in pairs}
        if not all(
            re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and re.fullmatch(r"[ -~\t]*", value)
            for name, value in headers.items()
        ):
            raise ValueError
    except ValueError:
        problem = f"{host}-headers: expected a JSON object of header names and values"
        raise InvalidSettings([problem]) from None
    return headers


def _server(url: str) -> tuple[str, int]:
    """Host and port, the same for http and https on their usual ports (an upgrade keeps faith)."""
    parts = urlsplit(url)
    port = parts.port
    if port is None or (parts.scheme, port) == ("http", 80):
        port = 443
    return parts.hostname or "", port


def header_checks(headers: Mapping[str, str]) -> dict[str, str]:
    """Checksums of the whole body that an answer may carry (RFC 9530, RFC 3230, Content-MD5)."""
    found: dict[str, str] = {}
    for name in ("repr-digest", "digest"):
        for part in headers.get(name, "").split(","):
            algorithm, _, value = part.strip().partition("=")
            known = {"sha-256": "sha256", "md5": "md5", "sha": "sha1"}.get(algorithm.lower())
            if known and (digest := from_base64(value.strip(":"))):
                found[known] = digest
    if "content-range" not in headers and (digest := from_base64(headers.get("content-md5", ""))):
        found["md5"] = digest
    return found


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    for name in ("etag", "last-modified"):
        if headers.get(name):
            return {name: headers[name]}
    return {}


def _size(status: int, headers: Mapping[str, str]) -> int | None:
    if status == 200:
        text = headers.get("content-length", "")
    else:
        text = headers.get("content-range", "").rpartition("/")[2]
    return int(text) if text.isascii() and text.isdigit() else None


def _name(url: str, headers: Mapping[str, str]) -> str:
    """File name: last path component; else Content-Disposition; else a query value like a file."""
    parts = urlsplit(url)
    name = basename(unquote(parts.path).rstrip("/"))
    if "." in name:
        return name
    if given := _disposition(headers.get("content-disposition", "")):
        return given
    for _, value in parse_qsl(parts.query):
        if re.fullmatch(r"[\w.-]+\.(tar|tar\.gz|tgz|zip|mar|bin|onnx|pt|pth|joblib|pkl)", value):
            return value
    return name


def _disposition(text: str) -> str:
    """The file name a server gives (RFC 6266: the encoded form goes first), without directories."""
    if found := re.search(r"filename\*\s*=\s*([\w-]+)'[^']*'([^;\s]+)", text, re.IGNORECASE):
        try:
            name = unquote(found[2], found[1], "strict")
        except (LookupError, UnicodeError):
            name = ""
        if name:
            return basename(name.replace("\\", "/"))
    if found := re.search(r'filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', text, re.IGNORECASE):
        name = re.sub(r'\\(["\\])', r"\1", found[1]) if found[1] is not None else found[2]
        return basename(name.replace("\\", "/").strip())
    return ""


__all__ = ["HttpFile", "connect", "header_checks", "host_headers"]
