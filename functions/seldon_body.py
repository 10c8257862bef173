"""From a request to Seldon's wrapper to its JSON: a JSON body, a form, several parts, or a query.

Whatever the Content-Type says, a body that is JSON is taken as JSON: curl's default type is that of
a form.
"""

import io
import json
from typing import Any
from urllib.parse import parse_qs

from .seldon_message import BadData

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


def parse(body: bytes, content_type: str = "", query: bytes = b"") -> Any:
    """The request's JSON. Raises BadData."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _MULTIPART:
        return _parts(body, content_type)
    if media_type == _FORM or body.startswith(b"json="):
        field = _field(body)
        if field:
            return _loads(field)
    if not body.strip() and query:
        return _loads(query)
    found = _loads(body)
    if found is None:
        raise BadData("Can't find JSON in data")
    return found


def query_json(target: bytes) -> bytes:
    """The query parameter `json` of a request target; empty if there is none."""
    return _field(target.partition(b"?")[2])


def _field(text: bytes) -> bytes:
    return parse_qs(text.decode("latin-1"), encoding="utf-8").get("json", [""])[0].encode()


def _loads(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadData("Can't find JSON in data") from None


def _parts(body: bytes, content_type: str) -> dict[str, Any]:
    """Every field is JSON, but `strData`, which is text; a file is bytes if called `binData`, else
    text."""
    import base64

    from werkzeug.formparser import FormDataParser
    from werkzeug.http import parse_options_header

    media_type, options = parse_options_header(content_type)
    try:
        # The body is in memory already: no temporary files.
        parser = FormDataParser(stream_factory=lambda *_, **__: io.BytesIO(), silent=False)
        _, form, files = parser.parse(io.BytesIO(body), media_type, len(body), options)
    except ValueError as exc:
        raise BadData(f"the multipart body cannot be read: {exc}") from None
    message: dict[str, Any] = {}
    for name, text in form.items():
        message[name] = text if name == "strData" else _loads(text)
    for name, file in files.items():
        content = file.stream.read()
        if name == "binData":
            message[name] = base64.b64encode(content).decode()
        else:
            message.setdefault(name, content.decode("utf-8", "replace"))
    return message
