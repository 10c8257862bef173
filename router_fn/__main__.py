"""`python -m router_fn`: read settings, check the graph, serve it, drain on SIGTERM."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from functions.wire import container, native
from router_fn import graph, loops
from router_fn.settings import Settings, SettingsError

if TYPE_CHECKING:
    from router_fn.server import Router

logger = logging.getLogger("router_fn")

SELDON = "SeldonDeployment"
"""The `kind` of a graph in Seldon's grammar (`router_fn.seldon.graph`)."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 drained, 1 failed, 2 bad configuration (every problem is on stderr)."""
    container.configure_logging("router-fn")
    try:
        settings = Settings.from_env(argv=sys.argv[1:] if argv is None else argv)
    except SettingsError as error:
        for problem in error.problems:
            logger.error(problem)
        return container.EXIT_USAGE
    if isinstance(settings.graph_spec, dict) and settings.graph_spec.get("kind") == SELDON:
        from router_fn.seldon import service

        return service.main(settings)
    spec, problems = graph.read_and_check(settings.graph_spec)
    refused = False
    for level, path, message in problems:
        fatal = level == "error" or settings.strict
        refused = refused or fatal
        logger.log(logging.ERROR if fatal else logging.WARNING, "%s: %s", path, message)
    if refused:
        return container.EXIT_USAGE
    if settings.check_only:
        logger.info("the graph is fine: %d nodes", len(spec.nodes))
        return container.EXIT_OK
    if settings.workers > 1:
        from router_fn import workers

        return workers.run(lambda given: _router(spec, given), settings)
    with asyncio.Runner(loop_factory=loops.loop_factory(settings.loop)) as runner:
        return runner.run(serve(spec, settings))


def _router(spec: graph.Graph, settings: Settings) -> "Router":
    from router_fn.server import Router  # not before a worker wants it

    return Router(spec, settings)


async def serve(spec: graph.Graph, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once."""
    from router_fn.server import Router

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask_to_stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    try:
        router = Router(spec, settings)
    except ValueError as error:
        logger.error("%s", error)
        return container.EXIT_USAGE
    except ImportError as error:
        logger.error("this graph or setting needs an extra that is not installed: %s", error)
        return container.EXIT_USAGE
    try:
        await router.start()
    except ImportError as error:
        logger.error("GRPC_PORT needs the extra router-grpc: %s", error)
        return container.EXIT_USAGE
    except OSError as error:
        logger.error("cannot listen on port %d: %s", settings.port, error.strerror or error)
        return container.EXIT_FAILED
    logger.info("serving on port %s", router.server.ports[0])
    logger.info(native.describe())
    gc.collect()
    gc.freeze()  # what is here now stays; a collection need not look at it again
    await stop.wait()
    await router.stop()
    return container.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
