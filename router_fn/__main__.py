"""`python -m router_fn`: read settings, check the graph, serve it, drain on SIGTERM."""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from functions.wire import container
from router_fn import graph, loops
from router_fn.settings import Settings, SettingsError

logger = logging.getLogger("router_fn")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 drained, 1 failed, 2 bad configuration (every problem is on stderr)."""
    container.configure_logging("router-fn")
    try:
        settings = Settings.from_env(argv=sys.argv[1:] if argv is None else argv)
    except SettingsError as error:
        for problem in error.problems:
            logger.error(problem)
        return container.EXIT_USAGE
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
    with asyncio.Runner(loop_factory=loops.loop_factory(settings.loop)) as runner:
        return runner.run(serve(spec, settings))


async def serve(spec: graph.Graph, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain."""
    from router_fn.server import Router

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    router = Router(spec, settings)
    router.pool.start()
    try:
        await router.server.listen(settings.host or None, settings.port)
    except OSError as error:
        logger.error("cannot listen on port %d: %s", settings.port, error.strerror or error)
        return container.EXIT_FAILED
    logger.info("serving on port %s", router.server.ports[0])
    await stop.wait()
    return await drain(router, settings)


async def drain(router: "Router", settings: Settings) -> int:  # noqa: F821
    """Not ready at once; a moment later no new connections; then finish what is under way."""
    router.ready = False
    logger.info("draining")
    await asyncio.sleep(settings.drain_delay_s)
    finished = await router.server.drain(settings.drain_timeout_s)
    await router.pool.close()
    if not finished:
        logger.warning("requests were cut off after %g s", settings.drain_timeout_s)
    logger.info("stopped")
    return container.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
