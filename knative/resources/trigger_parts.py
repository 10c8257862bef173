"""What the objects of one InferenceTrigger have in common: names, containers, metadata. Pure."""

from typing import TYPE_CHECKING, Any

from knative import emit, keys, names
from knative.api.resource import Resource
from knative.resources import container
from knative.resources.ksvc import Part, make_service

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

RESOURCES = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}

_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def sink_name(name: str) -> str:
    """Service that calls the graph."""
    return names.bounded(f"{name}-sink")


def adapter_name(name: str) -> str:
    """Service that takes notifications (or polls the queue)."""
    return names.bounded(f"{name}-adapter")


def main_container(resource: Resource, context: "Context", program: str) -> Object:
    return {
        "name": "events",
        "image": str(resource.spec.get("image") or context.options.image("events")),
        "command": ["python", "-m", "events"],
        "args": [program],
        "ports": container.ports(),
        "readinessProbe": container.ready_probe(),
        "resources": container.copied(RESOURCES),
        "securityContext": dict(container.HARDENED),
        "volumeMounts": [container.tmp_mount()],
    }


def service(
    resource: Resource,
    name: str,
    item: Object,
    *,
    public: bool = False,
    volumes: list[Object] | None = None,
    **component: JSON,
) -> Object:
    component["automountServiceAccountToken"] = False
    if resource.spec.get("serviceAccountName"):
        component["serviceAccountName"] = resource.spec["serviceAccountName"]
        del component["automountServiceAccountToken"]
    part = Part(
        name=name,
        unit="events",
        component=component,
        containers=[container.tidy(item)],
        volumes=volumes or [],
        labels={"turnout.dev/trigger": resource.name},
        public=public,
    )
    return make_service(resource, part)


def object(
    api_version: str,
    kind: str,
    name: str,
    resource: Resource,
    spec: Object,
    annotations: dict[str, str] | None = None,
) -> Object:
    return emit.ordered(
        {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": resource.namespace,
                "labels": {
                    keys.MANAGED_BY: keys.MANAGED_BY_TURNOUT,
                    "turnout.dev/trigger": resource.name,
                },
                "annotations": annotations or {keys.SOURCE: resource.source},
            },
            "spec": spec,
        }
    )


def service_ref(name: str) -> Object:
    return {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": name}


def s3_source(resource: Resource) -> Object:
    return dict((resource.spec.get("source") or {}).get("s3") or {})


def buckets(resource: Resource) -> list[str]:
    s3 = s3_source(resource)
    return list(s3.get("buckets") or ([s3["bucket"]] if s3.get("bucket") else []))


def s3_env(resource: Resource) -> list[Object]:
    """Credentials by reference, from a Secret with AWS's own variable names as keys."""
    s3 = s3_source(resource)
    variables: list[Object] = []
    if s3.get("region"):
        variables += container.env(AWS_REGION=s3["region"])
    secret = (s3.get("credentials") or {}).get("secretName")
    for name in _SECRET_VARIABLES if secret else ():
        reference: Object = {"name": secret, "key": name}
        if name == "AWS_SESSION_TOKEN":
            reference["optional"] = True
        variables.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return variables


def scale(resource: Resource) -> Object:
    scale = resource.spec.get("scale") or {}
    named = {"minReplicas": scale.get("min"), "maxReplicas": scale.get("max")}
    return {name: value for name, value in named.items() if value is not None}


def whole(seconds: float) -> int:
    """Knative's timeouts are whole seconds; a fraction is rounded up."""
    return max(1, -int(-seconds // 1))


def broker_name(resource: Resource) -> str:
    return str((resource.spec.get("broker") or {}).get("name") or resource.name)
