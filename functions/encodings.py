"""Request bodies in a Content-Encoding: Triton's clients compress on request.

Nothing is inflated beyond the limit of a body, so that a small request cannot fill the memory.
"""

import zlib

from .errors import BodyTooLarge, InvalidRequest, StatusError

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""zlib's `wbits`."""


def decoded(body: bytes, encodings: str, limit_bytes: int) -> bytes:
    """The body as it was before the encodings were applied; the header lists the last one last.

    Raises InvalidRequest for broken data, BodyTooLarge, and StatusError (415) for other encodings.
    """
    for encoding in reversed(encodings.lower().split(",")):
        name = encoding.strip()
        if name in ("gzip", "x-gzip"):
            body = _inflated(body, _GZIP, limit_bytes)
        elif name == "deflate":  # what it means has been read in two ways
            zlib_head = len(body) > 1 and body[0] & 15 == 8 and not (body[0] << 8 | body[1]) % 31
            body = _inflated(body, _ZLIB if zlib_head else _RAW, limit_bytes)
        elif name not in ("", "identity"):
            raise StatusError(415, f"Content-Encoding {name} is not taken: send gzip or deflate")
    return body


def _inflated(body: bytes, wbits: int, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while body or not pieces:  # gzip data may have several members
        inflater = zlib.decompressobj(wbits)
        try:
            piece = inflater.decompress(body, limit_bytes - size + 1)
        except zlib.error as problem:
            raise InvalidRequest(f"the compressed body is broken: {problem}") from None
        size += len(piece)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        if not inflater.eof:
            raise InvalidRequest("the compressed body is cut off")
        pieces.append(piece)
        body = inflater.unused_data
    return b"".join(pieces)
