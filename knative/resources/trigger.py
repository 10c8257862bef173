"""InferenceTrigger to Knative objects: sink Service, Broker, Trigger, adapter Service and its
binding.

The Trigger calls the sink and never a predict URL: an answer that is not a CloudEvent counts as a
failed delivery. Its delivery block is always complete, because a partial one would silently drop
the Broker's dead letter sink. Pure.
"""

import json
from typing import TYPE_CHECKING, Any

from events.delivery import BROKER_DEFAULT
from events.spec import DEAD_LETTER_PATH, SWEEP_PATH
from knative import emit, keys, names
from knative.api.resource import Resource
from knative.resources import container
from knative.resources.ksvc import Part, make_service

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

TYPE_PREFIX = "com.amazonaws.s3."
SINK_FIELDS = ("request", "result", "concurrency", "deadlineSeconds", "asyncTtlSeconds")
"""Parts of the spec the sink reads as they are."""

RESOURCES = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}
DEFAULT_DEADLINE_S = 300
DEFAULT_CONCURRENCY = 8
DEFAULT_BACKOFF = "PT0.5S"
"""With ten exponential retries: about eight and a half minutes until an event is dead."""

SWEEP_SCHEDULE = "*/10 * * * *"
"""Every ten minutes: each sweep wakes the sink and lists the bucket."""

_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def sink_name(name: str) -> str:
    """Service that calls the graph."""
    return names.bounded(f"{name}-sink")


def adapter_name(name: str) -> str:
    """Service that takes notifications (or polls the queue)."""
    return names.bounded(f"{name}-adapter")


def make(resource: Resource, context: "Context") -> list[Object]:
    """Everything one InferenceTrigger needs, deterministic."""
    made = [_sink(resource, context), _trigger(resource)]
    if _makes_broker(resource):
        made.append(_broker(resource))
    notify = _s3(resource).get("notify") or ("Webhook" if _s3(resource) else "None")
    if notify in ("Webhook", "IntegrationSource"):
        made += [_adapter(resource, context), _binding(resource)]
    if notify == "IntegrationSource":
        made.append(_integration_source(resource))
    if _s3(resource).get("sweep"):
        made += [_ping(resource), _binding(resource, sink_name(resource.name))]
    if notify == "SQS":
        made += [_poller(resource, context), _binding(resource)]
    return made


# --- the sink -------------------------------------------------------------------------------------
def _sink(resource: Resource, context: "Context") -> Object:
    spec = resource.spec
    dedupe: Object = dict(spec.get("dedupe") or {})
    claim = dedupe.pop("volumeClaim", None)
    sink_spec = {
        "name": resource.name,
        "namespace": resource.namespace,
        "source": _sink_source(resource),
        "target": _target(resource, context),
        **{name: spec[name] for name in SINK_FIELDS if spec.get(name) is not None},
        **({"dedupe": dedupe} if dedupe else {}),
    }
    text = json.dumps(sink_spec, ensure_ascii=False, indent=2)
    item = _container(resource, context, "sink")
    item["env"] = [*container.env(SINK_SPEC=text), *_s3_env(resource)]
    volumes: list[Object] = []
    if dedupe.get("store") == "sqlite":
        item["volumeMounts"].append(
            {"name": "journal", "mountPath": str(dedupe["path"]).rpartition("/")[0] or "/journal"}
        )
        source: Object = (
            {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
        )
        volumes.append({"name": "journal", **source})
        if claim:
            path = ("spec", "dedupe", "volumeClaim")
            context.report(resource).need(keys.FLAG_PVC, path)
            context.report(resource).need(keys.FLAG_PVC_WRITE, path)
    concurrency = (spec.get("concurrency") or {}).get("max") or DEFAULT_CONCURRENCY
    return _service(
        resource,
        sink_name(resource.name),
        item,
        volumes=volumes,
        containerConcurrency=concurrency,
        timeout=_whole(spec.get("deadlineSeconds") or DEFAULT_DEADLINE_S),
        **_scale(resource),
    )


def _sink_source(resource: Resource) -> Object:
    source = resource.spec.get("source") or {}
    s3 = {
        name: value
        for name, value in (source.get("s3") or {}).items()
        if name not in ("notify", "queue", "credentials")
    }
    result: Object = {"s3": s3} if s3 else {}
    if source.get("filters"):
        result["filters"] = source["filters"]
    return result


def _target(resource: Resource, context: "Context") -> Object:
    target: Object = {
        name: value for name, value in resource.spec["target"].items() if name != "ref"
    }
    ref = resource.spec["target"].get("ref")
    if ref:
        namespace = ref.get("namespace") or resource.namespace
        path = ("spec", "target", "ref", "name")
        if namespace != resource.namespace:
            target["url"] = names.url(ref["name"], namespace)
        else:
            target["url"] = context.service_url(resource, ref["name"], path)
        if target.get("path"):  # the path given replaces the one the protocol would have
            target["url"] = names.url(ref["name"], namespace)
    return {"url": target.pop("url"), **target}


# --- broker and trigger ---------------------------------------------------------------------------
def _broker_name(resource: Resource) -> str:
    return str((resource.spec.get("broker") or {}).get("name") or resource.name)


def _makes_broker(resource: Resource) -> bool:
    broker = resource.spec.get("broker") or {}
    if broker.get("create") is not None:
        return bool(broker["create"])
    return not broker.get("name") or bool(broker.get("class") or broker.get("config"))


def _broker(resource: Resource) -> Object:
    given = resource.spec.get("broker") or {}
    annotations = {keys.SOURCE: resource.source}
    if given.get("class"):
        annotations["eventing.knative.dev/broker.class"] = given["class"]
    if given.get("topic"):
        annotations["kafka.eventing.knative.dev/external.topic"] = given["topic"]
    spec: Object = {}
    if given.get("config"):
        config = given["config"]
        spec["config"] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": config["name"],
            "namespace": config.get("namespace") or resource.namespace,
        }
    spec["delivery"] = _delivery(resource)
    return _object(
        "eventing.knative.dev/v1", "Broker", _broker_name(resource), resource, spec, annotations
    )


def _trigger(resource: Resource) -> Object:
    annotations = {keys.SOURCE: resource.source}
    if (resource.spec.get("broker") or {}).get("ordered"):
        annotations["kafka.eventing.knative.dev/delivery.order"] = "ordered"
    spec: Object = {"broker": _broker_name(resource)}
    filters = _filters(resource)
    if filters:
        spec["filters"] = filters
    spec["subscriber"] = {"ref": _service_ref(sink_name(resource.name)), "uri": "/"}
    spec["delivery"] = _delivery(resource)
    return _object("eventing.knative.dev/v1", "Trigger", resource.name, resource, spec, annotations)


def _filters(resource: Resource) -> list[JSON]:
    """Knative's share of the selection; the sink decides the rest (exact bucket, recursion)."""
    source = resource.spec.get("source") or {}
    s3 = source.get("s3")
    if not s3:
        return list(source.get("filters") or [])
    events = [str(name).removeprefix("s3:") for name in s3.get("events") or ["ObjectCreated:*"]]
    if s3.get("removed") == "DeleteResult":
        events.append("ObjectRemoved:*")
    types = [
        {"prefix": {"type": TYPE_PREFIX + name[:-1]}}
        if name.endswith("*")
        else {"exact": {"type": TYPE_PREFIX + name}}
        for name in dict.fromkeys(events)
    ]
    buckets = [{"suffix": {"source": f".{name}"}} for name in _buckets(resource)]
    result = [_any(types), _any(buckets)]
    if s3.get("prefix"):
        result.append({"prefix": {"subject": s3["prefix"]}})
    if s3.get("suffix"):
        result.append({"suffix": {"subject": s3["suffix"]}})
    return [*result, *(source.get("filters") or [])]


def _any(items: list[Object]) -> Object:
    return items[0] if len(items) == 1 else {"any": items}


def _delivery(resource: Resource) -> Object:
    """The user's block over complete defaults; a cold start and the work fit into the timeout."""
    deadline = _whole(resource.spec.get("deadlineSeconds") or DEFAULT_DEADLINE_S)
    return {
        "retry": BROKER_DEFAULT.retry,
        "backoffPolicy": BROKER_DEFAULT.backoff_policy,
        "backoffDelay": DEFAULT_BACKOFF,
        "timeout": f"PT{deadline}S",
        "deadLetterSink": {
            "ref": _service_ref(sink_name(resource.name)),
            "uri": DEAD_LETTER_PATH,
        },
        **(resource.spec.get("delivery") or {}),
    }


# --- where events come from -----------------------------------------------------------------------
def _adapter(resource: Resource, context: "Context") -> Object:
    given = resource.spec.get("adapter") or {}
    item = _container(resource, context, "adapter")
    variables = {"TURNOUT_BUCKETS": ",".join(_buckets(resource))}
    if given.get("maxBodyBytes"):
        variables["TURNOUT_MAX_BODY_BYTES"] = str(given["maxBodyBytes"])
    if given.get("ratePerSecond"):
        variables["TURNOUT_RATE_PER_SECOND"] = str(given["ratePerSecond"])
    if given.get("snsTopics"):
        variables["TURNOUT_SNS_TOPICS"] = ",".join(given["snsTopics"])
    item["env"] = container.env(**variables)
    secret = given.get("tokenSecret")
    if secret:
        reference = {"secretKeyRef": {"name": secret["name"], "key": secret["key"]}}
        item["env"].append({"name": "TURNOUT_TOKEN", "valueFrom": reference})
    return _service(
        resource, adapter_name(resource.name), item, public=bool(given.get("public")), timeout=60
    )


def _poller(resource: Resource, context: "Context") -> Object:
    """A poller is never called, so nothing would wake it: exactly one pod, always."""
    item = _container(resource, context, "sqs")
    item["env"] = [
        *container.env(
            TURNOUT_SQS_QUEUE_URL=_s3(resource)["queue"],
            TURNOUT_BUCKETS=",".join(_buckets(resource)),
        ),
        *_s3_env(resource),
    ]
    name = adapter_name(resource.name)
    return _service(resource, name, item, minReplicas=1, maxReplicas=1, timeout=60)


def _ping(resource: Resource) -> Object:
    """Wakes the sink for a sweep; cron in UTC."""
    spec = {
        "schedule": _s3(resource)["sweep"].get("schedule") or SWEEP_SCHEDULE,
        "sink": {"ref": _service_ref(sink_name(resource.name)), "uri": SWEEP_PATH},
    }
    name = names.bounded(f"{resource.name}-sweep")
    return _object("sources.knative.dev/v1", "PingSource", name, resource, spec)


def _binding(resource: Resource, name: str = "") -> Object:
    """Gives a Service its K_SINK: the Broker's address, whatever the Broker's class."""
    name = name or adapter_name(resource.name)
    spec = {
        "subject": {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "name": name,
        },
        "sink": {
            "ref": {
                "apiVersion": "eventing.knative.dev/v1",
                "kind": "Broker",
                "name": _broker_name(resource),
            }
        },
    }
    return _object("sources.knative.dev/v1", "SinkBinding", name, resource, spec)


def _integration_source(resource: Resource) -> Object:
    s3 = _s3(resource)
    aws: Object = {"sqs": {"arn": s3["queue"], "region": s3.get("region") or "us-east-1"}}
    if s3.get("credentials"):
        aws["auth"] = {"secret": {"ref": {"name": s3["credentials"]["secretName"]}}}
    spec = {"aws": aws, "sink": {"ref": _service_ref(adapter_name(resource.name))}}
    return _object(
        "sources.knative.dev/v1alpha1", "IntegrationSource", f"{resource.name}-sqs", resource, spec
    )


# --- building blocks ------------------------------------------------------------------------------
def _container(resource: Resource, context: "Context", program: str) -> Object:
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


def _service(
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


def _object(
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


def _service_ref(name: str) -> Object:
    return {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": name}


def _s3(resource: Resource) -> Object:
    return dict((resource.spec.get("source") or {}).get("s3") or {})


def _buckets(resource: Resource) -> list[str]:
    s3 = _s3(resource)
    return list(s3.get("buckets") or ([s3["bucket"]] if s3.get("bucket") else []))


def _s3_env(resource: Resource) -> list[Object]:
    """Credentials by reference, from a Secret with AWS's own variable names as keys."""
    s3 = _s3(resource)
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


def _scale(resource: Resource) -> Object:
    scale = resource.spec.get("scale") or {}
    named = {"minReplicas": scale.get("min"), "maxReplicas": scale.get("max")}
    return {name: value for name, value in named.items() if value is not None}


def _whole(seconds: float) -> int:
    """Knative's timeouts are whole seconds; a fraction is rounded up."""
    return max(1, -int(-seconds // 1))
