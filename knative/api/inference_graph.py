"""KServe's InferenceGraph (`serving.kserve.io/v1alpha1`): pod-level fields here, routing grammar
in the router.

The grammar of nodes and steps belongs to `router_fn.graph`; this module checks only what the
router never
sees (replicas, resources, placement) and lifts the router's findings into our problems.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from knative.api import core, pod, problems
from knative.api.problems import Path, Report
from knative.api.resource import Resource
from knative.api.schema import Field, Free, Int, Obj, Str, silent

POD_LEVEL: dict[str, Field] = {
    "resources": Field(type=core.RESOURCES, becomes="resources of the router container"),
    "timeout": Field(
        type=Int(minimum=1), becomes="timeoutSeconds and responseStartTimeoutSeconds together"
    ),
    "minReplicas": Field(
        type=Int(minimum=0), becomes="autoscaling.knative.dev/min-scale (default 0, KServe: 1)"
    ),
    "maxReplicas": Field(
        type=Int(minimum=0), becomes="autoscaling.knative.dev/max-scale (0: no limit)"
    ),
    "scaleTarget": Field(type=Int(minimum=1), becomes="autoscaling.knative.dev/target"),
    "scaleMetric": Field(
        type=Str(enum=("concurrency", "rps", "cpu", "memory")),
        becomes="autoscaling.knative.dev/metric; cpu and memory also set class hpa",
    ),
    "serviceAccountName": pod.POD_FIELDS["serviceAccountName"],
    **pod.PLACEMENT,
}
"""Fields of a graph's spec that shape its pods; everything else goes to the router."""

SPEC = Obj(
    name="InferenceGraphSpec",
    fields={
        "nodes": Field(type=Free(), required=True, becomes="GRAPH_JSON of the router"),
        **POD_LEVEL,
    },
)

FIELDS: dict[str, Field] = {
    "spec": Field(type=Free(), required=True),
    "status": silent("written by a controller"),
}


def routing_spec(spec: object) -> dict[str, object]:
    """The part of a graph's spec that the router reads."""
    return {k: v for k, v in spec.items() if k not in POD_LEVEL} if isinstance(spec, dict) else {}


_KSERVE_SPEC = frozenset({"nodes", "routerTimeouts", *POD_LEVEL})
_KSERVE_NODE = frozenset({"routerType", "steps"})
_KSERVE_STEP = frozenset(
    {
        *("name", "nodeName", "serviceName", "serviceUrl", "data", "weight", "condition"),
        *("dependency", "mapPredictionsToInstances"),
    }
)
"""What KServe's own grammar has (spec/kserve_graph 1.1 to 1.3); the rest is ours."""


def _extensions(spec: Mapping[str, Any]) -> Iterator[Path]:
    """Fields that KServe would drop in silence."""
    yield from (("spec", key) for key in spec if key not in _KSERVE_SPEC)
    nodes = spec.get("nodes")
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        if not isinstance(node, dict):
            continue
        here: Path = ("spec", "nodes", name)
        yield from ((*here, key) for key in node if key not in _KSERVE_NODE)
        steps = node.get("steps")
        for index, step in enumerate(steps if isinstance(steps, list) else ()):
            for key in step if isinstance(step, dict) else ():
                if key not in _KSERVE_STEP:
                    yield (*here, "steps", index, key)


def check(resource: Resource, report: Report) -> None:
    """Pod-level fields by our tables, routing by `router_fn.graph.check`."""
    from knative.api import schema
    from router_fn import graph

    spec = resource.spec
    if not isinstance(spec, dict):
        report.error(("spec",), f"must be a mapping, not {schema.describe(spec)}")
        return
    for key, known in POD_LEVEL.items():
        if spec.get(key) is not None:
            one = Obj(name="InferenceGraphSpec", fields={key: known})
            schema.check({key: spec[key]}, one, ("spec",), report)
    for ours in _extensions(spec):
        report.extension(ours, str(ours[-1]))
    for level, path, message in graph.check(routing_spec(spec), resolved=False):
        report.add(problems.Level(level), ("spec", *problems.parse(path)), message)
