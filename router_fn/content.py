"""The Content-Type of an answer (spec 2.4)."""

from router_fn import body as bodies
from router_fn import sniff

JSON = b"application/json"


def content_type(body: bytes) -> bytes:
    """JSON when it is JSON, whatever the upstream called it; else as Go sniffs; nothing for
    nothing."""
    if bodies.is_json(body):
        return JSON
    return sniff.detect(body).encode() if body else b""
