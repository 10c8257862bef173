"""What a worker does: one uvloop, the shared HTTP/1.1 server, the models.

gunicorn binds the listener before it forks, so connections are accepted from the first moment; this
answers health checks at once and loads the models on a thread meanwhile. A model that cannot be
loaded ends the process, and the server: the master is told the reason, and does not try again.
"""

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

import uvloop

from . import forks, heap
from .engine import Engine
from .errors import FunctionsError
from .front import Front, has_binary_tensors
from .repository import Repository
from .wire import container, forked, native
from .wire.http1 import Limits, Server
from .wsgi import WsgiBridge

if TYPE_CHECKING:
    from .worker import FunctionsWorker

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
"""How often gunicorn's master is told that the event loop turns."""


def run(worker: "FunctionsWorker") -> int:
    """Serve until SIGTERM, drain, and return the exit code."""
    # Never closed: that would wait for threads of user code that never return. The process ends.
    return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(Serving(worker).serve())


class Serving:
    """The life of one worker."""

    def __init__(self, worker: "FunctionsWorker") -> None:
        self.worker = worker
        self.app = worker.app

    async def serve(self) -> int:
        settings = self.app.settings
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        forks.claim(loop)
        handlers = _listen(loop, stop)
        repository = Repository(settings, self.app.preloaded, self.app.at_start)
        engine = Engine(repository)
        front = Front(repository, engine, WsgiBridge(lambda: _create_app(repository, loop)))
        if settings.logger_url:
            from .payload_log import PayloadLog

            front.payload_log = PayloadLog(settings, repository.registry)
        limits = Limits(
            max_body_bytes=settings.max_body_bytes, read_timeout_s=300.0, response_timeout_s=None
        )
        server = Server(front, limits, takes_views=has_binary_tensors)
        side = Server(front.side, limits)
        # gunicorn binds in the order of `Application.binds`: the main port, then the metrics port.
        main, *others = [listener.sock for listener in self.worker.sockets]
        board = self.app.board if self.worker.slot < settings.workers else None
        await server.listen(sockets=[main] if board is None else [])
        acceptor = None
        if board is not None:
            from .sharing import Acceptor

            acceptor = Acceptor(
                main,
                board,
                self.worker.slot,
                ready=lambda: repository.ready,
                connections=lambda: len(server.connections),
                adopt=server.adopt,
            )
        await side.listen(sockets=others)
        grpc_server = await self._start_grpc(repository, engine, front)
        loading = loop.create_task(self._load(repository))
        beating = loop.create_task(self._beat(repository, engine, stop, handlers))
        stopping = loop.create_task(stop.wait())
        done, _ = await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading in done and not loading.result():
            return container.EXIT_FAILED  # the master has the reason, and stops
        following = loop.create_task(repository.follow())
        await stopping
        repository.draining = True
        if acceptor is not None:
            acceptor.close()
        logger.info("draining")
        stopping_grpc = (
            loop.create_task(grpc_server.drain(settings.drain_s))
            if grpc_server is not None
            else None
        )
        await server.drain(settings.drain_s)
        if stopping_grpc is not None:
            await stopping_grpc
        await side.drain(0.5)
        for task in (beating, loading, following):
            task.cancel()
        repository.registry.share()
        if front.payload_log is not None:
            await asyncio.to_thread(front.payload_log.close)
        repository.close()
        return 0

    async def _start_grpc(self, repository: Repository, engine: Engine, front: Front) -> Any:
        """The gRPC port, when a gRPC protocol is asked for; protobuf is imported only then."""
        settings = self.app.settings
        if not any(protocol.startswith("grpc") for protocol in settings.protocol):
            return None
        from . import grpc_server
        from .grpc_v2 import HealthService, InferenceService

        methods = HealthService(repository).methods()
        if "grpc-v2" in settings.protocol:
            methods |= InferenceService(repository, engine).methods()
        if "grpc-v1" in settings.protocol:
            from .tfs_grpc import PredictionService
            from .tfs_models import ModelService

            methods |= PredictionService(repository, engine).methods()
            methods |= ModelService(repository).methods()
        if "grpc-seldon" in settings.protocol:
            from .seldon_grpc import SeldonServices

            methods |= SeldonServices(repository, engine, front.seldon).methods()
        return await grpc_server.start(methods, settings)

    async def _load(self, repository: Repository) -> bool:
        """Load every model. False when one cannot be: the process is of no use then."""
        try:
            await repository.load_all()
        except Exception as error:
            cause = error.__cause__ if isinstance(error, FunctionsError) else error
            logger.error("loading failed", exc_info=cause or error)
            self.app.report_failure(str(error))
            return False
        heap.keep(self.app.settings.keep_freed_mb, self.app.settings.environ)
        self.app.report_ready()
        logger.info("ready", extra={"models": list(repository.entries)})
        logger.info(native.describe())
        return True

    async def _beat(
        self,
        repository: Repository,
        engine: Engine,
        stop: asyncio.Event,
        handlers: dict[signal.Signals, Any],
    ) -> None:
        while True:
            self.worker.notify()
            repository.note(engine.in_flight)
            repository.registry.share()
            if any(signal.getsignal(name) is not own for name, own in handlers.items()):
                logger.warning("user code replaced the server's signal handlers; they are back")
                handlers = _listen(asyncio.get_running_loop(), stop)
            if repository.wedged:
                logger.error("every thread of a model is stuck: this process is replaced")
                stop.set()
            if os.getppid() != self.worker.ppid:
                logger.warning("the parent process is gone")
                stop.set()
            await asyncio.sleep(HEARTBEAT_S)


def _listen(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> dict[signal.Signals, Any]:
    """Take the signals that end this process; the handlers, to be recognised."""
    forked.listen(loop, stop.set)
    return {number: signal.getsignal(number) for number in forked.STOP}


def _create_app(repository: Repository, loop: asyncio.AbstractEventLoop) -> Any:
    from .app import create_app

    return create_app(repository, loop)
