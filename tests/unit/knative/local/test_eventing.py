"""Eventing's pure parts: destinations, SinkBindings, PingSources."""

import json

import pytest

from knative.local import eventing, spec
from knative.local.errors import InvalidWorkload

SERVICE = spec.Service(
    name="echo",
    namespace="ns",
    labels={"app": "a"},
    template=spec.Template(containers=(spec.Container(name="c", port=1),)),
)
BROKER = {"ref": {"kind": "Broker", "name": "b"}}


@pytest.mark.parametrize(
    ("sink", "url"),
    [
        ({"uri": "http://elsewhere/x"}, "http://elsewhere/x"),
        ({"ref": {"kind": "Service", "name": "s"}}, "http://s.ns.svc.cluster.local/"),
        (
            {"ref": {"kind": "Service", "name": "s", "namespace": "o"}, "uri": "/in?a=b"},
            "http://s.o.svc.cluster.local/in?a=b",
        ),
        (BROKER, f"{eventing.INGRESS}/ns/b"),
    ],
)
def test_destinations(sink: spec.Json, url: str) -> None:
    assert eventing.destination(sink, "ns") == url


@pytest.mark.parametrize("sink", [{}, {"ref": {"kind": "Channel", "name": "c"}}])
def test_bad_destinations(sink: spec.Json) -> None:
    with pytest.raises(ValueError, match="sink"):
        eventing.destination(sink, "ns")


def binding(**subject: object) -> spec.Json:
    return {
        "kind": "SinkBinding",
        "metadata": {"name": "b", "namespace": "ns"},
        "spec": {"subject": {"kind": "Service", **subject}, "sink": BROKER},
    }


@pytest.mark.parametrize(
    ("subject", "bound"),
    [
        ({"name": "echo"}, True),
        ({"name": "other"}, False),
        ({"selector": {"matchLabels": {"app": "a"}}}, True),
        ({"selector": {"matchLabels": {"app": "b"}}}, False),
        ({"selector": {"matchLabels": {}}}, False),
        ({"kind": "Deployment", "name": "echo"}, False),
    ],
)
def test_subjects_of_a_sink_binding(subject: dict[str, object], bound: bool) -> None:
    found = eventing.sink_variables([binding(**subject)], SERVICE)
    expected = {"K_SINK": f"{eventing.INGRESS}/ns/b", "K_CE_OVERRIDES": ""}
    assert found == (expected if bound else None)


def ping(**body: object) -> eventing.Ping:
    return eventing.Ping(
        {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"sink": BROKER, **body}}
    )


def test_ping_event() -> None:
    made = ping(data='{"a": 1}', ceOverrides={"extensions": {"team": "x"}})
    headers, body = made.event(0.0)
    assert json.loads(body) == {"a": 1}
    assert headers["ce-type"] == "dev.knative.sources.ping"
    assert headers["ce-source"] == "/apis/v1/namespaces/ns/pingsources/p"
    assert headers["ce-time"] == "1970-01-01T00:00:00Z"
    assert headers["ce-team"] == "x"
    assert headers["ce-id"] != made.event(0.0)[0]["ce-id"]
    assert made.sink == f"{eventing.INGRESS}/ns/b"
    assert made.schedule.after(0.0) == 60.0


def test_ping_with_binary_data() -> None:
    _, body = ping(dataBase64="/w==", contentType="application/octet-stream").event(0.0)
    assert body == b"\xff"


@pytest.mark.parametrize("body", [{"schedule": "nonsense"}, {"sink": {}}, {"timezone": "Mars"}])
def test_bad_ping_sources_are_named(body: dict[str, object]) -> None:
    with pytest.raises(InvalidWorkload, match="PingSource ns/p"):
        ping(**body)
