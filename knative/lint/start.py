"""Rules about starting: probes, images, model files (spec/knative 1.4, 1.7, 7.1-7.3)."""

from collections.abc import Iterator

from knative import keys, names
from knative.api import scaling
from knative.api.problems import Level
from knative.lint.rule import Found, Rule, View
from knative.resources import gpu, quantity

_BIG_MEMORY = 16 * 2**30
"""A server with this much memory probably loads a model whose fetch outlasts the default
deadline."""


def _tcp_ready(view: View) -> Iterator[Found]:
    if view.is_service and not view.serving.get("readinessProbe"):
        yield view.where, f"{view.name} counts as ready as soon as its port is open"


def _slow_probe(view: View) -> Iterator[Found]:
    if not view.is_service:
        return
    probe = view.serving.get("readinessProbe") or {}
    period = probe.get("periodSeconds") or 0
    delay = probe.get("initialDelaySeconds") or 0
    if period > 1 or delay:
        yield (
            view.where,
            f"the readiness probe looks every {period or 10} s"
            + (f", first after {delay} s" if delay else "")
            + "; a cold start is rounded up to that",
        )


def _startup_probe(view: View) -> Iterator[Found]:
    if view.is_service and view.serving.get("startupProbe"):
        yield view.where, "a startupProbe switches Knative's fast readiness checks off"


def _floating_tag(view: View) -> Iterator[Found]:
    """Knative resolves serving images to digests per revision, init containers' images never."""
    if not view.is_service:
        return
    for container in view.pod.get("initContainers") or []:
        image = str(container.get("image") or "")
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@" not in image and tag in ("", "latest"):
            yield view.where, f"init container image {image} may be another one at every start"


def _deadline(view: View) -> Iterator[Found]:
    if not view.is_service or not (view.pod.get("initContainers") or gpu.asks(view.serving)):
        return
    text = view.annotations.get(keys.PROGRESS_DEADLINE, "600s")
    try:
        deadline_s = scaling.duration_s(text)
    except ValueError:
        return
    memory = quantity.parse(
        ((view.serving.get("resources") or {}).get("limits") or {}).get("memory")
    )
    if memory and memory >= _BIG_MEMORY and deadline_s <= 600:
        yield view.where, f"{view.name} has {deadline_s:g} s to fetch and load its model"


def _unbounded_volume(view: View) -> Iterator[Found]:
    if not view.is_service:
        return
    for volume in view.pod.get("volumes") or []:
        scratch = volume.get("emptyDir")
        if (
            volume["name"] == names.MODEL_VOLUME
            and scratch is not None
            and not scratch.get("sizeLimit")
        ):
            yield view.where, "the model is fetched to the node's disk without a limit"


RULES = (
    Rule(
        id="tcp-readiness",
        level=Level.WARNING,
        why="Without a readiness probe Knative only tries to connect. A server that listens"
        " before its"
        " model is loaded gets the first requests too early and fails them (kserve #2882).",
        remedy="add an HTTP readinessProbe that is true when the model is loaded, e.g."
        " /v1/models/NAME",
        check=_tcp_ready,
    ),
    Rule(
        id="probe-period",
        level=Level.WARNING,
        why="Knative's own probing retries every 50 ms; with periodSeconds it keeps to that period"
        " instead, up to 10 s per cold start (knative #10973).",
        remedy="remove periodSeconds and initialDelaySeconds",
        check=_slow_probe,
    ),
    Rule(
        id="startup-probe",
        level=Level.NOTE,
        why="Startup probes stay with the kubelet, which looks once a second at best.",
        remedy="make readiness honest instead, and give a long start a progress deadline",
        check=_startup_probe,
    ),
    Rule(
        id="floating-init-image",
        level=Level.NOTE,
        why="Knative rewrites serving images to digests when a revision is made, but not those of"
        " init"
        " containers: the same revision may start with different fetchers.",
        remedy="name init container images by version or digest",
        check=_floating_tag,
    ),
    Rule(
        id="progress-deadline",
        level=Level.WARNING,
        why="A revision that is not ready in 600 s is marked failed and nothing retries it; large"
        " models and GPU nodes take longer (kserve #1247, #1641, #3795).",
        remedy=f"say how big it is ({keys.MODEL_SIZE}: 30Gi), or set {keys.PROGRESS_DEADLINE}",
        check=_deadline,
    ),
    Rule(
        id="unbounded-model-volume",
        level=Level.NOTE,
        why="An emptyDir lands on the node's system disk; a large model causes disk pressure and"
        " evictions (kserve #4852, #3792).",
        remedy=f"say how big the model is: annotation {keys.MODEL_SIZE}",
        check=_unbounded_volume,
    ),
)
