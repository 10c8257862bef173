"""Checking and serving a Seldon graph: what `python -m router_fn` does when it is given one."""

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from functions.wire import container, native
from router_fn import loops
from router_fn.seldon import graph
from router_fn.settings import Settings

if TYPE_CHECKING:
    from router_fn.seldon.front import SeldonServer

logger = logging.getLogger("router_fn")


def main(settings: Settings) -> int:
    """The exit code: 0 drained, 1 failed, 2 bad configuration (every problem is on stderr)."""
    deployment, problems = graph.read(settings.graph_spec)
    refused = False
    for level, path, message in problems:
        fatal = level == "error" or settings.strict
        refused = refused or fatal
        logger.log(logging.ERROR if fatal else logging.WARNING, "%s: %s", path, message)
    if refused:
        return container.EXIT_USAGE
    if settings.check_only:
        logger.info("the graph is fine: %d predictors", len(deployment.predictors))
        return container.EXIT_OK
    if settings.workers > 1:
        from router_fn import workers

        return workers.run(lambda given: _server(deployment, given), settings)
    with asyncio.Runner(loop_factory=loops.loop_factory(settings.loop)) as runner:
        return runner.run(serve(deployment, settings))


def _server(deployment: graph.Deployment, settings: Settings) -> "SeldonServer":
    from router_fn.seldon.front import SeldonServer  # not before a worker wants it

    return SeldonServer(deployment, settings)


async def serve(deployment: graph.Deployment, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain."""
    from router_fn.seldon.front import SeldonServer

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = SeldonServer(deployment, settings)
    try:
        await server.start()
    except ImportError as error:
        logger.error("GRPC_PORT needs the extra router-grpc: %s", error)
        return container.EXIT_USAGE
    except OSError as error:
        logger.error("cannot listen on port %d: %s", settings.port, error.strerror or error)
        return container.EXIT_FAILED
    logger.info("serving on port %s", server.server.ports[0])
    logger.info(native.describe())
    await stop.wait()
    await server.stop()
    return container.EXIT_OK
