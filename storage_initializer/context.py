"""What a provider gets to work with: settings, and small requests with retries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from . import retry
from .errors import AccessDenied, NotFound, StorageError, Throttled, TransferFailed
from .retry import Control, Retry
from .settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .client import Client
    from .wire import Request

MAX_ANSWER = 64 << 20
"""Longest answer of a control request (a listing page is about 1 MB)."""

Answer = tuple[int, Mapping[str, str], bytes]


class Context:
    """Shared by the providers of one fetch. `ask` may be used from any thread."""

    def __init__(self, settings: Settings, client: Client, control: Control) -> None:
        self.settings = settings
        self.client = client
        self.control = control

    @property
    def environ(self) -> Mapping[str, str]:
        return self.settings.environ

    def ask(
        self,
        make: Callable[[], Request],
        *,
        ok: tuple[int, ...] = (200,),
        explain: Callable[[int, Mapping[str, str], bytes], StorageError] | None = None,
    ) -> Answer:
        """A small request, tried again as a download would be.

        `make` is called for every try, because signatures carry the time. A status outside `ok`
        becomes the error that `explain` gives (default: `refusal`).
        """
        policy = Retry(self.control)
        while True:
            try:
                request = make()  # may renew a token, which may fail like the request itself
                self.control.gate()
                response = self.client.send(request)
                status, headers = response.status, response.headers
                body = response.read(MAX_ANSWER)
                if status in ok:
                    return status, headers, body
                if explain is None:
                    raise refusal(request.where, status, headers, body)
                raise explain(status, headers, body)
            except StorageError as exc:
                policy.failed(exc)

    def ask_json(self, make: Callable[[], Request], **options: Any) -> Any:
        request: list[str] = []

        def remember() -> Request:
            made = make()
            request[:] = [made.where]
            return made

        _, _, body = self.ask(remember, **options)
        try:
            return json.loads(body)
        except ValueError:
            raise TransferFailed(request[0], "the answer is not JSON") from None


def refusal(where: str, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
    """A refusal as an error, by its status alone; the body only helps people."""
    said = _said(headers, body)
    if status in retry.THROTTLING:
        return Throttled(where, f"answered {status}{said}", retry.retry_after_s(headers))
    if status in retry.TRANSIENT:
        return TransferFailed(where, f"answered {status}{said}")
    if status in (401, 403, 407):
        return AccessDenied(where, f"{status}{said}")
    if status in (404, 410):
        return NotFound(where, f"answered {status}{said}")
    return StorageError(f"{where}: unexpected answer {status}{said}")


def _said(headers: Mapping[str, str], body: bytes) -> str:
    """The beginning of a textual body, on one line."""
    kind = headers.get("content-type", "")
    if not body or "html" in kind or not ("text" in kind or "json" in kind or "xml" in kind):
        return ""
    text = " ".join(body[:300].decode("utf-8", "replace").split())
    return f": {text[:200]}" if text.isprintable() else ""
