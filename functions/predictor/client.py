"""What the server calls in the place of `predict`: the hop to the predictor.

It chooses the protocol, keeps to the caller's deadline, waits for a predictor that is waking up,
and turns whatever goes wrong into an error that names the predictor and the cause.
"""

import asyncio
import importlib
import logging
import random
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from functions.errors import (
    FunctionsError,
    LoadFailed,
    MissingExtra,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from functions.model import Call, lower_headers

from . import documents, target
from .connection import Broken
from .dialling import Unreachable
from .forwarding import Forwarder, added, deadline_of
from .pool import Pool
from .rest import Fields, Rest, is_missing_path

if TYPE_CHECKING:
    from functions.settings import Settings

    from .grpc_client import Grpc

logger = logging.getLogger(__name__)

AWAKE_S = 10.0
"""A predictor that answered within this time is awake: a 503 of it means overload, and nobody need
poke it. Knative lets a service sleep after 60 s without requests at the earliest."""

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0
"""Between two tries; doubled each time, and spread a little so that waiting requests do not all
come at once."""


class Predictor:
    """The predictor behind one model of this server."""

    def __init__(self, model: str, settings: "Settings", host: str = "") -> None:
        """`host` instead of `--predictor-host`. Raises LoadFailed for one that is none."""
        self.model = model
        self.settings = settings
        try:
            self.target = target.parse(
                host or settings.predictor_host,
                use_ssl=settings.predictor_use_ssl,
                environ=settings.environ,
            )
        except ValueError as exc:
            raise LoadFailed(
                f"the predictor of model {model},"
                f" {target.shown(host or settings.predictor_host)!r}: expected {exc}"
            ) from None
        if settings.predictor_protocol == "grpc-v2":
            import_grpc()
        self._tls = tls_context(settings) if self.target.tls else None
        self._forwarder = Forwarder(settings.predictor_headers)
        self._link: _Link | None = None
        self._awake_at = 0.0
        self._hopeless_until = 0.0
        self._poking: asyncio.Task[None] | None = None

    async def __call__(
        self, payload: Any, call: Call, headers: Mapping[str, str] | None = None
    ) -> Any:
        """One answer: a V1 document, or an InferResponse from a V2 predictor. `headers` stand for
        the request's.

        Raises UpstreamStatus (its own error), UpstreamTimeout, UpstreamError, BadHookResult.
        """
        fields = self._forwarder.choose(call.headers if headers is None else lower_headers(headers))
        if call.context is not None and call.context.predictor_headers:
            own = added(call.context.predictor_headers)
            names = {name for name, _ in own}  # instead of the caller's
            fields = [field for field in fields if field[0] not in names] + own
        started = time.monotonic()
        limit = started + self.settings.predictor_timeout_s
        callers = call.deadline
        deadline = min(limit, callers) if callers else limit
        whose = ", all that was left of the caller's time" if deadline < limit else ""
        link = self._linked()
        asleep = started - self._awake_at > AWAKE_S
        patient_until = started + self.settings.predictor_wake_s if asleep else 0.0
        if started < self._hopeless_until:
            patient_until = 0.0
        tries = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise UpstreamTimeout(link.name, max(0.0, deadline - started), whose)
            error: FunctionsError
            try:
                answer = await self._once(link, payload, fields, left, bool(callers))
            except TimeoutError:
                raise UpstreamTimeout(link.name, deadline - started, whose) from None
            except Broken as exc:
                raise UpstreamError(link.name, str(exc)) from exc
            except Unreachable as exc:
                error = UpstreamError(link.name, f"cannot be reached: {exc}")
                error.__cause__ = exc
                if not exc.retryable:
                    raise error from exc
            except UpstreamStatus as exc:
                if exc.http_status() != 503:
                    self._awake_at = time.monotonic()
                    raise
                error = exc
            else:
                self._awake_at = time.monotonic()
                self._hopeless_until = 0.0
                return answer
            tries += 1
            wait = self._wait_s(tries, patient_until, deadline, error)
            if wait is None:
                raise error
            await asyncio.sleep(wait)

    def _wait_s(
        self, tries: int, patient_until: float, deadline: float, error: FunctionsError
    ) -> float | None:
        """Seconds until the next try, None to give up."""
        wait: float = min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S)
        wait *= 0.75 + random.random() / 2  # noqa: S311 - no secret
        at = time.monotonic() + wait
        if at >= deadline:
            return None
        told = error.response_headers().get("retry-after", "")
        if told.isdigit() and time.monotonic() + int(told) > max(patient_until, at + 1):
            return None
        if at < patient_until or tries <= self.settings.predictor_retries:
            return wait
        if patient_until:
            # Nobody came up in all that time: the next requests need not wait for it as long.
            self._hopeless_until = time.monotonic() + self.settings.predictor_wake_s
        return None

    async def _once(
        self, link: "_Link", payload: Any, fields: Fields, left: float, tell: bool
    ) -> Any:
        """One try. Raises TimeoutError, Broken, Unreachable, UpstreamError."""
        protocol = self.settings.predictor_protocol
        if protocol == "grpc-v2":
            request = documents.infer_request(payload, self.model)
            return await link.grpc.infer(request, fields, left)
        if tell:
            fields = [*fields, ("x-envoy-expected-rq-timeout-ms", str(max(1, int(left * 1000))))]
        async with asyncio.timeout(left):
            return await self._rest(link.rest, protocol, payload, fields)

    async def _rest(self, rest: Rest, protocol: str, payload: Any, fields: Fields) -> Any:
        auto = protocol == "auto"
        if protocol == "v1" or (
            auto and (not documents.is_v2(payload) or time.monotonic() < rest.memory.v1_only_until)
        ):
            return await rest.v1(self.model, payload, fields)
        request = documents.infer_request(payload, self.model)
        try:
            return await rest.v2(request, fields)
        except UpstreamStatus as status:
            if not auto or not is_missing_path(status) or not await rest.lacks_v2():
                raise
        return await rest.v1(self.model, payload, fields)

    @staticmethod
    def deadline_of(headers: Mapping[str, str]) -> float:
        """When an HTTP caller stops waiting, by its headers (`time.monotonic`); 0: unknown."""
        return deadline_of(headers)

    # --- waking ahead --------------------------------------------------------------------------

    def wake(self, call: Call) -> None:
        """Poke a predictor that may be asleep, beside `preprocess`; at most one poke at a time."""
        if self._poking is not None or time.monotonic() - self._awake_at < AWAKE_S:
            return
        fields = self._forwarder.choose(call.headers)
        task = asyncio.get_running_loop().create_task(self._poke(self._linked(), fields))
        self._poking = task
        task.add_done_callback(self._poked)

    async def _poke(self, link: "_Link", fields: Fields) -> None:
        limit_s = self.settings.predictor_timeout_s
        try:
            if self.settings.predictor_protocol == "grpc-v2":
                status = await link.grpc.poke(fields, limit_s)
            else:
                async with asyncio.timeout(limit_s):
                    status = await link.rest.poke(fields)
        except (TimeoutError, Unreachable, Broken, FunctionsError) as exc:
            logger.debug("waking %s: %s", link.name, exc)
            return
        if status not in (502, 503, 504):
            self._awake_at = time.monotonic()

    def _poked(self, task: "asyncio.Task[None]") -> None:
        self._poking = None
        if not task.cancelled() and task.exception() is not None:
            logger.error("waking the predictor failed", exc_info=task.exception())

    # --- connections ---------------------------------------------------------------------------

    def _linked(self) -> "_Link":
        """Connections belong to an event loop; warm-up requests run on one of their own."""
        loop = asyncio.get_running_loop()
        link = self._link
        if link is None or link.loop is not loop:
            link = self._link = _Link(loop, self.target, self.settings, self._tls)
        return link

    def close(self) -> None:
        """Close all connections; from any thread."""
        link, self._link = self._link, None
        if link is not None and not link.loop.is_closed():
            link.loop.call_soon_threadsafe(link.close)


class _Link:
    """Everything that is bound to one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        where: target.Target,
        settings: "Settings",
        tls: ssl.SSLContext | None,
    ) -> None:
        self.loop = loop
        self._target = where
        self._settings = settings
        self._grpc: Grpc | None = None
        self.rest = Rest(
            Pool(
                where,
                context=tls,
                max_connections=settings.predictor_connections,
                max_bytes=settings.max_body_bytes,
            ),
            binary=settings.predictor_binary,
        )

    @property
    def name(self) -> str:
        return self.rest.name if self._grpc is None else self._grpc.name

    @property
    def grpc(self) -> "Grpc":
        if self._grpc is None:
            settings = self._settings
            self._grpc = import_grpc().Grpc(
                self._target,
                context=tls_context(settings, "h2") if self._target.tls else None,
                max_bytes=settings.max_body_bytes,
            )
        return self._grpc

    def close(self) -> None:
        self.rest.pool.close()
        if self._grpc is not None:
            self._grpc.close()


def import_grpc() -> Any:
    """`grpc_client`, with protobuf and hpack, which only predictors that speak it need. Raises
    MissingExtra."""
    try:
        return importlib.import_module("functions.predictor.grpc_client")
    except ModuleNotFoundError as exc:
        raise MissingExtra(exc.name or "protobuf", "grpc") from exc


def tls_context(settings: "Settings", protocol: str = "http/1.1") -> ssl.SSLContext:
    """System roots, or those of `--predictor-ca-file`; names are checked unless
    `--predictor-verify false`. Raises LoadFailed."""
    try:
        context = ssl.create_default_context(cafile=settings.predictor_ca_file or None)
    except (OSError, ssl.SSLError) as exc:
        raise LoadFailed(f"--predictor-ca-file {settings.predictor_ca_file}: {exc}") from exc
    if not settings.predictor_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context
