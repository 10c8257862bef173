"""The requests door: the session that sync hooks use to ask services other than the predictor.

    def preprocess(self, payload, context):
        user = context.session.get(f"http://features/users/{payload['user']}").json()

A hook may of course use any client it likes. This one shares its connections between all requests
of the process, sends the caller's request id, trace and authorization on, and waits no longer than
the caller does.
"""

import socket
from collections.abc import Callable
from functools import cache
from typing import Any

import requests
from requests.adapters import HTTPAdapter

CONNECTIONS = 100
"""Kept for one host."""


class _NoDelayAdapter(HTTPAdapter):
    """urllib3 drops TCP_NODELAY when it talks through a proxy, and a request leaves in two segments
    (head, body): with Nagle and delayed ACKs that is 40 ms a call."""

    def proxy_manager_for(self, proxy: Any, **proxy_kwargs: Any) -> Any:
        proxy_kwargs["socket_options"] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        return super().proxy_manager_for(proxy, **proxy_kwargs)


@cache
def _adapter() -> HTTPAdapter:
    return _NoDelayAdapter(pool_connections=32, pool_maxsize=CONNECTIONS)


class Session(requests.Session):
    """A session for one request of ours; what it costs is made once a process."""

    def __init__(self, headers: dict[str, str], remaining_s: Callable[[], float]) -> None:
        """`headers` go with every request; `remaining_s` is asked for its time limit."""
        super().__init__()
        self.headers.update(headers)
        self._remaining_s = remaining_s
        self.mount("http://", _adapter())
        self.mount("https://", _adapter())

    def request(self, method: Any, url: Any, *arguments: Any, **options: Any) -> requests.Response:
        """As requests has it, with a time limit when the caller of ours has one."""
        left = self._remaining_s()
        if left != float("inf") and options.get("timeout") is None:
            options["timeout"] = max(left, 0.001)
        return super().request(method, url, *arguments, **options)
