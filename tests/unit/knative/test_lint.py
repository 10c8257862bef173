"""Every lint rule has a manifest it speaks about and one it is silent on."""

import json
from typing import Any

import pytest

from knative import compiler, lint


def _isvc(predictor: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/x"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "x", **metadata},
        "spec": {"predictor": {"model": {**model, **predictor.pop("model", {})}, **predictor}},
    }


def _custom(container: dict[str, Any], **predictor: Any) -> dict[str, Any]:
    found = _isvc({})
    found["spec"]["predictor"] = {
        "containers": [{"image": "example.com/img:1", **container}],
        **predictor,
    }
    return found


def _ksvc(pod: dict[str, Any], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    containers = pod.pop("containers", [{"image": "example.com/img:1"}])
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {
            "template": {
                "metadata": {"annotations": annotations or {}},
                "spec": {"containers": containers, **pod},
            }
        },
    }


def _files(name: str, prefix: str, result: dict[str, Any], **s3: Any) -> dict[str, Any]:
    """A trigger about objects in one bucket."""
    return {
        "apiVersion": "turnout.dev/v1alpha1",
        "kind": "InferenceTrigger",
        "metadata": {"name": name},
        "spec": {
            "source": {"s3": {"bucket": "mnist", "prefix": prefix, **s3}},
            "target": {"url": "http://graph"},
            "result": result,
        },
    }


def _graph(steps: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "g"},
        "spec": {"nodes": {"root": {"routerType": "Sequence", "steps": steps}}, **spec},
    }


def _trigger(uri: str, **delivery: Any) -> dict[str, Any]:
    spec = {"broker": "default", "subscriber": {"uri": uri}, **delivery}
    metadata = {"name": "t"}
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": metadata,
        "spec": spec,
    }


GPU = {"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "40Gi"}}}
A, B = {"serviceUrl": "http://a"}, {"serviceUrl": "http://b", "condition": "[@this].#(p==1)"}
INIT = {"name": "i", "image": "busybox", "resources": {"requests": {"cpu": "1m"}}}
DEAD = {"delivery": {"deadLetterSink": {"uri": "http://dead"}}}
PROBE = {"httpGet": {"path": "/"}}
SCRAPE = {"prometheus.io/scrape": "true"}
SCALE = "autoscaling.knative.dev/"

ROWS: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = [
    ("max-scale", [_isvc({})], [_isvc({"maxReplicas": 2})]),
    (
        "small-concurrency",
        [_isvc({"containerConcurrency": 1})],
        [
            _isvc(
                {
                    "containerConcurrency": 1,
                    "annotations": {f"{SCALE}target-utilization-percentage": "100"},
                }
            )
        ],
    ),
    ("unlimited-concurrency", [_isvc({})], [_isvc({"containerConcurrency": 8})]),
    (
        "target-above-concurrency",
        [_isvc({"containerConcurrency": 4, "scaleTarget": 5})],
        [_isvc({"containerConcurrency": 5, "scaleTarget": 5})],
    ),
    (
        "response-start",
        [_ksvc({"timeoutSeconds": 400})],
        [_ksvc({"timeoutSeconds": 400, "responseStartTimeoutSeconds": 400})],
    ),
    (
        "initial-scale-zero",
        [_isvc({"annotations": {f"{SCALE}initial-scale": "0"}})],
        [_isvc({"annotations": {f"{SCALE}initial-scale": "1"}})],
    ),
    ("gpu-from-zero", [_isvc({"model": GPU})], [_isvc({"model": GPU, "minReplicas": 1})]),
    (
        "graph-timeout",
        [_isvc({"timeout": 500}), _graph([{"serviceName": "x"}])],
        [_isvc({"timeout": 500}), _graph([{"serviceName": "x"}], timeout=600)],
    ),
    ("tcp-readiness", [_custom({})], [_custom({"readinessProbe": PROBE})]),
    (
        "probe-period",
        [_custom({"readinessProbe": {**PROBE, "periodSeconds": 10}})],
        [_custom({"readinessProbe": PROBE})],
    ),
    ("startup-probe", [_custom({"startupProbe": PROBE})], [_custom({"livenessProbe": PROBE})]),
    (
        "floating-init-image",
        [_ksvc({"initContainers": [INIT]})],
        [_ksvc({"initContainers": [{**INIT, "image": "busybox:1"}]})],
    ),
    (
        "progress-deadline",
        [_isvc({"model": {"resources": {"limits": {"memory": "64Gi"}}}})],
        [
            _isvc(
                {"model": {"resources": {"limits": {"memory": "64Gi"}}}},
                annotations={"turnout.dev/model-size": "50Gi"},
            )
        ],
    ),
    (
        "unbounded-model-volume",
        [_isvc({})],
        [_isvc({}, annotations={"turnout.dev/model-size": "1Gi"})],
    ),
    (
        "literal-secret",
        [_custom({"env": [{"name": "API_TOKEN", "value": "x"}]})],
        [
            _custom(
                {"env": [{"name": "API_TOKEN", "value": "/run/token"}, {"name": "A", "value": "b"}]}
            )
        ],
    ),
    (
        "scraped-serving-port",
        [_ksvc({}, SCRAPE)],
        [_ksvc({}, {**SCRAPE, "prometheus.io/port": "9000"})],
    ),
    (
        "trigger-to-predict-url",
        [_trigger("http://x.default.svc.cluster.local/v1/models/x:predict", **DEAD)],
        [_trigger("http://sink.default.svc.cluster.local/", **DEAD)],
    ),
    ("no-dead-letter", [_trigger("http://s")], [_trigger("http://s", **DEAD)]),
    (
        "soft-step-before-condition",
        [_graph([A, B])],
        [_graph([{**A, "dependency": "Hard"}, B])],
    ),
    (
        "header-case",
        [_graph([A], propagateHeaders=["x-trace"])],
        [_graph([A], propagateHeaders=["X-Trace", "x-.*"])],
    ),
    (
        "trigger-loop",
        [
            _files("a", "in/", {"write": {"key": "out/{object.name}.json"}}),
            _files("b", "out/", {"copy": {"key": "in/{$.label}/{object.name}"}}),
        ],
        [
            _files("a", "in/", {"write": {"key": "out/{object.name}.json"}}),
            _files("b", "out/", {"copy": {"key": "done/{$.label}/{object.name}"}}),
        ],
    ),
    (
        "trigger-takes-input",
        [
            _files("a", "in/", {"move": {"key": "out/{object.name}"}}),
            _files("b", "in/new/", {"reply": {"type": "t"}}),
        ],
        [
            _files("a", "in/", {"move": {"key": "out/{object.name}"}}, suffix=".png"),
            _files("b", "in/new/", {"reply": {"type": "t"}}, suffix=".json"),
        ],
    ),
    ("cold-chain", [_graph([A] * 3, prewarm="none")], [_graph([A] * 3)]),
]


def _rules(manifests: list[dict[str, Any]]) -> set[str]:
    text = "\n---\n".join(json.dumps(m) for m in manifests)
    found = lint.check(compiler.compile_text(text, file="x.yaml"))
    assert all(p.line for p in found)
    return {p.rule for p in found}


@pytest.mark.parametrize(("rule", "bad", "good"), ROWS, ids=[r[0] for r in ROWS])
def test_rule(rule: str, bad: list[dict[str, Any]], good: list[dict[str, Any]]) -> None:
    assert rule in _rules(bad)
    assert rule not in _rules(good)


def test_every_rule_has_a_row() -> None:
    assert [r.id for r in lint.RULES] == sorted(
        {r.id for r in lint.RULES}, key=[r.id for r in lint.RULES].index
    )
    assert {r.id for r in lint.RULES} == {row[0] for row in ROWS}


def test_findings_end_with_the_remedy() -> None:
    text = json.dumps(_isvc({}))
    for problem in lint.check(compiler.compile_text(text)):
        rule = next(r for r in lint.RULES if r.id == problem.rule)
        assert problem.message.endswith(f"; {rule.remedy}")


@pytest.mark.parametrize(
    ("pair", "loops"),
    [
        # the usual result beside the input, watched by a second trigger that copies back
        ((("in/", {"write": {}}), ("in/", {"copy": {"key": "in/x/{object.name}"}})), True),
        # other suffixes never meet
        (
            (
                ("in/", {"write": {}}, {"suffix": ".png"}),
                ("in/", {"copy": {"key": "in/x/{object.name}"}}, {"suffix": ".json"}),
            ),
            False,
        ),
        # another bucket, a computed one that may be the watched one, one that may not
        ((("in/", {"copy": {"bucket": "other"}}), ("out/", {"copy": {"key": "in/a"}})), False),
        (
            (
                ("in/", {"copy": {"bucket": "mni{$.x}", "key": "out/a"}}),
                ("out/", {"move": {"key": "in/a"}}),
            ),
            True,
        ),
        (
            (
                ("in/", {"copy": {"bucket": "digit-{$.x}", "key": "out/a"}}),
                ("out/", {"move": {"key": "in/a"}}),
            ),
            False,
        ),
        # a chain is no circle, nor is a trigger that writes into its own prefix
        (
            (("in/", {"copy": {"key": "out/{object.name}"}}), ("out/", {"copy": {"key": "z"}})),
            False,
        ),
        ((("in/", {"write": {}}), ("out/", {"write": {}})), False),
    ],
)
def test_which_triggers_may_wake_each_other(pair: tuple[Any, Any], loops: bool) -> None:
    manifests = [
        _files(name, one[0], one[1], **(one[2] if len(one) > 2 else {}))
        for name, one in zip("ab", pair, strict=True)
    ]
    assert ("trigger-loop" in _rules(manifests)) is loops


def test_a_circle_of_three_is_named() -> None:
    ring = [
        _files(f"t{n}", f"{n}/", {"copy": {"key": f"{(n + 1) % 3}/{{object.name}}"}})
        for n in range(3)
    ]
    text = "\n---\n".join(json.dumps(one) for one in ring)
    found = lint.check(compiler.compile_text(text, file="x.yaml"))
    said = [p.message for p in found if p.rule == "trigger-loop"]
    assert len(said) == 3
    assert "t0 -> t1 -> t2 -> t0" in said[0]
