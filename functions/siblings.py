"""Several workers, one repository: what a client of one has loaded or unloaded, all have.

Each load and unload is an order with a number; the last order for each model stands in a file of
the server's own directory. Workers look at it every `LOOK_S`, carry out what is new to them, and
note up to where they have come; the worker that was asked answers when all others are there. A
worker that replaces one that died starts with these orders.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LOOK_S = 0.05
"""How often a worker looks for orders of its siblings, and for their progress."""

Carry = Callable[[str, bool], Awaitable[Any]]
"""(model, whether it is to be loaded): carries out a sibling's order. May raise anything."""


class Siblings:
    """The workers of one server, as one of them sees them. All methods run on its loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"worker-{os.getpid()}"
        self._followed: dict[str, int] = {}
        """Model -> number of the order that its state here comes from."""
        self._failures: dict[str, tuple[int, str]] = {}
        self._given = 0
        """Number of the last order of this worker."""

    # --- orders --------------------------------------------------------------------------------

    def wanted(self) -> dict[str, bool]:
        """Model -> whether it is to be loaded, for those that there was an order for. They count as
        followed: for a worker that starts."""
        found = {}
        for name, (number, load) in self._read().items():
            self._followed[name] = number
            found[name] = load
        return found

    def give(self, name: str, load: bool) -> None:
        """This worker has loaded or unloaded a model: the others are to follow."""
        with (self._folder / "orders.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            orders = self._read()
            self._given = 1 + max((number for number, _ in orders.values()), default=0)
            orders[name] = (self._given, load)
            _replace(self._folder / "orders", orders)
        self._followed[name] = self._given

    def _read(self) -> dict[str, tuple[int, bool]]:
        try:
            orders = json.loads((self._folder / "orders").read_bytes())
        except FileNotFoundError:
            return {}
        return {name: (number, load) for name, (number, load) in orders.items()}

    # --- following -----------------------------------------------------------------------------

    async def follow(self, carry: Carry) -> None:
        """Carry out the orders of the others, until cancelled."""
        seen: Any = ()
        while True:
            try:
                stat = (self._folder / "orders").stat()
                now: Any = (stat.st_ino, stat.st_mtime_ns)
            except FileNotFoundError:
                now = None
            if now != seen:
                seen = now
                try:
                    await self._follow_once(carry)
                except OSError as error:  # no space left: the next look tries again
                    logger.error("orders of the other workers cannot be followed: %s", error)
                    seen = ()
            await asyncio.sleep(LOOK_S)

    async def _follow_once(self, carry: Carry) -> None:
        orders = self._read()
        for name, (number, load) in orders.items():
            if number <= self._followed.get(name, 0):
                continue
            try:
                await carry(name, load)
            except Exception as error:
                logger.error(
                    "model %s: what a sibling did failed here: %s", name, error, exc_info=error
                )
                self._failures[name] = (number, f"{type(error).__name__}: {error}")
            # Whatever this worker itself did meanwhile, its state comes from this order now.
            self._followed[name] = number
        done = max((number for number, _ in orders.values()), default=0)
        _replace(self._own, {"done": done, "failures": self._failures})

    async def settled(self, name: str) -> str:
        """Wait until the others have followed this worker's last order; what failed, or nothing."""
        number = self._given
        while True:
            ahead = [self._progress(file) for file in self._folder.glob("worker-*")]
            progress = [entry for entry in ahead if entry is not None]
            if all(entry["done"] >= number for entry in progress):
                break
            await asyncio.sleep(LOOK_S)
        for entry in progress:
            at, text = entry["failures"].get(name, (0, ""))
            if at >= number:
                return str(text)
        return ""

    def _progress(self, file: Path) -> Any:
        """How far a sibling is; None for this worker, and for one that has gone."""
        if file == self._own or file.suffix:
            return None
        try:
            os.kill(int(file.name.partition("-")[2]), 0)
            return json.loads(file.read_bytes())
        except (ProcessLookupError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
            return None


def _replace(file: Path, content: Any) -> None:
    """Write a file that others read at any moment."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(file)
