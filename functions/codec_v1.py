"""V1 over HTTP: bytes -> the body that hooks see -> their result -> bytes; CloudEvents in and
out."""

import base64
import contextlib
from typing import Any

from . import answers, jsonio
from .answers import JSON, Answer, Stream
from .errors import BadHookResult, InvalidRequest, StatusError
from .model import Call
from .wire import cloudevents, v1


class EventReply:
    """How to wrap the answer to a request that came as a CloudEvent."""

    __slots__ = ("attributes", "structured")

    def __init__(self, attributes: dict[str, Any], structured: bool) -> None:
        self.attributes = attributes
        self.structured = structured


def decode(body: bytes, headers: dict[str, str], is_json: bool | None, call: Call) -> Any:
    """JSON decoded and checked, other bodies as bytes, events reduced to their data.

    Raises InvalidRequest. Remembers in `call.payload` how an event's answer is to be wrapped.
    """
    call.payload = None
    if is_json or (is_json is None and (not body or v1.looks_like_json(body))):
        if "ce-specversion" in headers and cloudevents.is_binary(headers):
            return _binary_event(body, headers, call)
        payload = jsonio.loads(body)
        if "cloudevents" in headers.get("content-type", "").lower():
            payload = _declared_event(payload, headers, call)
        elif (
            type(payload) is dict
            and "specversion" in payload
            and cloudevents.is_structured(payload)
        ):
            payload = _structured_event(payload)[1]
    elif "ce-specversion" in headers and cloudevents.is_binary(headers):
        return _binary_event(body, headers, call)
    else:
        return body
    problem = v1.check_lists(payload)
    if problem is not None:
        raise InvalidRequest(problem)
    return payload


def _binary_event(body: bytes, headers: dict[str, str], call: Call) -> Any:
    try:
        call.payload = EventReply(cloudevents.binary_attributes(headers), structured=False)
    except cloudevents.BadEvent as bad:
        raise InvalidRequest(str(bad)) from None
    try:
        payload = jsonio.loads(body)
    except InvalidRequest:
        return body  # KServe: undecodable data reaches the model as bytes
    problem = v1.check_lists(payload)
    if problem is not None:
        raise InvalidRequest(problem)
    return payload


def _declared_event(document: Any, headers: dict[str, str], call: Call) -> Any:
    """The data of what its Content-Type calls an event; its answer will be one, too."""
    media = headers["content-type"].partition(";")[0].strip().lower()
    if media == cloudevents.BATCH:
        raise StatusError(415, "events in batches are not taken: send each in its own request")
    if media != cloudevents.STRUCTURED:
        return document
    if type(document) is not dict:
        raise InvalidRequest("Cloud Event Exceptions: an event is a JSON object")
    attributes, data = _structured_event(document)
    call.payload = EventReply(attributes, structured=True)
    return data


def _structured_event(document: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """(attributes, data). Raises InvalidRequest."""
    try:
        attributes, data = cloudevents.structured_parts(document)
    except cloudevents.BadEvent as bad:
        raise InvalidRequest(str(bad)) from None
    if isinstance(data, bytes) and v1.is_json_type(
        str(attributes.get("datacontenttype") or "application/json")
    ):
        with contextlib.suppress(InvalidRequest):
            data = jsonio.loads(data)
    return attributes, data


def encode(result: Any, model: str, call: Call, settings: Any) -> Answer | Stream:
    try:
        answer = answers.from_result(result, call.response_headers, call.status or 200)
    except TypeError as exc:
        raise BadHookResult(
            f"{call.stage or 'predict'} of model {model} returned {type(result).__name__}: {exc}"
        ) from exc
    reply = call.payload
    if reply is None or isinstance(answer, Stream):
        return answer
    attributes = cloudevents.reply_attributes(
        reply.attributes,
        event_type=settings.ce_type,
        source=settings.ce_source or f"io.kserve.inference.{model}",
        merge=settings.ce_merge,
    )
    if not reply.structured:
        headers = {**(answer.headers or {}), **{f"ce-{k}": v for k, v in attributes.items()}}
        return Answer(answer.status, answer.body, answer.content_type, headers)
    event = {**attributes, "datacontenttype": answer.content_type.decode("latin-1")}
    if answer.content_type == JSON:
        event["data"] = jsonio.loads(answer.body)
    else:  # texts and bytes alike: an event's data is JSON or base64
        event["data_base64"] = base64.b64encode(answer.body).decode()
    return Answer(
        answer.status, jsonio.dumps(event), cloudevents.STRUCTURED.encode(), answer.headers
    )
