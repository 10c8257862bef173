"""Whether the nodes in the router's own pod are ready: asked again and again, without their
traffic.

Only nodes that the compiler gave a `health` are asked (spec/seldon 2.4): they start with the router
and cannot sleep. Services of their own are never asked, it would wake them. Every check has a time
limit, and every connection is closed.
"""

import asyncio
import contextlib
import logging
from typing import Final

from router_fn.seldon.graph import Deployment, Unit
from router_fn.urls import Url, parse_url

logger = logging.getLogger(__name__)

FIRST_S: Final = 0.05
EVERY_S: Final = 1.0
"""How often nodes are asked: quickly until all are ready, then to see one that stops being so."""
TIMEOUT_S: Final = 2.0


class Readiness:
    """`ready` is what the last round found; with no node to ask it is always true."""

    def __init__(self, deployment: Deployment) -> None:
        units = {
            unit.service_url: unit
            for predictor in deployment.predictors
            for unit in predictor.root.walk()
            if unit.health
        }
        self._units = list(units.values())
        self._waiting = [unit.name for unit in self._units]
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return not self._waiting

    def said(self) -> str:
        """Which nodes are not ready; empty if all are."""
        return f"not ready: {', '.join(self._waiting)}" if self._waiting else ""

    def start(self) -> None:
        if self._units:
            self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            answers = await asyncio.gather(*map(_is_ready, self._units))
            before = self.ready
            pairs = zip(self._units, answers, strict=True)
            self._waiting = [unit.name for unit, fine in pairs if not fine]
            if self.ready != before:
                logger.info(self.said() or "all nodes are ready")
            await asyncio.sleep(EVERY_S if self.ready else FIRST_S)


async def _is_ready(unit: Unit) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            url = parse_url(unit.service_url)
            if unit.health == "grpc":
                from router_fn.seldon.grpc_nodes import is_serving

                return await is_serving(url)
            return await _ask(url, unit.health)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False


async def _ask(url: Url, health: str) -> bool:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        if health == "tcp":
            return True
        head = f"GET {health} HTTP/1.1\r\nHost: {url.authority}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        line = (await reader.readline()).split(None, 2)
        return len(line) > 1 and line[0].startswith(b"HTTP/") and 200 <= int(line[1]) < 400
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
