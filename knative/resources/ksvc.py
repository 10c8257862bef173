"""Knative Services from their parts: labels, annotations, autoscaling, timeouts, pod."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knative import emit, keys, names
from knative.api.resource import Resource

JSON = Any
Object = dict[str, JSON]

DEFAULT_TIMEOUT_S = 300
"""Knative's default request timeout, counted from arrival: a cold start is inside it."""

_NEVER_COPIED = frozenset(
    {
        keys.LAST_APPLIED,
        keys.VISIBILITY,
        keys.RUNTIME,
        keys.MODEL_SIZE,
        keys.IMAGE_VOLUME,
        keys.COLLOCATE,
        keys.GRPC,
        keys.STABLE_REVISION,
        keys.MIN_SCALE,
        keys.MAX_SCALE,
        f"{keys.AUTOSCALING}minScale",
        f"{keys.AUTOSCALING}maxScale",
        keys.KSERVE_STOP,
        keys.KSERVE_TAG_ROUTING,
        keys.KSERVE_DEPLOYMENT_MODE,
        keys.KSERVE_STORAGE_SECRET,
        keys.KSERVE_STORAGE_READONLY,
    }
)
"""Annotations that steer the compiler, or that KServe itself keeps off revisions."""

_SERVICE_ONLY = (keys.ROLLOUT_DURATION,)
"""Annotations Knative reads on the Service, not on the template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Knative Service to be, as a component's maker describes it."""

    name: str
    unit: str
    """Value of the unit label."""
    component: Mapping[str, JSON]
    """The component's fields: replicas, scaling, timeout, placement, labels, annotations,
    volumes."""
    containers: list[Object]
    init_containers: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the Service and its pods."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Template annotations by default; the user's win."""
    public: bool = False
    traffic: list[Object] = field(default_factory=list)
    service_annotations: Mapping[str, str] = field(default_factory=dict)


def make_service(resource: Resource, part: Part) -> Object:
    """The Knative Service of one component."""
    metadata: Object = {
        "name": part.name,
        "namespace": resource.namespace,
        "labels": _service_labels(resource, part),
        "annotations": {
            **{k: v for k, v in _given(resource, part).items() if k in _SERVICE_ONLY},
            **part.service_annotations,
            keys.SOURCE: resource.source,
        },
    }
    spec: Object = {"template": _template(resource, part)}
    if part.traffic:
        spec["traffic"] = part.traffic
    return emit.ordered(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": spec,
        }
    )


def _given(resource: Resource, part: Part) -> dict[str, str]:
    """The user's annotations; the component's win over the manifest's."""
    return {**resource.annotations, **(part.component.get("annotations") or {})}


def _service_labels(resource: Resource, part: Part) -> dict[str, str]:
    given = {k: v for k, v in resource.labels.items() if k != keys.KNATIVE_VISIBILITY}
    labels = {
        **given,
        **part.labels,
        keys.UNIT: part.unit,
        keys.MANAGED_BY: keys.MANAGED_BY_TURNOUT,
    }
    if not part.public:
        labels[keys.KNATIVE_VISIBILITY] = keys.CLUSTER_LOCAL
    return labels


def _template(resource: Resource, part: Part) -> Object:
    from knative.resources import autoscaling

    given = _given(resource, part)
    annotations = {
        **part.annotations,
        **{
            k: v
            for k, v in given.items()
            if k not in _NEVER_COPIED
            and k not in _SERVICE_ONLY
            and not k.startswith(keys.KSERVE_S3_PREFIX)
        },
        **autoscaling.annotations(part.component, given),
    }
    labels = {
        **{k: v for k, v in resource.labels.items() if k != keys.KNATIVE_VISIBILITY},
        **(part.component.get("labels") or {}),
        **part.labels,
        keys.UNIT: part.unit,
    }
    return {
        "metadata": {
            "labels": dict(sorted(labels.items())),
            "annotations": dict(sorted(annotations.items())),
        },
        "spec": _pod(part),
    }


_PASSED_THROUGH = (
    "serviceAccountName",
    "imagePullSecrets",
    "enableServiceLinks",
    "automountServiceAccountToken",
    "nodeSelector",
    "tolerations",
    "affinity",
    "securityContext",
    "topologySpreadConstraints",
    "runtimeClassName",
    "priorityClassName",
    "schedulerName",
    "hostAliases",
    "dnsPolicy",
    "dnsConfig",
    "shareProcessNamespace",
    "hostIPC",
    "hostPID",
    "hostNetwork",
)


def _pod(part: Part) -> Object:
    component = part.component
    timeout_s = component.get("timeout") or DEFAULT_TIMEOUT_S
    pod: Object = {
        "containerConcurrency": component.get("containerConcurrency") or 0,
        "timeoutSeconds": timeout_s,
        "responseStartTimeoutSeconds": timeout_s,
    }
    pod |= {
        key: component[key] for key in _PASSED_THROUGH if component.get(key) not in (None, {}, [])
    }
    init = [*part.init_containers, *(component.get("initContainers") or [])]
    if init:
        pod["initContainers"] = init
    pod["containers"] = part.containers
    volumes = [*part.volumes, *(component.get("volumes") or [])]
    if _mounts_tmp([*init, *part.containers]) and names.TMP_VOLUME not in {
        v["name"] for v in volumes
    }:
        volumes.append({"name": names.TMP_VOLUME, "emptyDir": {}})
    if volumes:
        pod["volumes"] = volumes
    return pod


def _mounts_tmp(containers: list[Object]) -> bool:
    mounts = (m for c in containers for m in c.get("volumeMounts") or [])
    return any(mount["name"] == names.TMP_VOLUME for mount in mounts)
