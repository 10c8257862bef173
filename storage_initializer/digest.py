"""Checksums: which one to trust, how to compute it, how to join the CRCs of parallel ranges.

CRC-32 comes from `zlib_ng` where it is installed (45 GB/s with carry-less multiplication; the
system's zlib makes 2), the others from hashlib; all release the interpreter lock, and both are
imported by the first file that needs them (3 and 5 ms). CRC32C and CRC64NVME, which S3 and GCS
tell, need `awscrt` or `google_crc32c`; without one of them the next best check is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Hasher(Protocol):
        def update(self, data: bytes | bytearray | memoryview, /) -> object: ...
        def hexdigest(self) -> str: ...


CHUNK = 1 << 20

PREFERENCE = ("sha256", "crc64nvme", "crc32c", "crc32", "md5", "sha1", "gitsha1")
"""First one that the source tells and this installation can compute. A SHA-256 is somebody's
pin and must be honoured; among the others the CRCs come first because they can be computed per
range in parallel and cost next to nothing, where MD5 needs the whole file in order at 0.7 GB/s."""

MD5_OF_PARTS = "md5-of-parts-"
"""Followed by the part size: the ETag of an S3 multipart upload (`STORAGE_VERIFY=full`)."""

CRC_OF_PARTS = "crc32-of-parts-"
"""Followed by the part size: S3's COMPOSITE checksum of a multipart upload, which boto3 makes."""

COMBINABLE = frozenset({"crc32"})
"""Algorithms whose value for a whole follows from the values of any parts."""


_crc32: Callable[[bytes | bytearray | memoryview, int], int] | None = None


def crc32(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """CRC-32 of `data` appended to what has the CRC `value`. A copy of local files needs none: the
    library (3 ms) is imported by the first call."""
    global _crc32
    if _crc32 is None:
        try:
            from zlib_ng.zlib_ng import crc32 as function
        except ImportError:
            from zlib import crc32 as function
        _crc32 = function
    return _crc32(data, value)


class Crc32:
    """CRC-32 as a hashlib-like object; `value` may be preset to go on from a known prefix."""

    __slots__ = ("value",)

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.value = crc32(data, self.value)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


class OfParts:
    """Checksum of parts' checksums, a dash, and their number, as S3 makes it for multipart uploads:
    MD5 of MD5s (the ETag), CRC-32 of CRC-32s (the COMPOSITE checksum)."""

    __slots__ = ("_digests", "_left", "_new", "_part", "_size")

    def __init__(self, part_bytes: int, new: Callable[[], Hasher]) -> None:
        self._size = self._left = part_bytes
        self._new = new
        self._part = new()
        self._digests: list[bytes] = []

    def update(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            now = view[: self._left]
            self._part.update(now)
            self._left -= len(now)
            view = view[len(now) :]
            if not self._left:
                self._next()

    def _next(self) -> None:
        self._digests.append(bytes.fromhex(self._part.hexdigest()))
        self._part, self._left = self._new(), self._size

    def hexdigest(self) -> str:
        if self._left < self._size:
            self._next()
        whole = self._new()
        whole.update(b"".join(self._digests))
        return f"{whole.hexdigest()}-{len(self._digests)}"


def crc_of_parts(crcs: Sequence[int]) -> str:
    """What `OfParts` gives for CRC-32, from the parts' values."""
    return f"{crc32(b''.join(crc.to_bytes(4) for crc in crcs)):08x}-{len(crcs)}"


def _hashlib(algorithm: str) -> Hasher:
    import hashlib

    return hashlib.new(algorithm, usedforsecurity=False)


def _md5() -> Hasher:
    return _hashlib("md5")


class _Native:
    """A CRC whose function takes (data, previous) and returns an int."""

    __slots__ = ("_function", "_value", "_width")

    def __init__(self, function: Callable[[bytes, int], int], width: int) -> None:
        self._function = function
        self._width = width
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._value = self._function(bytes(data), self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{self._width}x}"


def _crc32c() -> Callable[[bytes, int], int] | None:
    try:
        from awscrt import checksums
    except ImportError:
        try:
            import google_crc32c
        except ImportError:
            return None
        return lambda data, previous: int(google_crc32c.extend(previous, data))
    return lambda data, previous: int(checksums.crc32c(data, previous))


def _crc64nvme() -> Callable[[bytes, int], int] | None:
    try:
        from awscrt import checksums
    except ImportError:
        return None
    function = getattr(checksums, "crc64nvme", None)
    return None if function is None else lambda data, previous: int(function(data, previous))


def new(algorithm: str) -> Hasher | None:
    """A hasher, or None when this installation cannot compute `algorithm`."""
    if algorithm == "crc32":
        return Crc32()
    if algorithm in ("md5", "sha1", "sha256"):
        return _hashlib(algorithm)
    if algorithm == "crc32c":
        function = _crc32c()
        return None if function is None else _Native(function, 8)
    if algorithm == "crc64nvme":
        function = _crc64nvme()
        return None if function is None else _Native(function, 16)
    return None


def choose(checks: Mapping[str, str], mode: str) -> tuple[str, str] | None:
    """The check to make: (algorithm, expected hex), or None. `mode` is `STORAGE_VERIFY`."""
    if mode == "size":
        pinned = checks.get("sha256")
        return ("sha256", pinned) if pinned else None
    for algorithm in PREFERENCE:
        if algorithm in checks and new_for(algorithm, 0) is not None:
            return algorithm, checks[algorithm]
    for algorithm, value in checks.items():
        if algorithm.startswith((MD5_OF_PARTS, CRC_OF_PARTS)):
            return algorithm, value
    return None


def new_for(algorithm: str, size: int) -> Hasher | None:
    """As `new`, for a file of `size` bytes: git hashes a header with the size first."""
    if algorithm.startswith(MD5_OF_PARTS):
        return OfParts(int(algorithm.removeprefix(MD5_OF_PARTS)), _md5)
    if algorithm.startswith(CRC_OF_PARTS):
        return OfParts(int(algorithm.removeprefix(CRC_OF_PARTS)), Crc32)
    if algorithm == "gitsha1":
        hasher = _hashlib("sha1")
        hasher.update(b"blob %d\0" % size)
        return hasher
    return new(algorithm)


def from_base64(text: str) -> str:
    """A checksum as hexadecimal digits; empty when `text` is no base64."""
    from binascii import a2b_base64

    try:
        return a2b_base64(text, strict_mode=True).hex()
    except ValueError:
        return ""


def of_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file's content."""
    hasher = new_for(algorithm, path.stat().st_size)
    if hasher is None:
        raise ValueError(f"cannot compute {algorithm}")
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(view):
            hasher.update(view[:count])
    return hasher.hexdigest()


_POLYNOMIAL = 0xEDB88320


def combine_crc32(first: int, second: int, second_length: int) -> int:
    """CRC-32 of A+B from crc(A), crc(B) and len(B).

    Appending n zero bytes to A multiplies its CRC by x^(8n) modulo the polynomial; then B's CRC is
    added (zlib's crc32_combine; the CRCs here are bit-reflected, x^0 is the top bit).
    """
    factor, power, bits = 1 << 31, 1 << 30, second_length * 8
    while bits:
        if bits & 1:
            factor = _multiply(power, factor)
        power = _multiply(power, power)
        bits >>= 1
    return _multiply(factor, first) ^ second


def _multiply(left: int, right: int) -> int:
    """Product of two reflected polynomials modulo the CRC-32 polynomial."""
    product = 0
    mask = 1 << 31
    while mask:
        if left & mask:
            product ^= right
        right = (right >> 1) ^ (_POLYNOMIAL if right & 1 else 0)
        mask >>= 1
    return product
