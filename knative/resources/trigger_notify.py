"""Where an InferenceTrigger's events come from: adapter or poller, binding, sweep, SQS source.
Pure."""

from typing import TYPE_CHECKING

from events.spec import SWEEP_PATH
from knative import names
from knative.api.resource import Resource
from knative.resources import container
from knative.resources import trigger_parts as parts
from knative.resources.trigger_parts import Object

if TYPE_CHECKING:
    from knative.compiler import Context

SWEEP_SCHEDULE = "*/10 * * * *"
"""Every ten minutes: each sweep wakes the sink and lists the bucket."""


def adapter(resource: Resource, context: "Context") -> Object:
    given = resource.spec.get("adapter") or {}
    item = parts.main_container(resource, context, "adapter")
    passed = dict.fromkeys([*parts.buckets(resource), *(given.get("buckets") or ())])
    variables = {"TURNOUT_BUCKETS": ",".join(passed)}
    if given.get("maxBodyBytes"):
        variables["TURNOUT_MAX_BODY_BYTES"] = str(given["maxBodyBytes"])
    if given.get("ratePerSecond"):
        variables["TURNOUT_RATE_PER_SECOND"] = str(given["ratePerSecond"])
    if given.get("snsTopics"):
        variables["TURNOUT_SNS_TOPICS"] = ",".join(given["snsTopics"])
    variables |= _ordered(resource)
    item["env"] = container.env(**variables)
    secret, basic = given.get("tokenSecret"), given.get("basicSecret")
    references = {"TURNOUT_TOKEN": (secret["name"], secret["key"])} if secret else {}
    if basic:  # the keys of a Secret of type kubernetes.io/basic-auth
        references["TURNOUT_USER"] = (basic["name"], "username")
        references["TURNOUT_PASSWORD"] = (basic["name"], "password")
    for variable, (name, key) in references.items():
        reference = {"secretKeyRef": {"name": name, "key": key}}
        item["env"].append({"name": variable, "valueFrom": reference})
    return parts.service(
        resource,
        parts.adapter_name(resource.name),
        item,
        public=bool(given.get("public")),
        timeout=60,
    )


def poller(resource: Resource, context: "Context") -> Object:
    """A poller is never called, so nothing would wake it: exactly one pod, always."""
    item = parts.main_container(resource, context, "sqs")
    item["env"] = [
        *container.env(
            TURNOUT_SQS_QUEUE_URL=parts.s3_source(resource)["queue"],
            TURNOUT_BUCKETS=",".join(parts.buckets(resource)),
            **_ordered(resource),
        ),
        *parts.s3_env(resource),
    ]
    name = parts.adapter_name(resource.name)
    return parts.service(resource, name, item, minReplicas=1, maxReplicas=1, timeout=60)


def _ordered(resource: Resource) -> dict[str, str]:
    """A Kafka Broker orders by `partitionkey`: without one, each event may overtake any other."""
    ordered = (resource.spec.get("broker") or {}).get("ordered")
    return {"TURNOUT_PARTITION_BY_OBJECT": "true"} if ordered else {}


def ping(resource: Resource) -> Object:
    """Wakes the sink for a sweep; cron in UTC."""
    spec = {
        "schedule": parts.s3_source(resource)["sweep"].get("schedule") or SWEEP_SCHEDULE,
        "sink": {"ref": parts.service_ref(parts.sink_name(resource.name)), "uri": SWEEP_PATH},
    }
    name = names.bounded(f"{resource.name}-sweep")
    return parts.object("sources.knative.dev/v1", "PingSource", name, resource, spec)


def binding(resource: Resource, name: str = "") -> Object:
    """Gives a Service its K_SINK: the Broker's address, whatever the Broker's class."""
    name = name or parts.adapter_name(resource.name)
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
                "name": parts.broker_name(resource),
            }
        },
    }
    return parts.object("sources.knative.dev/v1", "SinkBinding", name, resource, spec)


def integration_source(resource: Resource) -> Object:
    s3 = parts.s3_source(resource)
    # The queue's own region, which need not be the buckets'.
    aws: Object = {"sqs": {"arn": s3["queue"], "region": s3["queue"].split(":")[3]}}
    if s3.get("credentials"):
        aws["auth"] = {"secret": {"ref": {"name": s3["credentials"]["secretName"]}}}
    elif resource.spec.get("serviceAccountName"):
        aws["auth"] = {"serviceAccountName": resource.spec["serviceAccountName"]}
    spec = {"aws": aws, "sink": {"ref": parts.service_ref(parts.adapter_name(resource.name))}}
    return parts.object(
        "sources.knative.dev/v1alpha1", "IntegrationSource", f"{resource.name}-sqs", resource, spec
    )
