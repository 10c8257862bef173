"""From an event and its object to the request body a graph understands, and the documents
templates see.

An object's bytes are decoded only into the forms that are asked for. Pure, except that a presigned
URL and the bytes are given by the caller.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from .errors import Refused
from .event import Event, compact_json, is_json_media
from .objects import Stored
from .spec import RequestSpec
from .storage import ObjectRef

FORMS = ("base64", "text", "json", "url")
"""Members of the `object` document that cost something; made only if a template names them."""

_DEFAULT_INSTANCES = {"base64": "data", "url": "url"}
"""Without a template: `{"instances": [{"data": BASE64}]}`, the V1 body most handlers read."""


def needs(spec: RequestSpec) -> frozenset[str]:
    """The forms of the object this request is made of: any of base64, bytes, text, json, url."""
    wanted: set[str] = set() if spec.object == "none" else {spec.object}
    for path in spec.template.paths if spec.template else ():
        for form in FORMS:
            if path == f"object.{form}" or path.startswith((f"object.{form}.", f"object.{form}[")):
                wanted.add(form)
    return frozenset(wanted)


def needs_bytes(spec: RequestSpec) -> bool:
    """Whether the object must be fetched (a presigned URL alone does not need its bytes)."""
    return bool(needs(spec) - {"url"})


def describe_event(event: Event) -> dict[str, Any]:
    """The `event` document: the context attributes."""
    return dict(event.attributes)


def describe_object(about: ObjectRef, stored: Stored | None) -> dict[str, Any]:
    """The `object` document without its content: where it is and what is known about it."""
    name = about.key.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return {
        "bucket": about.bucket,
        "key": stored.key if stored else about.key,
        "name": name,
        "stem": stem if dot else name,
        "extension": extension if dot else "",
        "directory": about.key.rpartition("/")[0],
        "versionId": about.version_id,
        "etag": stored.etag if stored else about.etag,
        "size": stored.size if stored else about.size,
        "sequencer": about.sequencer,
        "contentType": stored.content_type if stored else about.content_type,
        "eventName": about.event_name,
    }


def documents(
    event: Event,
    about: ObjectRef | None,
    stored: Stored | None,
    forms: frozenset[str],
    presign: Callable[[], str],
) -> dict[str, Any]:
    """What `{event...}`, `{data...}` and `{object...}` look into. Raises `Refused` for a broken
    object."""
    result: dict[str, Any] = {"event": describe_event(event)}
    if event.data is not None and is_json_media(event.content_type):
        result["data"] = event.json()
    if about is not None:
        result["object"] = describe_object(about, stored) | _contents(stored, forms, presign)
    return result


def build(
    spec: RequestSpec, event: Event, stored: Stored | None, documents: dict[str, Any]
) -> tuple[bytes, dict[str, str]]:
    """Request body and headers. Raises `Refused` when this event can never make a request."""
    headers = {name: text.text(documents) for name, text in spec.headers}
    body, content_type = _body(spec, event, stored, documents)
    headers.setdefault("Content-Type", spec.content_type or content_type)
    return body, headers


def _body(
    spec: RequestSpec, event: Event, stored: Stored | None, documents: dict[str, Any]
) -> tuple[bytes, str]:
    if spec.template is not None:
        return compact_json(spec.template.build(documents)), "application/json"
    if spec.object in _DEFAULT_INSTANCES:
        value = documents["object"][spec.object]
        return compact_json(
            {"instances": [{_DEFAULT_INSTANCES[spec.object]: value}]}
        ), "application/json"
    if stored is not None and spec.object in ("bytes", "text"):
        return stored.body, stored.content_type
    if stored is not None and spec.object == "json":
        return stored.body, "application/json"
    return event.data or b"", event.content_type or "application/json"


def _contents(
    stored: Stored | None, forms: frozenset[str], presign: Callable[[], str]
) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    if "url" in forms:
        contents["url"] = presign()
    if stored is None:
        return contents
    if "base64" in forms:
        contents["base64"] = base64.b64encode(stored.body).decode("ascii")
    where = f"s3://{stored.bucket}/{stored.key}"
    if "text" in forms:
        try:
            contents["text"] = stored.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused(f"{where} is not UTF-8 text: {error}") from error
    if "json" in forms:
        try:
            contents["json"] = json.loads(stored.body)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{where} is not JSON: {error}") from error
    return contents
