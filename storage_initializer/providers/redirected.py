"""Files behind redirects: one address a file, found once, used for all its ranges, renewed when
it expires. For hubs and registries that answer with a signed address elsewhere (hf, oci).

Credentials go to the origin they are meant for and nowhere else.
"""

import threading
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from storage_initializer.context import refusal
from storage_initializer.errors import Changed, Relocated, StorageError
from storage_initializer.items import HttpSource, Item
from storage_initializer.wire import Request, Tls

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Located(HttpSource):
    """Base of sources whose `item.ref` is a URL at `origin`. Subclasses give `headers`."""

    shown: str
    filtered = True

    def __init__(self, shown: str, tls: Tls) -> None:
        self.shown = shown
        self._tls = tls
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()

    def headers(self, url: str) -> dict[str, str]:
        """Authorization and the like for `url`; asked only for the original origin."""
        return {}

    def to(self, url: str, where: str = "") -> Request:
        request = Request.to(url, where=where or self.shown, tls=self._tls)
        request.headers.update(self.headers(url))
        return request

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        place = self._places.get(item.ref, item.ref)
        where = f"{self.shown} ({item.path})"
        if urlsplit(place)[:2] == urlsplit(item.ref)[:2]:
            request = self.to(place, where)
        else:
            request = Request.to(place, where=where, tls=self._tls)
        if start or stop is not None:
            request.headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        return request

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        return item.checks

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        where = f"{self.shown} ({item.path})" if item else self.shown
        if item is not None and status in REDIRECTS:
            base = self._places.get(item.ref, item.ref)
            target = urljoin(base, headers.get("location", ""))
            old, new = urlsplit(base).scheme, urlsplit(target).scheme
            if new not in ("http", "https") or (old == "https" and new == "http"):
                return StorageError(f"{where}: redirected to {new or 'nowhere'}://; refused")
            with self._lock:
                self._places[item.ref] = target
            return Relocated(where, "redirected")
        if item is not None and status in (400, 401, 403, 404, 410):
            with self._lock:
                moved = self._places.pop(item.ref, None)
            if moved:
                return Relocated(where, f"its address has expired ({status})")
        if status in (412, 416):
            return Changed(where)
        return self.refused(where, status, headers, body)

    def refused(
        self, where: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        return refusal(where, status, headers, body)
