"""V1 and V2 over HTTP/1.1: one call, without retries.

V2 goes out with binary tensors first. A predictor that answers it with an error is asked again in
JSON; when that works it is remembered as one that has no binary extension, for a while.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from functions import jsonio
from functions.buffers import Buffer
from functions.errors import FunctionsError, InvalidRequest, UpstreamError, UpstreamStatus
from functions.inference import InferRequest, InferResponse
from functions.wire import v2
from functions.wire.headers import FRAMING, HOP_BY_HOP

from . import documents
from .connection import Response
from .forwarding import field_lines
from .pool import Pool

Fields = list[tuple[str, str]]

REMEMBER_S = 300.0
"""How long a predictor is taken for one without binary tensors, or without V2; after an update it
may have them."""

CONFIRM_S = 60.0
"""A binary answer younger than this proves the extension: an error is then about the request."""

_REFUSALS = frozenset({400, 406, 411, 415, 422, 500, 501})
"""How servers answer a body that they cannot read."""

_NO_SUCH_PATH = frozenset({404, 405, 501})

_NOT_PASSED_ON = FRAMING | HOP_BY_HOP | {b"content-type", b"date", b"server", b"set-cookie"}
"""Fields of an error answer that belong to one message, one connection or its sender."""


@dataclass(slots=True)
class Memory:
    """What is known of a predictor's dialects. Times are `time.monotonic`'s."""

    binary_at: float = 0.0
    """When it last answered a binary request well."""
    json_only_until: float = 0.0
    v1_only_until: float = 0.0
    speaks_v2: bool = False


class Rest:
    """Calls of one predictor."""

    def __init__(self, pool: Pool, *, binary: bool) -> None:
        """`binary`: offer tensors as binary data at all."""
        self.pool = pool
        self._binary = binary
        self.memory = Memory()
        target = pool.target
        # Behind an HTTP proxy a request names its whole URL (RFC 9112 3.2.2).
        absolute = target.proxy is not None and not target.tls
        self._prefix = (f"http://{target.authority}" if absolute else "") + target.path
        self._host = f" HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: turnout\r\n"
        self._starts: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        return self.pool.target.url

    async def v1(self, model: str, payload: Any, fields: Fields) -> Any:
        """POST to `:predict`; the answer's JSON document. Raises UpstreamError, Unreachable,
        Broken."""
        body = documents.v1_body(payload)
        extra = f"Content-Type: {_v1_type(payload)}\r\nContent-Length: {len(body)}\r\n"
        path = f"/v1/models/{quote(model)}:predict"
        answer = await self._post(path, extra, fields, [body])
        self._check(answer)
        try:
            return jsonio.loads(answer.body)
        except FunctionsError as exc:
            raise UpstreamError(
                self.name, f"sent an answer that is no JSON ({_start(answer.body)}): {exc}"
            ) from exc

    async def v2(self, request: InferRequest, fields: Fields) -> InferResponse:
        """POST to `/infer`, binary or JSON. Raises UpstreamError, Unreachable, Broken."""
        memory = self.memory
        now = time.monotonic()
        if not self._binary or now < memory.json_only_until:
            return self._response(await self._infer(request, fields, binary=False))
        answer = await self._infer(request, fields, binary=True)
        if answer.status in _REFUSALS and now - memory.binary_at > CONFIRM_S:
            try:
                second = await self._infer(request, fields, binary=False)
            except InvalidRequest:  # a datatype without a JSON form
                self._check(answer)
                raise
            if second.status < 400:
                memory.json_only_until = time.monotonic() + REMEMBER_S
            answer = second
        elif answer.status < 400:
            memory.binary_at = now
        return self._response(answer)

    async def lacks_v2(self) -> bool:
        """Ask a predictor that has no such path whether it speaks V2 at all; remembered."""
        memory = self.memory
        if memory.speaks_v2:
            return False
        answer = await self._request("GET", "/v2", "", [], [])
        memory.speaks_v2 = answer.status < 400
        if not memory.speaks_v2:
            memory.v1_only_until = time.monotonic() + REMEMBER_S
        return not memory.speaks_v2

    async def poke(self, fields: Fields) -> int:
        """The status of a request that costs the predictor nothing: any request wakes a sleeping
        service. Raises Unreachable, Broken."""
        return (await self._request("GET", "/v2/health/live", "", fields, [])).status

    # --- one exchange --------------------------------------------------------------------------

    async def _infer(self, request: InferRequest, fields: Fields, *, binary: bool) -> Response:
        text, tensors = documents.encode_request(request, binary=binary)
        if tensors:
            kind = f"application/octet-stream\r\nInference-Header-Content-Length: {len(text)}"
        else:
            kind = "application/json"
        length = len(text) + documents.total(tensors)
        extra = f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
        path = f"/v2/models/{quote(request.model_name)}"
        if request.model_version:
            path += f"/versions/{quote(request.model_version)}"
        return await self._post(path + "/infer", extra, fields, [text, *tensors])

    async def _post(
        self, path: str, extra: str, fields: Fields, body: Sequence[Buffer]
    ) -> Response:
        return await self._request("POST", path, extra, fields, body)

    async def _request(
        self, method: str, path: str, extra: str, fields: Fields, body: Sequence[Buffer]
    ) -> Response:
        key = method + path
        start = self._starts.get(key)
        if start is None:
            start = f"{method} {self._prefix}{path}{self._host}".encode("latin-1")
            if len(self._starts) < 64:
                self._starts[key] = start
        forwarded = field_lines(fields) if fields else b""
        head = b"".join([start, extra.encode(), forwarded, b"\r\n"])
        return await self.pool.request(head, body)

    # --- answers -------------------------------------------------------------------------------

    def _response(self, answer: Response) -> InferResponse:
        self._check(answer)
        try:
            response = documents.decode_response(
                answer.body, answer.field(b"inference-header-content-length")
            )
        except (FunctionsError, v2.Malformed) as exc:
            raise UpstreamError(
                self.name,
                f"sent an answer that is no V2 response ({_start(answer.body)}): {exc}",
            ) from exc
        self.memory.speaks_v2 = True
        return documents.checked(response, self.name)

    def _check(self, answer: Response) -> None:
        """Raises UpstreamStatus for an error, UpstreamError for what is neither that nor an
        answer."""
        if 200 <= answer.status < 300:
            return
        if not 300 <= answer.status < 600:
            raise UpstreamError(self.name, f"sent garbage: {answer.status} is no HTTP status")
        if answer.status < 400:
            where = answer.field(b"location") or "nowhere"
            raise UpstreamError(
                self.name, f"answered {answer.status}, a redirect to {where}: is the host right?"
            )
        kept = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in answer.head.headers
            if name.lower() not in _NOT_PASSED_ON
        }
        raise UpstreamStatus(
            self.name,
            answer.status,
            documents.error_text(answer.body),
            body=bytes(answer.body),
            content_type=answer.field(b"content-type") or "",
            headers=kept,
        )


def is_missing_path(error: UpstreamStatus) -> bool:
    """The predictor may not know the protocol at all (or not the model)."""
    return error.http_status() in _NO_SUCH_PATH


def _v1_type(payload: Any) -> str:
    raw = isinstance(payload, (bytes, bytearray, memoryview))
    return (
        "application/octet-stream"
        if raw and payload[:1] not in (b"{", b"[")
        else ("application/json")
    )


def _start(body: Buffer) -> str:
    """The beginning of a body, for a message."""
    return repr(bytes(body[:40]).decode("utf-8", "replace"))
