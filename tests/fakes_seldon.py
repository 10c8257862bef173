"""User classes behind the real server and its Seldon protocol, many of them in one process."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from functions.engine import Engine
from functions.front import Front
from functions.repository import Repository
from functions.settings import Settings
from functions.wire.http1 import Limits, Server
from functions.wsgi import WsgiBridge

ENVIRON = {
    "PREDICTIVE_UNIT_ID": "clf",
    "PREDICTIVE_UNIT_IMAGE": "img/clf:1.0",
    "PREDICTOR_ID": "p",
    "SELDON_DEPLOYMENT_ID": "dep",
    "PREDICTOR_LABELS": '{"version":"v1"}',
}
"""The environment that the observed cases were taken in."""


class Wrappers:
    """Servers by class reference (`file.py:Class`), started when first asked."""

    def __init__(self, environ: Mapping[str, str] = ENVIRON) -> None:
        self._environ = dict(environ)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: dict[tuple[str, ...], tuple[Repository, Server]] = {}

    def _started(self, arguments: tuple[str, ...]) -> Server:
        found = self._running.get(arguments)
        if found is None:
            future = asyncio.run_coroutine_threadsafe(self._start(arguments), self._loop)
            found = self._running[arguments] = future.result(60)
        return found[1]

    async def _start(self, arguments: tuple[str, ...]) -> tuple[Repository, Server]:
        from functions.app import create_app

        settings = Settings.from_env(self._environ, [*arguments, "--protocol", "seldon"])
        repository = Repository(settings)
        await repository.load_all()
        cold = WsgiBridge(lambda: create_app(repository, self._loop))
        server = Server(Front(repository, Engine(repository), cold), Limits(max_body_bytes=1 << 24))
        await server.listen("127.0.0.1", 0)
        return repository, server

    def request(
        self,
        reference: str,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        arguments: tuple[str, ...] = (),
    ) -> tuple[int, Any]:
        """(status, JSON or text)."""
        server = self._started(("--model-class", reference, *arguments) if reference else arguments)
        connection = http.client.HTTPConnection("127.0.0.1", server.ports[0], timeout=30)
        try:
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, content.decode()

    def close(self) -> None:
        for repository, server in self._running.values():
            future = asyncio.run_coroutine_threadsafe(server.drain(1), self._loop)
            future.result(10)
            self._loop.call_soon_threadsafe(repository.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def wrappers(environ: Mapping[str, str] = ENVIRON) -> Iterator[Wrappers]:
    running = Wrappers(environ)
    try:
        yield running
    finally:
        running.close()
