"""Knative objects to workloads: what is read, what is refused."""

import base64
from typing import Any

import pytest

from knative.local import workload
from knative.local.errors import InvalidWorkload

CONTAINER = {"image": "i", "command": ["run"]}


def service(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {
            "template": {"spec": {"containers": [{"image": "i", "command": ["run"]}], **spec}}
        },
    }


def test_defaults_of_a_service() -> None:
    found = workload.parse([service()]).services[0]
    template = found.template
    assert (found.key, found.traffic[0].percent) == ("default/s", 100)
    assert (template.serving.name, template.serving.port) == ("user-container", 8080)
    assert (template.timeout_s, template.response_start_s, template.idle_s) == (300, 300, 0)
    assert template.concurrency == 0


def test_response_start_is_never_longer_than_the_whole() -> None:
    template = workload.parse([service(timeoutSeconds=20)]).services[0].template
    assert (template.timeout_s, template.response_start_s) == (20, 20)
    longer = workload.parse([service(timeoutSeconds=600)]).services[0].template
    assert (longer.timeout_s, longer.response_start_s) == (600, 300)


def test_ports_probes_and_resources() -> None:
    containers = [
        {
            "name": "main",
            "image": "i",
            "command": ["run"],
            "ports": [{"name": "h2c", "containerPort": 9000}],
            "readinessProbe": {
                "httpGet": {"path": "/r", "httpHeaders": [{"name": "a", "value": 1}]}
            },
            "livenessProbe": {"exec": {"command": ["true"]}},
            "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": 1, "memory": "1Gi"}},
        },
        {"name": "side", "image": "j", "command": ["side"]},
    ]
    template = workload.parse([service(containers=containers)]).services[0].template
    main = template.serving
    assert (main.name, main.port, main.h2c) == ("main", 9000, True)
    assert main.readiness is not None
    assert main.readiness.headers == (("a", "1"),)
    assert main.readiness.period_s == 0
    assert main.liveness is not None
    assert main.liveness.period_s == 10
    resources = main.resources
    assert (resources.cpu_request_m, resources.cpu_limit_m) == (250, 1000)
    assert (resources.memory_request, resources.memory_limit) == (2**30, 2**30)


def test_secrets_config_maps_and_others() -> None:
    parsed = workload.parse(
        [
            {
                "kind": "Secret",
                "metadata": {"name": "s", "namespace": "n"},
                "data": {"a": base64.b64encode(b"\xff").decode()},
                "stringData": {"b": "text"},
            },
            {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}},
            {"kind": "Broker", "metadata": {"name": "b"}},
            {"kind": "Namespace", "metadata": {"name": "n"}},
            {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "j"}},
        ]
    )
    assert parsed.secrets == {"n/s": {"a": b"\xff", "b": b"text"}}
    assert parsed.config_maps == {"default/c": {"k": b"v"}}
    assert [item["kind"] for item in parsed.others] == ["Broker"]
    assert parsed.warnings == ("CronJob default/j: not run by the local engine (batch/v1)",)


def test_all_problems_are_reported_together() -> None:
    two_ports = [
        {"image": "a", "command": ["a"], "ports": [{}]},
        {"image": "b", "command": ["b"], "ports": [{}]},
    ]
    split = service()
    split["spec"]["traffic"] = [{"percent": 60, "latestRevision": True}]
    odd = service(containers=[{"image": "x"}], volumes=[{"name": "v", "nfs": {}}])
    annotated = service()
    annotated["spec"]["template"]["metadata"] = {
        "annotations": {"autoscaling.knative.dev/window": "soon"}
    }
    memory = {"image": "x", "command": ["x"], "resources": {"limits": {"memory": "much"}}}
    with pytest.raises(InvalidWorkload) as caught:
        workload.parse(
            [
                service(containers=two_ports),
                split,
                odd,
                annotated,
                service(containers=[memory]),
                {"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "???"}},
            ]
        )
    text = "\n".join(caught.value.lines)
    for expected in (
        "exactly one container of a pod must have `ports`",
        "the percentages add up to 60, not 100",
        "--map 'x=COMMAND'",
        "volumes[0]: has no source this machine knows",
        "autoscaling.knative.dev/window: 'soon' is not a duration",
        "'much' is not a quantity",
        "Secret default/s.data.k: is not base64",
        "is defined twice",
    ):
        assert expected in text


@pytest.mark.parametrize(
    "image", ["repo/app", "repo/app:v1", "repo/app@sha256:" + "0" * 64, "host:5000/repo/app:v2"]
)
def test_mapped_commands_find_images_without_tag(image: str) -> None:
    commands = {"repo/app": ("run",), "host:5000/repo/app": ("run",)}
    assert workload.mapped(image, commands) == ("run",)


def test_exact_mapping_wins() -> None:
    commands = {"app": ("any",), "app:v2": ("two",)}
    assert workload.mapped("app:v2", commands) == ("two",)
    assert workload.mapped("other", commands) == ()


def test_fingerprint_ignores_order_and_sees_changes() -> None:
    first = workload.fingerprint({"a": 1, "b": 2}, {})
    assert first == workload.fingerprint({"b": 2, "a": 1}, {})
    assert first != workload.fingerprint({"a": 1, "b": 3}, {})
    assert first != workload.fingerprint({"a": 1, "b": 2}, {"i": ("x",)})
