"""Requests that the engine answers itself: their whole body, up to a limit."""

from collections.abc import Callable

from .exchange import Exchange


def collect_body(exchange: Exchange, limit: int, then: Callable[[bytes], None]) -> None:
    """Read a request's whole body for one of the gateway's own handlers; 413 beyond `limit`
    bytes."""
    exchange.attach(_Collector(exchange, limit, then))


class _Collector:
    """An Upstream that keeps the body."""

    def __init__(self, exchange: Exchange, limit: int, then: Callable[[bytes], None]) -> None:
        self._exchange = exchange
        self._limit = limit
        self._then = then
        self._chunks: list[bytes] = []
        self._size = 0

    def send_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._chunks.clear()
            self._exchange.refuse(413, f"body larger than {self._limit} bytes")
        else:
            self._chunks.append(data)

    def send_end(self) -> None:
        if not self._exchange.done:
            self._then(b"".join(self._chunks))

    def cancel(self) -> None:
        self._chunks.clear()

    def pause_response(self) -> None:
        """Answers of the gateway itself are small."""

    def resume_response(self) -> None:
        """See `pause_response`."""
