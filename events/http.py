"""Outgoing HTTP of this unit: the only module that imports urllib3.

Pooled keep-alive connections, one request one attempt: retrying belongs to the broker, which knows
how often it has tried already. Honours a forward proxy and its exceptions. Thread-safe.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, TimeoutError

from .errors import DeliveryFailed

NO_DELAY = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
"""urllib3 leaves Nagle's algorithm on towards proxies; head and body are two segments, so every
request would wait 40 ms for the other side's delayed acknowledgement."""

MAX_ANSWER_BYTES = 64 << 20
"""An answer longer than this is an error, not a reason to run out of memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """The standard proxy variables, as `settings` read them."""

    http: str | None = None
    https: str | None = None
    no: str = field(default="")

    def for_url(self, url: str) -> str | None:
        """The proxy to use for a URL; None: connect directly."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or self._bypasses(parts.hostname or ""):
            return None
        return proxy

    def _bypasses(self, host: str) -> bool:
        for item in self.no.split(","):
            name = item.strip().lower().lstrip("*").lstrip(".").partition(":")[0]
            if item.strip() == "*" or (name and (host == name or host.endswith("." + name))):
                return True
        return False


class Client:
    """A pool of connections to whatever is called."""

    def __init__(self, proxies: ProxySettings | None = None, *, connections: int = 32) -> None:
        self._proxies = proxies or ProxySettings()
        self._connections = connections
        self._direct = urllib3.PoolManager(maxsize=connections, retries=False)
        self._proxied: dict[str, urllib3.ProxyManager] = {}

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        """POST and read the whole answer, whatever its status; redirects are not followed.

        Raises `DeliveryFailed` when there is no answer (refused, reset, timed out, too large).
        """
        return self._request("POST", url, headers, body, timeout_s)

    def get(self, url: str, timeout_s: float) -> Answer:
        """GET and read the whole answer; same failures as `post`."""
        return self._request("GET", url, {}, None, timeout_s)

    def close(self) -> None:
        self._direct.clear()
        for pool in self._proxied.values():
            pool.clear()

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> Answer:
        pool = self._pool(url)
        try:
            response = pool.request(
                method,
                url,
                body=body,
                headers=dict(headers),
                timeout=urllib3.Timeout(connect=min(10.0, timeout_s), read=timeout_s),
                redirect=False,
                preload_content=False,
                decode_content=True,
            )
            try:
                data = response.read(MAX_ANSWER_BYTES + 1)
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except TimeoutError as error:
            raise DeliveryFailed(f"{_where(url)} did not answer within {timeout_s:g} s") from error
        except (HTTPError, MaxRetryError, OSError) as error:
            raise DeliveryFailed(f"{_where(url)} cannot be reached: {error}") from error
        if len(data) > MAX_ANSWER_BYTES:
            response.close()
            raise DeliveryFailed(f"{_where(url)} answered more than {MAX_ANSWER_BYTES} bytes")
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, lowered, data)

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxies.for_url(url)
        if proxy is None:
            return self._direct
        if proxy not in self._proxied:
            self._proxied[proxy] = urllib3.ProxyManager(
                proxy, maxsize=self._connections, retries=False, socket_options=NO_DELAY
            )
        return self._proxied[proxy]


def _where(url: str) -> str:
    """A URL fit for logs: no query (it may carry a token), no credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
