"""The content type of an answer, judged by its bytes.

KServe's router says application/json for any JSON text and otherwise lets Go's net/http sniff. The
table follows the WHATWG "MIME Sniffing" standard (sections 6 and 7) with Go's own choices: 512
bytes are looked at, tags must be followed by a blank or `>`, gzip is application/x-gzip, WebM is
recognised by its EBML mark alone, text without binary bytes is UTF-8.
"""

import re
from typing import Final

from router_fn.body import is_json

JSON: Final = "application/json"
_SNIFFED: Final = 512
_BLANKS: Final = b"\t\n\x0c\r "

_TAG = re.compile(
    rb"<(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P"
    rb"|!--)[ >]",
    re.I,
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")

# In order; a dot stands for any byte.
_SIGNATURES: Final = tuple(
    (re.compile(pattern, re.S), kind)
    for pattern, kind in (
        (rb"%PDF-", "application/pdf"),
        (rb"%!PS-Adobe-", "application/postscript"),
        (rb"\xfe\xff..", "text/plain; charset=utf-16be"),
        (rb"\xff\xfe..", "text/plain; charset=utf-16le"),
        (rb"\xef\xbb\xbf.", "text/plain; charset=utf-8"),
        (rb"\x00\x00[\x01\x02]\x00", "image/x-icon"),
        (rb"BM", "image/bmp"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF....WEBPVP", "image/webp"),
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"FORM....AIFF", "audio/aiff"),
        (rb"ID3", "audio/mpeg"),
        (rb"OggS\x00", "application/ogg"),
        (rb"MThd\x00\x00\x00\x06", "audio/midi"),
        (rb"RIFF....AVI ", "video/avi"),
        (rb"RIFF....WAVE", "audio/wave"),
    )
)
_LATER_SIGNATURES: Final = tuple(
    (re.compile(pattern, re.S), kind)
    for pattern, kind in (
        (rb"\x1a\x45\xdf\xa3", "video/webm"),
        (rb".{34}LP", "application/vnd.ms-fontobject"),
        (rb"\x00\x01\x00\x00", "font/ttf"),
        (rb"OTTO", "font/otf"),
        (rb"ttcf", "font/collection"),
        (rb"wOFF", "font/woff"),
        (rb"wOF2", "font/woff2"),
        (rb"\x1f\x8b\x08", "application/x-gzip"),
        (rb"PK\x03\x04", "application/zip"),
        (rb"Rar!\x1a\x07(?:\x00|\x01\x00)", "application/x-rar-compressed"),
        (rb"\x00asm", "application/wasm"),
    )
)


def content_type(body: bytes) -> str | None:
    """The Content-Type header for an answer, None for an empty one."""
    if not body:
        return None
    return JSON if is_json(body) else detect(body)


def detect(body: bytes) -> str:
    """What Go's http.DetectContentType says."""
    head = body[:_SNIFFED]
    visible = head.lstrip(_BLANKS)
    if _TAG.match(visible):
        return "text/html; charset=utf-8"
    if visible.startswith(b"<?xml"):
        return "text/xml; charset=utf-8"
    for signature, kind in _SIGNATURES:
        if signature.match(head):
            return kind
    if _is_mp4(head):
        return "video/mp4"
    for signature, kind in _LATER_SIGNATURES:
        if signature.match(head):
            return kind
    return "application/octet-stream" if _BINARY.search(visible) else "text/plain; charset=utf-8"


def _is_mp4(head: bytes) -> bool:
    """An ISO base media file whose brands (all but the version at 12) name an `mp4`."""
    if len(head) < 12 or head[4:8] != b"ftyp":
        return False
    size = int.from_bytes(head[:4], "big")
    if size > len(head) or size % 4:
        return False
    return any(head[at : at + 3] == b"mp4" for at in range(8, size, 4) if at != 12)
