"""The two XML documents of S3 that are read: errors and ListObjectsV2 pages."""

import re
from urllib.parse import unquote

from storage_initializer.errors import TransferFailed


def error_code(body: bytes) -> tuple[str, str]:
    """(Code, Message) of an S3 error document, empty when it is none."""
    code = re.search(rb"<Code>([A-Za-z0-9.]+)</Code>", body)
    message = re.search(rb"<Message>([^<]{0,300})", body)
    if not code:
        return "", ""
    text = message[1].decode("utf-8", "replace") if message else ""
    return code[1].decode(), " ".join(text.split())


class Page:
    """One page of ListObjectsV2."""

    def __init__(self) -> None:
        self.objects: list[tuple[str, int, str]] = []
        """(key, size, ETag with its quotes)."""
        self.token = ""
        """Continuation token; empty on the last page."""

    @classmethod
    def parse(cls, body: bytes, where: str) -> "Page":
        """Parse with expat directly: ElementTree would triple the import cost.

        Document type declarations (entity bombs) are refused.
        """
        from xml.parsers import expat

        page = cls()
        text: list[str] = []
        current: dict[str, str] = {}
        encoded = b"<EncodingType>url</EncodingType>" in body
        truncated = False

        def start(name: str, _: object) -> None:
            text.clear()
            if name == "Contents":
                current.clear()

        def end(name: str) -> None:
            nonlocal truncated
            value = "".join(text)
            if name in ("Key", "Size", "ETag"):
                current[name] = value
            elif name == "Contents":
                key = current["Key"]
                key = unquote(key.replace("+", " ")) if encoded else key
                page.objects.append((key, int(current["Size"]), current.get("ETag", "")))
            elif name == "NextContinuationToken":
                page.token = value
            elif name == "IsTruncated":
                truncated = value.strip().lower() == "true"
            text.clear()

        def refuse(*_: object) -> None:
            raise TransferFailed(where, "the listing has a document type declaration")

        parser = expat.ParserCreate()
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = text.append
        parser.StartDoctypeDeclHandler = refuse
        try:
            parser.Parse(body, True)
        except (expat.ExpatError, KeyError, ValueError) as exc:
            raise TransferFailed(where, f"the listing cannot be parsed: {exc}") from exc
        if not truncated:
            page.token = ""
        elif not page.token:
            raise TransferFailed(where, "the listing is truncated but names no next page")
        return page
