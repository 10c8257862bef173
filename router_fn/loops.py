"""The fastest event loop at hand: uvloop when it is installed, asyncio's own otherwise."""

import asyncio
from collections.abc import Callable


def loop_factory(name: str = "auto") -> Callable[[], asyncio.AbstractEventLoop]:
    """`auto`, `uvloop` (ImportError when it is missing) or `asyncio`."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise
        else:
            return uvloop.new_event_loop  # type: ignore[no-any-return, unused-ignore]
    return asyncio.new_event_loop
