"""A predictor that does as it is told, on a real socket, for tests of what can go wrong."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from functions.model import Call
from functions.predictor import Predictor
from functions.settings import Settings

V2_ANSWER = orjson.dumps(
    {
        "id": "7", "model_name": "m",
        "outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}],
    }
)  # fmt: skip


class Request:
    """One request as it arrived."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = line.split(" ", 2)
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (field.partition(":") for field in fields if field)
        }
        self.head = head
        self.body = body


Script = Callable[[Request], Any]
"""Request -> bytes to send (then keep the connection), or None to close it; may be async."""


class Scripted:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self.at_once = self.peak = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line[15:])
                request = Request(head, await reader.readexactly(length))
                self.requests.append(request)
                self.at_once += 1
                self.peak = max(self.peak, self.at_once)
                answer = self.script(request)
                if isinstance(answer, Awaitable):
                    answer = await answer
                self.at_once -= 1
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def scripted(
    script: Script, context: ssl.SSLContext | None = None
) -> AsyncIterator[Scripted]:
    server = Scripted(script)
    await server.start(context=context)
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def raw(answer: bytes, *, greeting: bytes = b"") -> AsyncIterator[str]:
    """A server that answers whatever it gets with these bytes, and closes. Its `host:port`.

    With a greeting, that goes out first and the answer to what comes then.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(65536)
            if greeting:
                writer.write(greeting)
                await reader.readuntil(b"grpc-timeout")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def says(body: bytes | Any, status: int = 200, **fields: str) -> bytes:
    """An HTTP answer; anything but bytes becomes JSON."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    kind = fields.pop("content_type", "application/json")
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def predictor(host: str, **settings: Any) -> Predictor:
    """Of model `m`; it gives up at once unless told otherwise."""
    chosen: dict[str, Any] = {"predictor_wake_s": 0.0, "predictor_retries": 0, **settings}
    return Predictor("m", Settings(predictor_host=host, **chosen))


async def ask(
    to: Predictor | str,
    payload: Any,
    headers: dict[str, str] | None = None,
    deadline: float = 0.0,
    **settings: Any,
) -> Any:
    """One call through the hop."""
    hop = predictor(to, **settings) if isinstance(to, str) else to
    call = Call(dict(headers or {}))
    call.deadline = deadline or Predictor.deadline_of(call.headers)
    try:
        return await hop(payload, call)
    finally:
        if isinstance(to, str):
            hop.close()
            await asyncio.sleep(0)
