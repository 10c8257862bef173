"""One CloudEvent to one sink, one attempt: whoever sent us the cause will send it again.

Used by the adapter and the SQS poller: neither keeps anything, so neither may acknowledge before
the sink has taken the event.
"""

from collections.abc import Mapping

from . import codec
from .delivery import Verdict, classify, whole_seconds
from .errors import DeliveryFailed, Refused
from .event import Event
from .http import Answer, Client
from .http_async import AsyncClient


class Sender:
    """POSTs events in binary mode to one URL, with a SinkBinding's extensions added."""

    def __init__(
        self,
        client: Client,
        async_client: AsyncClient | None,
        sink: str,
        *,
        extensions: Mapping[str, str],
        timeout_s: float,
    ) -> None:
        self._client = client
        self._async_client = async_client
        self._sink = sink
        self._extensions = dict(extensions)
        self._timeout_s = timeout_s

    def send(self, event: Event) -> int:
        """The sink's 2xx. Raises `DeliveryFailed` (try again) or `Refused` (it never will)."""
        headers, body = self._encode(event)
        return _status(self._client.post(self._sink, headers, body, self._timeout_s))

    async def send_async(self, event: Event) -> int:
        """The same on an event loop."""
        assert self._async_client is not None, "this sender was made without an event loop"
        headers, body = self._encode(event)
        return _status(await self._async_client.post(self._sink, headers, body, self._timeout_s))

    def _encode(self, event: Event) -> tuple[dict[str, str], bytes]:
        if self._extensions:
            event = event.with_attributes(**self._extensions)
        return codec.encode_binary(event)


def _status(answer: Answer) -> int:
    verdict = classify(answer.status)
    if verdict is Verdict.DELIVERED:
        return answer.status
    excerpt = answer.body[:256].decode("utf-8", "replace")
    message = f"the sink answered {answer.status}: {excerpt}"
    if verdict is Verdict.FAILED:
        raise Refused(message)
    after = whole_seconds(answer.headers.get("retry-after", ""))
    raise DeliveryFailed(message, cause_status=answer.status, retry_after_s=after)
