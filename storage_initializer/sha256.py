"""SHA-256 and its HMAC for short texts: identities and signatures.

`hashlib` loads OpenSSL (5 ms), which every pod would wait for before its first request; the
interpreter has the function itself. Whole files are another matter: `digest` takes OpenSSL's,
which is three times as fast. A test holds both beside hashlib's and hmac's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # Python 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:  # built without: a build that trusts OpenSSL alone
            from hashlib import sha256

_BLOCK = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hexdigest(data: bytes) -> str:
    return sha256(data).hexdigest()


def hmac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104): 32 bytes."""
    if len(key) > _BLOCK:
        key = sha256(key).digest()
    key = key.ljust(_BLOCK, b"\0")
    inner = sha256(key.translate(_INNER) + message).digest()
    return sha256(key.translate(_OUTER) + inner).digest()
