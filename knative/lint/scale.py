"""Rules about concurrency, replicas and timeouts (spec/knative 1.8, 1.12, 7.3-7.5)."""

from collections.abc import Iterator

from knative import keys
from knative.api.problems import Level
from knative.lint.rule import Found, Rule, View
from knative.resources import gpu

_SMALL_CONCURRENCY = 3
"""Up to here 70 % of the concurrency rounds to fewer requests than the pod takes."""


def _is_model(view: View) -> bool:
    return view.is_service and view.unit in ("functions", "custom")


def _no_limit(view: View) -> Iterator[Found]:
    if _is_model(view) and view.scaling.get("max-scale", "0") == "0":
        yield view.where, f"{view.name} has no upper limit of pods"


def _one_gpu_idle(view: View) -> Iterator[Found]:
    if not view.is_service:
        return
    concurrency = view.pod.get("containerConcurrency") or 0
    utilization = float(view.scaling.get("target-utilization-percentage", "70"))
    if 0 < concurrency <= _SMALL_CONCURRENCY and utilization < 100 and "target" not in view.scaling:
        yield (
            view.where,
            f"containerConcurrency {concurrency} with target utilization {utilization:g} % starts"
            " another pod although this one is not full",
        )


def _unlimited(view: View) -> Iterator[Found]:
    if _is_model(view) and not view.pod.get("containerConcurrency"):
        yield (
            view.where,
            f"{view.name} takes any number of requests at once (containerConcurrency 0)",
        )


def _target_above_limit(view: View) -> Iterator[Found]:
    if not view.is_service or view.scaling.get("metric", "concurrency") != "concurrency":
        return
    concurrency = view.pod.get("containerConcurrency") or 0
    target = float(view.scaling.get("target", "0"))
    if 0 < concurrency < target:
        yield view.where, f"target {target:g} is above containerConcurrency {concurrency}"


def _response_start(view: View) -> Iterator[Found]:
    if not view.is_service:
        return
    timeout = view.pod.get("timeoutSeconds") or 300
    start = view.pod.get("responseStartTimeoutSeconds")
    if start and start > timeout:
        yield (
            view.where,
            f"responseStartTimeoutSeconds {start} is above timeoutSeconds {timeout}, which ends the"
            " request first",
        )
    if not start and timeout > 300:
        yield (
            view.where,
            f"timeoutSeconds is {timeout}, but a request without a first byte after 300 s is cut"
            " all the same",
        )


def _initial_zero(view: View) -> Iterator[Found]:
    if view.is_service and view.scaling.get("initial-scale") == "0":
        yield view.where, "initial-scale 0 is refused unless the cluster allows it"


def _gpu_from_zero(view: View) -> Iterator[Found]:
    if view.is_service and gpu.asks(view.serving) and view.scaling.get("min-scale", "0") == "0":
        yield view.where, f"{view.name} asks for an accelerator and scales to zero"


def _graph_shorter_than_steps(view: View) -> Iterator[Found]:
    """A router's own timeout ends requests that its slowest step would still answer."""
    if not view.is_service or view.unit != "router-fn":
        return
    mine = view.pod.get("timeoutSeconds") or 300
    for other in view.result.objects:
        if other["kind"] != "Service" or not _calls(view, other):
            continue
        theirs = other["spec"]["template"]["spec"].get("timeoutSeconds") or 300
        if theirs > mine:
            name = other["metadata"]["name"]
            yield (
                ("spec", "timeout"),
                f"the graph gives up after {mine} s, its step {name} after {theirs} s",
            )


def _calls(view: View, other: dict[str, object]) -> bool:
    metadata = other["metadata"]
    assert isinstance(metadata, dict)
    host = f"//{metadata['name']}.{metadata.get('namespace', '')}.svc"
    return any(host in str(e.get("value") or "") for e in view.serving.get("env") or [])


RULES = (
    Rule(
        id="max-scale",
        level=Level.NOTE,
        why="A burst from zero puts the autoscaler into panic: it starts as many pods as it"
        " likes, and"
        " the cluster or the bill suffers (knative #13284, kserve #871).",
        remedy="set maxReplicas to what the cluster can carry",
        check=_no_limit,
    ),
    Rule(
        id="small-concurrency",
        level=Level.WARNING,
        why="Knative aims at 70 % of the concurrency; with concurrency 1 every single request"
        " asks for"
        " 1.4 pods, so one (a GPU, perhaps) stands idle (knative #8682).",
        remedy=f'set the annotation {keys.TARGET_UTILIZATION}: "100"',
        check=_one_gpu_idle,
    ),
    Rule(
        id="unlimited-concurrency",
        level=Level.NOTE,
        why="Without a limit a burst from zero lands on the first pod that is ready, and adding"
        " pods"
        " does not help the requests already there (knative #9888).",
        remedy="set containerConcurrency to what one pod serves well at a time",
        check=_unlimited,
    ),
    Rule(
        id="target-above-concurrency",
        level=Level.WARNING,
        why="containerConcurrency is a hard limit per pod; a higher target is never reached, and"
        " Knative"
        " uses the lower number.",
        remedy="lower scaleTarget or raise containerConcurrency",
        check=_target_above_limit,
    ),
    Rule(
        id="response-start",
        level=Level.WARNING,
        why="Knative has two clocks: whole request and first byte. Raising only timeoutSeconds"
        " leaves"
        " the first-byte limit at 300 s (kserve #3706).",
        remedy="set timeoutSeconds and responseStartTimeoutSeconds together",
        check=_response_start,
    ),
    Rule(
        id="initial-scale-zero",
        level=Level.WARNING,
        why="Knative starts one pod of every new revision to prove it; 0 is only accepted where the"
        " administrator set allow-zero-initial-scale in config-autoscaler.",
        remedy="remove the annotation, or have allow-zero-initial-scale set to true",
        check=_initial_zero,
    ),
    Rule(
        id="gpu-from-zero",
        level=Level.NOTE,
        why="Node, image and weights of an accelerator pod take minutes (400 to 966 s reported),"
        " longer"
        " than most clients and proxies wait; outer proxies cut after 60 s (knative #13208).",
        remedy="set minReplicas: 1, or let clients retry",
        check=_gpu_from_zero,
    ),
    Rule(
        id="graph-timeout",
        level=Level.WARNING,
        why="Each service's clock starts when a request arrives, cold start included; a graph"
        " whose own"
        " timeout is shorter than a step's cuts that step (kserve #3277, #3149).",
        remedy="raise the graph's timeout to at least the sum of the steps a request runs",
        check=_graph_shorter_than_steps,
    ),
)
