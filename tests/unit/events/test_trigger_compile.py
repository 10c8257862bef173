"""Compiling InferenceTriggers: rubbish in any field is a problem with a place, never a crash."""

import contextlib
import json
from typing import Any

import pytest

from events import event as events
from events import filters
from knative import compiler, errors

SPEC: dict[str, Any] = {
    "source": {
        "s3": {
            "bucket": "mnist",
            "notify": "IntegrationSource",
            "queue": "arn:aws:sqs:eu-west-1:1:q",
        }
    },
    "target": {"ref": {"kind": "InferenceService", "name": "m"}},
    "request": {"object": "base64"},
    "result": {"write": {"key": "{object.key}.json"}, "reply": {"type": "t"}},
    "dedupe": {"store": "s3", "bucket": "mnist"},
    "broker": {"name": "b", "class": "Kafka"},
    "delivery": {"retry": 3},
    "adapter": {"maxBodyBytes": 4096, "snsTopics": ["arn:t"], "buckets": ["other"]},
    "scale": {"max": 3},
    "resources": {"limits": {"memory": "1Gi"}},
    "concurrency": {"max": 3},
    "deadlineSeconds": 30,
}
JUNK: list[Any] = [1, 1.5, "x", "", [], {}, [1], {"a": 1}, True, [{}], {"a": {"b": []}}, [[]]]


def compiled(spec: Any) -> list[dict[str, Any]]:
    manifest = {
        "apiVersion": "turnout.dev/v1alpha1",
        "kind": "InferenceTrigger",
        "metadata": {"name": "t"},
        "spec": spec,
    }
    return compiler.compile_text(json.dumps(manifest)).objects


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name, item in value.items():
            found += places(item, (*path, name))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    return {**value, path[0]: replaced(value[path[0]], path[1:], new)}


def test_the_good_one_compiles() -> None:
    kinds = [(item["kind"], item["metadata"]["name"]) for item in compiled(SPEC)]
    assert ("Service", "t-sink") in kinds
    assert ("Service", "t-adapter") in kinds
    assert ("Broker", "b") in kinds
    assert ("Trigger", "t") in kinds
    assert ("SinkBinding", "t-adapter") in kinds
    assert ("IntegrationSource", "t-sqs") in kinds


@pytest.mark.parametrize("path", places(SPEC), ids=lambda path: ".".join(map(str, path)) or "spec")
def test_rubbish_anywhere_is_a_problem_or_fine(path: tuple[Any, ...]) -> None:
    for junk in JUNK:
        with contextlib.suppress(errors.ManifestError):
            compiled(replaced(SPEC, path, junk))


def test_delivery_is_always_complete() -> None:
    objects = {(item["kind"]): item for item in compiled(SPEC)}
    block = objects["Trigger"]["spec"]["delivery"]
    assert block["retry"] == 3
    assert set(block) == {"retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink"}


def test_the_sink_reads_what_the_compiler_writes() -> None:
    from events import spec

    (sink,) = [item for item in compiled(SPEC) if item["metadata"]["name"] == "t-sink"]
    (container,) = sink["spec"]["template"]["spec"]["containers"]
    text = next(item["value"] for item in container["env"] if item["name"] == "SINK_SPEC")
    assert spec.parse(json.loads(text)).target_url.endswith("/v1/models/m:predict")


def test_a_token_that_nobody_could_send_is_refused() -> None:
    token = {"adapter": {"tokenSecret": {"name": "s", "key": "k"}, "public": True}}
    with pytest.raises(errors.ManifestError) as error:
        compiled({**SPEC, **token})
    assert "spec.adapter.tokenSecret" in str(error.value)
    assert "spec.adapter.public" in str(error.value)
    source = {"s3": {"bucket": "mnist", "notify": "Webhook"}}
    assert compiled({**SPEC, **token, "source": source})


def test_an_ordered_broker_gets_a_partition_key() -> None:
    def adapter_env(**broker: Any) -> list[str]:
        objects = compiled({**SPEC, "broker": {"name": "b", "class": "Kafka", **broker}})
        (found,) = [item for item in objects if item["metadata"]["name"] == "t-adapter"][:1]
        (container,) = found["spec"]["template"]["spec"]["containers"]
        return [item["name"] for item in container["env"]]

    assert "TURNOUT_PARTITION_BY_OBJECT" in adapter_env(ordered=True)
    assert "TURNOUT_PARTITION_BY_OBJECT" not in adapter_env()


def test_an_integration_source_may_use_the_service_account() -> None:
    objects = compiled({**SPEC, "serviceAccountName": "reader"})
    (source,) = [item for item in objects if item["kind"] == "IntegrationSource"]
    assert source["spec"]["aws"]["auth"] == {"serviceAccountName": "reader"}


def test_an_adapter_may_pass_on_other_triggers_buckets() -> None:
    (adapter,) = [item for item in compiled(SPEC) if item["metadata"]["name"] == "t-adapter"][:1]
    (container,) = adapter["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item.get("value") for item in container["env"]}
    assert env["TURNOUT_BUCKETS"] == "mnist,other"


def test_who_posts_to_the_broker_itself_may_spell_types_as_ceph_does() -> None:
    source = {"s3": {"bucket": "mnist", "notify": "None", "events": ["ObjectCreated:*"]}}
    spec = {**SPEC, "source": source, "adapter": None, "delivery": None}
    (trigger,) = (item for item in compiled(spec) if item["kind"] == "Trigger")
    wants = filters.compile_filters(trigger["spec"])
    for prefix in ("com.amazonaws.s3.", "com.amazonaws.s3:", "com.amazonaws."):
        event = events.make(id="1", source="ceph:s3.zg.mnist", type=f"{prefix}ObjectCreated:Put")
        assert wants(event), prefix
    assert not wants(
        events.make(id="1", source="x.mnist", type="com.amazonaws.ObjectRemoved:Delete")
    )


def test_an_integration_source_polls_in_the_queues_region() -> None:
    (source,) = (item for item in compiled(SPEC) if item["kind"] == "IntegrationSource")
    assert source["spec"]["aws"]["sqs"] == {
        "arn": "arn:aws:sqs:eu-west-1:1:q",
        "region": "eu-west-1",
    }


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"source": {"s3": {**SPEC["source"]["s3"], "queue": "https://sqs/1/q"}}}, "queue"),
        ({"source": {"s3": {**SPEC["source"]["s3"], "notify": "SQS"}}}, "queue"),
        ({"dedupe": {"store": "sqlite", "path": "journal.sqlite"}}, "dedupe.path"),
        ({"dedupe": {"store": "sqlite", "path": "/journal.sqlite"}}, "dedupe.path"),
        ({"dedupe": {"store": "sqlite", "path": "/tmp/journal.sqlite"}}, "dedupe.path"),
    ],
)
def test_what_no_pod_could_do_is_a_problem(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(errors.ManifestError) as caught:
        compiled({**SPEC, **changes})
    assert where in str(caught.value)


def test_who_posts_may_have_to_log_in() -> None:
    adapter = {
        "public": True,
        "tokenSecret": {"name": "t", "key": "token"},
        "basicSecret": {"name": "b"},
    }
    spec = {**SPEC, "source": {"s3": {"bucket": "mnist"}}, "adapter": adapter}
    (service,) = (
        item
        for item in compiled(spec)
        if item["metadata"]["name"] == "t-adapter" and item["kind"] == "Service"
    )
    env = service["spec"]["template"]["spec"]["containers"][0]["env"]
    references = {
        one["name"]: one["valueFrom"]["secretKeyRef"] for one in env if "valueFrom" in one
    }
    assert references == {
        "TURNOUT_TOKEN": {"name": "t", "key": "token"},
        "TURNOUT_USER": {"name": "b", "key": "username"},
        "TURNOUT_PASSWORD": {"name": "b", "key": "password"},
    }
    for wrong in ({"basicSecret": {}}, {"basicSecret": "b"}):
        with pytest.raises(errors.ManifestError, match="basicSecret"):
            compiled({**spec, "adapter": wrong})


def test_a_sink_for_large_objects_gets_its_memory() -> None:
    def made(resources: Any) -> Any:
        objects = compiled({**SPEC, "resources": resources})
        (sink,) = (
            item
            for item in objects
            if item["metadata"]["name"] == "t-sink" and item["kind"] == "Service"
        )
        return sink["spec"]["template"]["spec"]["containers"][0]["resources"]

    usual = made(None)
    assert made({"limits": {"memory": "4Gi"}}) == {
        **usual,
        "limits": {**usual["limits"], "memory": "4Gi"},
    }
    for wrong in ("1Gi", {"memory": "1Gi"}, {"limits": "1Gi"}, {"limits": {"memory": "much"}}):
        with pytest.raises(errors.ManifestError):
            made(wrong)
