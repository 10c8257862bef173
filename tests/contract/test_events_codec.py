"""Our codec against the CloudEvents SDK as an independent peer, and its conformance features'
messages."""

import base64
import json
from typing import Any

import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from events import codec
from events import event as events
from events.errors import InvalidEvent, UnsupportedMedia

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=40)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12).filter(
    lambda name: name not in {*events.STRING_ATTRIBUTES, "data"}
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


def allowed(text: str) -> bool:
    try:
        events.check({"id": text, "source": "s", "type": "t", "specversion": "1.0"})
    except InvalidEvent:
        return False
    return text.strip() == text  # HTTP trims header values; only percent-encoding keeps them


@settings(max_examples=150, deadline=None)
@given(
    TEXT.filter(allowed),
    TEXT.filter(allowed),
    st.dictionaries(NAMES, TEXT.filter(allowed), max_size=3),
    JSON,
)
def test_the_sdk_reads_what_we_write(
    id: str, subject: str, extensions: dict[str, str], data: Any
) -> None:
    raw = json.dumps(data).encode()
    event = events.make(
        id=id, source="/s", type="t", subject=subject, data=raw, datacontenttype="application/json",
        time="2026-01-02T03:04:05.678901Z", **extensions,
    )  # fmt: skip
    for encode in (codec.encode_binary, codec.encode_structured):
        headers, body = encode(event)
        peer = sdk.from_http_event(sdk.HTTPMessage(headers=headers, body=body))
        assert peer.get_id() == id
        assert peer.get_subject() == subject
        assert {name: peer.get_extension(name) for name in extensions} == extensions
        assert peer.get_data() == data
        assert codec.decode(headers, body)[0].json() == data


@settings(max_examples=150, deadline=None)
@given(
    TEXT.filter(allowed),
    st.dictionaries(NAMES, TEXT.filter(allowed), max_size=3),
    st.dictionaries(TEXT, JSON, max_size=4),
)
def test_we_read_what_the_sdk_writes(
    id: str, extensions: dict[str, str], data: dict[str, Any]
) -> None:
    attributes = {"id": id, "source": "/s", "type": "t", "datacontenttype": "application/json"}
    peer = CloudEvent({**attributes, **extensions}, data)
    for encode in (sdk.to_binary, sdk.to_structured):
        message = encode(peer, JSONFormat())
        (event,) = codec.decode(message.headers, message.body)
        assert event.id == id
        assert {name: event.attributes[name] for name in extensions} == extensions
        assert event.json() == data


HEAD = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=UTF-8"}
VALUE: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


@pytest.mark.parametrize("body", [b"\x00\xff\xfe", b"<xml/>", "täxt".encode(), b'{"n": 1.10}', b""])
@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "application/xml", "text/plain", "application/json"]
)
def test_binary_data_is_verbatim(kind: str, body: bytes) -> None:
    (event,) = codec.decode({**HEAD, "Content-Type": kind}, body)
    assert (event.data or b"") == body
    assert codec.encode_binary(event)[1] == body


@pytest.mark.parametrize("body", [b"\x00\xff\xfe", "täxt".encode(), b'{"n":1.1}'])
@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "text/plain", "application/json", "image/svg+json"]
)
def test_structured_and_back(kind: str, body: bytes) -> None:
    event = events.make(id="1", source="s", type="t", data=body, datacontenttype=kind)
    assert codec.decode(*codec.encode_structured(event)) == [event]
    assert codec.decode(*codec.encode_batch([event, event])) == [event, event]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({"data": {"a": 1}}, b'{"a":1}'),
        ({"data": "text"}, b'"text"'),
        ({"data": None}, b"null"),
        ({}, None),
        ({"data_base64": "AAE="}, b"\x00\x01"),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text"),
        ({"data": {"a": 1}, "datacontenttype": "application/vnd.x+json"}, b'{"a":1}'),
        ({"subject": None, "data": 1}, b"1"),
    ],
)
def test_json_format(value: dict[str, Any], data: bytes | None) -> None:
    (event,) = codec.decode(STRUCTURED, json.dumps({**VALUE, **value}).encode())
    assert event.data == data
    assert "subject" not in event.attributes


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"quoted \\" text"', 'quoted " text'),
        ("%c3%bc", "ü"),
        ("%41", "A"),
        ("100%25", "100%"),
        ("ü".encode().decode("latin-1"), "ü"),
        ("a%2", "a%2"),
    ],
)
def test_header_values(header: str, value: str) -> None:
    (event,) = codec.decode({**HEAD, "CE-Subject": header}, b"")
    assert event.subject == value


def test_nanoseconds_survive() -> None:
    time = "2026-01-02T03:04:05.123456789+02:00"
    (event,) = codec.decode({**HEAD, "ce-time": time}, b"")
    assert codec.encode_binary(event)[0]["ce-time"] == time


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({**HEAD, "ce-id": ""}, b""),
        ({k: v for k, v in HEAD.items() if k != "ce-id"}, b""),
        ({k: v for k, v in HEAD.items() if k != "ce-specversion"}, b""),
        ({**HEAD, "ce-specversion": "0.3"}, b""),
        ({**HEAD, "ce-time": "2026-01-02"}, b""),
        ({**HEAD, "ce-time": "2026-13-02T00:00:00Z"}, b""),
        ({**HEAD, "ce-subject": "%ff"}, b""),
        ({**HEAD, "ce-subject": "%c0%af"}, b""),
        ({**HEAD, "ce-subject": "%00"}, b""),
        ({**HEAD, "ce-my_ext": "x"}, b""),
        ({**HEAD, "ce-datacontenttype": "x/y"}, b""),
        ({"Content-Type": "application/json"}, b"{}"),
        (STRUCTURED, b"{"),
        (STRUCTURED, b"[]"),
        (STRUCTURED, b"[" * 100_000),
        (STRUCTURED, json.dumps({**VALUE, "id": 1}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "id": ""}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "id": None}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "n": 2**31}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "n": 1.5}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "n": {}}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "Upper": "x"}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "data": 1, "data_base64": "AA=="}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "data_base64": "!"}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "data_base64": 5}).encode()),
        (STRUCTURED, json.dumps({**VALUE, "data": 5, "datacontenttype": "text/plain"}).encode()),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"{}"),
    ],
)
def test_what_is_not_a_cloud_event(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        codec.decode(headers, body)


def test_other_formats_are_unsupported() -> None:
    with pytest.raises(UnsupportedMedia):
        codec.decode({"Content-Type": "application/cloudevents+avro"}, b"")


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(InvalidEvent) as caught:
        codec.decode({"ce-id": "", "ce-specversion": "2.0", "ce-time": "x"}, b"")
    for word in ("id", "specversion", "time", "source", "type"):
        assert word in str(caught.value)


def test_typed_extensions() -> None:
    value = {**VALUE, "flag": True, "count": 7}
    (event,) = codec.decode(STRUCTURED, json.dumps(value).encode())
    assert (event.attributes["flag"], event.attributes["count"]) == (True, 7)
    headers, _ = codec.encode_binary(event)
    assert (headers["ce-flag"], headers["ce-count"]) == ("true", "7")
    structured = json.loads(codec.encode_structured(event)[1])
    assert (structured["flag"], structured["count"]) == (True, 7)


def test_base64_of_the_sdk() -> None:
    peer = CloudEvent(
        {"id": "1", "source": "s", "type": "t", "datacontenttype": "image/png"}, b"\x89P"
    )
    message = sdk.to_structured(peer, JSONFormat())
    assert base64.b64decode(json.loads(message.body)["data_base64"]) == b"\x89P"
    assert codec.decode(message.headers, message.body)[0].data == b"\x89P"
