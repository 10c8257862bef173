"""Several workers, one repository: what a client of one has loaded, unloaded or configured, all
have.

Each load, unload and configuration is an order with a number; the last order for each model stands
in a file of the server's own directory, a configuration together with the load before it. Workers
look at it every `LOOK_S`, carry out what is new to them, and note up to where they have come; the
worker that was asked answers when all others are there. A worker that replaces one that died starts
with these orders.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

LOOK_S = 0.05
"""How often a worker looks for orders of its siblings, and for their progress."""


class Order(NamedTuple):
    """The last one for a model."""

    number: int
    since: int
    """Number of the load or unload that it comes from, which this may be itself; 0: the start."""
    load: bool
    """Whether it is to be loaded."""
    config: Any = None
    """What it was told after that load (JSON); None: nothing."""


Carry = Callable[[str, bool | None, Any], Awaitable[Any]]
"""(model, whether it is to be loaded or None to leave it as it is, configuration or None): carries
out a sibling's order. May raise anything."""


class Siblings:
    """The workers of one server, as one of them sees them. All methods run on its loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"worker-{os.getpid()}"
        self._followed: dict[str, int] = {}
        """Model -> number of the order that its state here comes from."""
        self._failures: dict[str, tuple[int, str]] = {}
        self._given: dict[str, int] = {}
        """Model -> number of this worker's own last order."""

    # --- orders --------------------------------------------------------------------------------

    def wanted(self) -> dict[str, Order]:
        """The orders there were, by model. They count as followed: for a worker that starts."""
        orders = self._read()
        self._followed.update((name, order.number) for name, order in orders.items())
        return orders

    def give(self, name: str, load: bool) -> None:
        """This worker has loaded or unloaded a model: the others are to follow."""
        with self._changing() as orders:
            number = _last(orders) + 1
            orders[name] = Order(number, number, load)
        self._followed[name] = self._given[name] = number

    def configure(self, name: str, config: Any) -> None:
        """This worker has configured a loaded model: the others are to follow."""
        with self._changing() as orders:
            number = _last(orders) + 1
            known = orders.get(name)
            orders[name] = Order(number, known.since if known else 0, True, config)
        self._followed[name] = self._given[name] = number

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Order]]:
        """The orders, to be changed, while no other worker changes them."""
        with (self._folder / "orders.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            orders = self._read()
            yield orders
            _replace(self._folder / "orders", orders)

    def _read(self) -> dict[str, Order]:
        try:
            orders = json.loads((self._folder / "orders").read_bytes())
        except FileNotFoundError:
            return {}
        return {name: Order(*order) for name, order in orders.items()}

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
        for name, order in orders.items():
            known = self._followed.get(name, 0)
            if order.number <= known:
                continue
            try:
                await carry(name, order.load if order.since > known else None, order.config)
            except Exception as error:
                logger.error(
                    "model %s: what a sibling did failed here: %s", name, error, exc_info=error
                )
                self._failures[name] = (order.number, f"{type(error).__name__}: {error}")
            # Whatever this worker itself did meanwhile, its state comes from this order now.
            self._followed[name] = order.number
        _replace(self._own, {"done": _last(orders), "failures": self._failures})

    async def settled(self, *names: str) -> str:
        """Wait until the others have followed this worker's last orders for these models; what
        failed, or nothing."""
        numbers = {name: self._given[name] for name in names}
        last = max(numbers.values(), default=0)
        while True:
            ahead = [self._progress(file) for file in self._folder.glob("worker-*")]
            progress = [entry for entry in ahead if entry is not None]
            if all(entry["done"] >= last for entry in progress):
                break
            await asyncio.sleep(LOOK_S)
        for entry in progress:
            for name, number in numbers.items():
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


def _last(orders: Mapping[str, Order]) -> int:
    return max((order.number for order in orders.values()), default=0)


def _replace(file: Path, content: Any) -> None:
    """Write a file that others read at any moment."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(file)
