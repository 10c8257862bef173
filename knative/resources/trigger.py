"""InferenceTrigger to Knative objects: sink Service, Broker, Trigger, adapter Service and its
binding.

The Trigger calls the sink and never a predict URL: an answer that is not a CloudEvent counts as a
failed delivery. Its delivery block is always complete, because a partial one would silently drop
the Broker's dead letter sink. Pure.
"""

import json
from typing import TYPE_CHECKING, Any

from events.delivery import BROKER_DEFAULT
from events.spec import DEAD_LETTER_PATH
from knative import keys, names
from knative.api.resource import Resource
from knative.resources import container
from knative.resources import trigger_notify as notify
from knative.resources import trigger_parts as parts

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

TYPE_PREFIX = "com.amazonaws.s3."
CEPH_PREFIXES = ("com.amazonaws.s3:", "com.amazonaws.")
"""Ceph's types, old and new; our adapter turns them into the first, but who posts to the broker
without it (`notify: None`) sends these."""

SINK_FIELDS = (
    "request",
    "result",
    "concurrency",
    "deadlineSeconds",
    "asyncTtlSeconds",
    "maxHops",
)
"""Parts of the spec the sink reads as they are."""

DEFAULT_DEADLINE_S = 300
DEFAULT_CONCURRENCY = 8
DEFAULT_BACKOFF = "PT0.5S"
"""With ten exponential retries: about eight and a half minutes until an event is dead."""


def make(resource: Resource, context: "Context") -> list[Object]:
    """Everything one InferenceTrigger needs, deterministic."""
    made = [_sink(resource, context), _trigger(resource)]
    if _makes_broker(resource):
        made.append(_broker(resource))
    way = parts.s3_source(resource).get("notify") or (
        "Webhook" if parts.s3_source(resource) else "None"
    )
    if way in ("Webhook", "IntegrationSource"):
        made += [notify.adapter(resource, context), notify.binding(resource)]
    if way == "IntegrationSource":
        made.append(notify.integration_source(resource))
    if parts.s3_source(resource).get("sweep") is not None:
        made += [notify.ping(resource), notify.binding(resource, parts.sink_name(resource.name))]
    if way == "SQS":
        made += [notify.poller(resource, context), notify.binding(resource)]
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
    item = parts.main_container(resource, context, "sink")
    for name, amounts in (spec.get("resources") or {}).items():
        item["resources"][name] |= amounts or {}
    item["env"] = [*container.env(SINK_SPEC=text), *parts.s3_env(resource)]
    volumes: list[Object] = []
    if dedupe.get("store") == "sqlite":
        item["volumeMounts"].append(
            {"name": "journal", "mountPath": str(dedupe["path"]).rpartition("/")[0]}
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
    return parts.service(
        resource,
        parts.sink_name(resource.name),
        item,
        volumes=volumes,
        containerConcurrency=concurrency,
        timeout=parts.whole(spec.get("deadlineSeconds") or DEFAULT_DEADLINE_S),
        **parts.scale(resource),
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
    return parts.object(
        "eventing.knative.dev/v1",
        "Broker",
        parts.broker_name(resource),
        resource,
        spec,
        annotations,
    )


def _trigger(resource: Resource) -> Object:
    annotations = {keys.SOURCE: resource.source}
    if (resource.spec.get("broker") or {}).get("ordered"):
        annotations["kafka.eventing.knative.dev/delivery.order"] = "ordered"
    spec: Object = {"broker": parts.broker_name(resource)}
    filters = _filters(resource)
    if filters:
        spec["filters"] = filters
    spec["subscriber"] = {"ref": parts.service_ref(parts.sink_name(resource.name)), "uri": "/"}
    spec["delivery"] = _delivery(resource)
    return parts.object(
        "eventing.knative.dev/v1", "Trigger", resource.name, resource, spec, annotations
    )


def _filters(resource: Resource) -> list[JSON]:
    """Knative's share of the selection; the sink decides the rest (exact bucket, recursion)."""
    source = resource.spec.get("source") or {}
    s3 = source.get("s3")
    if not s3:
        return list(source.get("filters") or [])
    events = [str(name).removeprefix("s3:") for name in s3.get("events") or ["ObjectCreated:*"]]
    if s3.get("removed") == "DeleteResult":
        events.append("ObjectRemoved:*")
    prefixes = (TYPE_PREFIX, *(CEPH_PREFIXES if s3.get("notify") == "None" else ()))
    types = [
        {"prefix": {"type": prefix + name[:-1]}}
        if name.endswith("*")
        else {"exact": {"type": prefix + name}}
        for name in dict.fromkeys(events)
        for prefix in prefixes
    ]
    buckets = [{"suffix": {"source": f".{name}"}} for name in parts.buckets(resource)]
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
    deadline = parts.whole(resource.spec.get("deadlineSeconds") or DEFAULT_DEADLINE_S)
    return {
        "retry": BROKER_DEFAULT.retry,
        "backoffPolicy": BROKER_DEFAULT.backoff_policy,
        "backoffDelay": DEFAULT_BACKOFF,
        "timeout": f"PT{deadline}S",
        "deadLetterSink": {
            "ref": parts.service_ref(parts.sink_name(resource.name)),
            "uri": DEAD_LETTER_PATH,
        },
        **(resource.spec.get("delivery") or {}),
    }
