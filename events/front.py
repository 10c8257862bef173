"""Who answers a request: the hot paths on the event loop or on threads, everything else in Flask.

`AdapterFront` reads, normalises and forwards notifications without leaving the loop. `SinkFront`
gives each event a thread, because what a sink does (S3, SQLite, the graph) blocks. Both hand
pages, health and odd methods to the Flask app, which has the same routes and is what the tests
talk to as well.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from functions.wire import container
from functions.wire import headers as wire_headers
from functions.wire.http1 import Exchange
from functions.wsgi import WsgiBridge

from . import codec
from .adapter import Adapter, Answer

logger = logging.getLogger(__name__)

JSON = b"application/json"
_READY = container.READY_PATH.encode()


class AdapterFront:
    """The adapter's handler for `functions.wire.http1`."""

    def __init__(self, adapter: Adapter, make_app: Callable[[], Any], most: int) -> None:
        """`most`: notifications under way at once; each holds its body."""
        self._adapter = adapter
        self._most = most
        self._pages = WsgiBridge(make_app)
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.method == b"GET" and head.target == _READY:
            exchange.respond(200, b"ok", b"text/plain")
            return
        if head.method != b"POST":
            self._pages(exchange, None)
            return
        if len(self._tasks) >= self._most:
            _respond(exchange, self._adapter.busy())
            return
        task = asyncio.get_running_loop().create_task(self._take(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def finish(self, seconds: float) -> None:
        """Nothing goes on once every request is answered."""

    async def _take(self, exchange: Exchange) -> None:
        fields = codec.lower_wire(exchange.head.headers)
        authorization, token = "", ""
        if self._adapter.is_guarded:
            authorization = fields.get("authorization", "")
            query = exchange.head.target.partition(b"?")[2].decode("latin-1")
            token = parse_qs(query).get("access_token", [""])[0]
        answer = self._adapter.refusal(authorization, token)
        try:
            if answer is None:
                answer = await self._adapter.handle_async(fields, exchange.body)
        except Exception:  # one request is owned here: it must be answered
            logger.exception("a notification failed")
            answer = Answer(status=500, error="internal error")
        _respond(exchange, answer)


class SinkFront:
    """The sink's handler: POST / on a thread, everything else in Flask."""

    def __init__(
        self,
        take: Callable[[codec.Fields, bytes], tuple[int, dict[str, str], bytes]],
        make_app: Callable[[], Any],
        threads: int,
        finish: Callable[[float], None],
    ) -> None:
        self._take = take
        self.finish = finish
        """Called when every request has been answered: work that goes on may take so many
        seconds."""
        self._pages = WsgiBridge(make_app)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="event")

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.method == b"GET" and head.target == _READY:
            exchange.respond(200, b"ok", b"text/plain")
        elif head.method == b"POST" and head.target == b"/":
            loop = asyncio.get_running_loop()
            self._pool.submit(self._run, exchange, loop)
        else:
            self._pages(exchange, None)

    def _run(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        try:
            status, headers, body = self._take(
                codec.lower_wire(exchange.head.headers), exchange.body
            )
        except Exception:  # one request is owned here: it must be answered
            logger.exception("an event failed")
            status, headers, body = 500, {}, b'{"error":"internal error"}'
        content_type = headers.pop("content-type", "application/json" if body else "")
        extra = wire_headers.join(
            [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()]
        )
        try:
            loop.call_soon_threadsafe(
                exchange.respond, status, body, content_type.encode("latin-1"), extra
            )
        except RuntimeError:  # the loop is closed: the process is on its way out
            return


def _respond(exchange: Exchange, answer: Answer) -> None:
    if not answer.error and not answer.headers:
        exchange.respond(answer.status)
        return
    extra = wire_headers.join(
        [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers.items()]
    )
    exchange.respond(answer.status, answer.body(), JSON if answer.error else b"", extra)
