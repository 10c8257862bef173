"""What a step or a node answered."""

from typing import TYPE_CHECKING

from functions.wire import native
from functions.wire.http1_head import ResponseHead


class Reply:
    """An answer of any status. `head` is None when we made the answer ourselves. Slots, not frozen:
    one a call."""

    __slots__ = ("body", "head", "made_json", "status")

    def __init__(
        self, status: int, body: bytes, head: ResponseHead | None = None, made_json: bool = False
    ) -> None:
        self.status = status
        self.body = body
        self.head = head
        self.made_json = made_json
        """We put it together from JSON, so nobody needs to look whether it is."""

    @property
    def good(self) -> bool:
        """2xx, which is what `dependency: Hard` asks for."""
        return 200 <= self.status < 300


if not TYPE_CHECKING:
    native.take(globals(), "router_fn._hot", ("Reply",))

STREAMED = Reply(200, b"")
"""The answer has gone to the client piece by piece; there is nothing left to send."""
