"""A parsed HTTP/1.1 request head into a `wire.Request`: where it goes, how its body is framed.
Pure.

llhttp has refused what is ambiguous (both framings, bad lengths, bare line feeds); what is checked
here is what it leaves to its user: one Host, and which targets a proxy takes.
"""

from . import wire


class BadRequest(Exception):
    """A head that llhttp accepts and we do not; the message is for the client."""


def read(
    method: bytes, target: bytes, version: str, headers: wire.Headers, peer: str
) -> wire.Request:
    """`headers` with lower-case names. Raises BadRequest."""
    length: int | None = None
    chunked, upgrade, host, hosts = False, b"", b"", 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = value.lower().strip().endswith(b"chunked")
        elif name == b"upgrade":
            upgrade = value
        elif name == b"host":
            host = value
            hosts += 1
    if hosts > 1:
        raise BadRequest("more than one Host header")
    if hosts == 0 and version == "1.1":
        raise BadRequest("no Host header")
    absolute = not target.startswith(b"/") and method not in (b"CONNECT", b"OPTIONS")
    if absolute:
        host, target = _split_absolute(target)
    elif method == b"CONNECT":
        host = target
    try:
        authority, port = wire.split_authority(host.rpartition(b"@")[2])
    except ValueError:
        raise BadRequest("Host is not a host name with an optional port") from None
    return wire.Request(
        method, target, authority, headers, host, length, chunked, upgrade, peer,
        b"http", port, absolute,
    )  # fmt: skip


def _split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """`http://host/path?query` -> (host, path and query), as a proxy gets it."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() != b"http":
        raise BadRequest("only http:// targets can be proxied; give https to the client")
    ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
    cut = min(ends, default=len(rest))
    path = rest[cut:]
    return rest[:cut], path if path.startswith(b"/") else b"/" + path
