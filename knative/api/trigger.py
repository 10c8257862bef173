"""InferenceTrigger (turnout.dev/v1alpha1): the grammar is `events.spec_check`, owned by the program
that runs it; here are the fields that only shape manifests (broker, delivery, adapter, scale)."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from events import delivery, spec_check
from knative.api.problems import Report, parse
from knative.api.resource import Resource
from knative.api.schema import Field, Free, silent

JSON = Any
Problem = tuple[str, str]

FIELDS: dict[str, Field] = {
    "spec": Field(
        type=Free(),
        becomes="the sink's specification, the Trigger's filters and delivery (docs/events.md)",
        required=True,
    ),
    "status": silent("written by nobody: there is no controller"),
}

_QUEUES = {
    "SQS": re.compile(r"https?://[^/\s]+/\S+\Z"),
    "IntegrationSource": re.compile(r"arn:[a-z-]+:sqs:[a-z0-9-]+:\d*:[A-Za-z0-9_.-]+\Z"),
}

BROKER_CLASSES = ("MTChannelBasedBroker", "Kafka", "KafkaNamespaced")


def check(resource: Resource, report: Report) -> None:
    """Every problem of the spec, at its place in the file."""
    spec = resource.data.get("spec")
    for path, message in spec_check.check(spec, resolved=False):
        report.error(("spec", *parse(path)), message)
    if not isinstance(spec, Mapping):
        return
    for name, checked in _SECTIONS.items():
        for path, message in checked(spec.get(name)):
            report.error(("spec", name, *parse(path)), message)
    for path, message in _check_token(spec):
        report.error(("spec", *parse(path)), message)
    if not report.failed:
        _warn(spec, report)


def _warn(spec: Mapping[str, JSON], report: Report) -> None:
    dedupe = spec.get("dedupe") or {}
    result = spec.get("result") or {}
    touches = any(result.get(name) for name in ("write", "copy", "move", "tag"))
    store = dedupe.get("store", "memory") if isinstance(dedupe, Mapping) else "memory"
    if touches and store == "memory":
        report.warning(
            ("spec", "dedupe"),
            "what has been dealt with is remembered in the pod's memory only: after a restart a"
            " redelivered event runs its side effects again; set dedupe.store to s3 (or sqlite with"
            " a volumeClaim)",
        )
    if store == "sqlite" and not dedupe.get("volumeClaim"):
        report.warning(
            ("spec", "dedupe", "store"),
            "the SQLite file is lost with the pod; name a volumeClaim, or use store s3",
        )
    adapter = spec.get("adapter") or {}
    guarded = isinstance(adapter, Mapping) and (
        adapter.get("tokenSecret") or adapter.get("basicSecret")
    )
    if isinstance(adapter, Mapping) and adapter.get("public") and not guarded:
        report.warning(
            ("spec", "adapter", "public"),
            "anybody can post notifications; name a tokenSecret or a basicSecret",
        )


def _check_broker(value: JSON) -> list[Problem]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [("", "must be a mapping with name, and create, class or config")]
    known = ("name", "create", "class", "config", "topic", "ordered")
    problems = _unknown(value, known)
    for key in ("name", "topic"):
        if value.get(key) is not None and not isinstance(value[key], str):
            problems.append((key, "must be text"))
    for key in ("create", "ordered"):
        if value.get(key) is not None and not isinstance(value[key], bool):
            problems.append((key, "must be true or false"))
    kind = value.get("class")
    if kind is not None and kind not in BROKER_CLASSES:
        problems.append(("class", f"must be one of {', '.join(BROKER_CLASSES)}, not {kind!r}"))
    if not str(kind or "").startswith("Kafka"):
        problems += [
            (key, "needs class Kafka")
            for key in ("topic", "ordered")
            if value.get(key) and (kind is not None or not value.get("name"))
        ]
    config = value.get("config")
    if config is not None and not (isinstance(config, Mapping) and config.get("name")):
        problems.append(("config", "needs name (and namespace) of a ConfigMap"))
    return problems


def _check_adapter(value: JSON) -> list[Problem]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [("", "must be a mapping")]
    problems = _unknown(
        value,
        (
            "public",
            "tokenSecret",
            "basicSecret",
            "maxBodyBytes",
            "ratePerSecond",
            "snsTopics",
            "buckets",
        ),
    )
    basic = value.get("basicSecret")
    if basic is not None and not (isinstance(basic, Mapping) and basic.get("name")):
        problems.append(("basicSecret", "needs name of a Secret with username and password"))
    secret = value.get("tokenSecret")
    if secret is not None and not (
        isinstance(secret, Mapping) and secret.get("name") and secret.get("key")
    ):
        problems.append(("tokenSecret", "needs name and key of a Secret"))
    if value.get("public") is not None and not isinstance(value["public"], bool):
        problems.append(("public", "must be true or false"))
    for key in ("maxBodyBytes", "ratePerSecond"):
        number = value.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            problems.append((key, "must be a whole number"))
    buckets = value.get("buckets")
    if buckets is not None and not (
        isinstance(buckets, list) and all(isinstance(name, str) for name in buckets)
    ):
        problems.append(("buckets", "must be a list of bucket names"))
    topics = value.get("snsTopics")
    if topics is not None and not (
        isinstance(topics, list) and all(isinstance(topic, str) for topic in topics)
    ):
        problems.append(("snsTopics", "must be a list of topic ARNs"))
    return problems


def _check_scale(value: JSON) -> list[Problem]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [("", "must be a mapping with min and max")]
    problems = _unknown(value, ("min", "max"))
    for key in ("min", "max"):
        number = value.get(key)
        if number is not None and (
            isinstance(number, bool) or not isinstance(number, int) or number < 0
        ):
            problems.append((key, "must be a whole number, 0 or more"))
    return problems


def _check_resources(value: JSON) -> list[Problem]:
    """Amounts are checked with the Service made of them."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [("", "must be a mapping with requests and limits")]
    problems = _unknown(value, ("requests", "limits"))
    return problems + [
        (name, "must be a mapping such as {memory: 1Gi}")
        for name in ("requests", "limits")
        if value.get(name) is not None and not isinstance(value[name], Mapping)
    ]


def _check_text(value: JSON) -> list[Problem]:
    return [] if value is None or (isinstance(value, str) and value) else [("", "must be text")]


def _check_queue(value: JSON) -> list[Problem]:
    """`source`: what notify needs, and how credentials are named."""
    s3 = value.get("s3") if isinstance(value, Mapping) else None
    if not isinstance(s3, Mapping):
        return []
    problems: list[Problem] = []
    notify, queue = s3.get("notify"), s3.get("queue")
    if notify in ("SQS", "IntegrationSource"):
        what = "the queue's URL" if notify == "SQS" else "the queue's ARN"
        if not queue:
            problems.append(("s3.queue", f"is missing: {what}, for notify: {notify}"))
        elif not _QUEUES[notify].match(str(queue)):
            problems.append(("s3.queue", f"{queue!r} is not {what}, as notify: {notify} wants it"))
    secret = s3.get("credentials")
    if secret is not None:
        if not isinstance(secret, Mapping) or not secret.get("secretName"):
            problems.append(("s3.credentials", "needs secretName"))
        else:
            problems += [
                (f"s3.credentials.{path}", message)
                for path, message in _unknown(secret, ("secretName",))
            ]
    return problems


def _check_journal(value: JSON) -> list[Problem]:
    """`dedupe`: a volume is mounted where the SQLite file is."""
    path = value.get("path") if isinstance(value, Mapping) else None
    if not isinstance(path, str) or not path or value.get("store") != "sqlite":
        return []
    folder = path.rpartition("/")[0]
    if path.startswith("/") and folder and folder != "/tmp":  # noqa: S108 - other pods' own volume
        return []
    message = "must be absolute, in a directory of its own: /journal/NAME.sqlite"
    return [("path", message)]


def _check_token(spec: Mapping[str, JSON]) -> list[Problem]:
    """A token that nobody could send."""
    source, adapter = spec.get("source"), spec.get("adapter")
    s3 = source.get("s3") if isinstance(source, Mapping) else None
    way = s3.get("notify") if isinstance(s3, Mapping) else None
    if way != "IntegrationSource" or not isinstance(adapter, Mapping):
        return []
    return [
        (f"adapter.{name}", f"{why}; leave it out, the adapter is cluster-local")
        for name, why in (
            ("tokenSecret", "an IntegrationSource cannot send a token: it would be answered 401"),
            ("basicSecret", "an IntegrationSource cannot log in: it would be answered 401"),
            ("public", "an IntegrationSource calls the adapter inside the cluster"),
        )
        if adapter.get(name)
    ]


def _unknown(value: Mapping[str, JSON], known: tuple[str, ...]) -> list[Problem]:
    return [
        (str(key), f"unknown field (expected {', '.join(known)})")
        for key in value
        if key not in known
    ]


_SECTIONS: dict[str, Callable[[JSON], list[Problem]]] = {
    "source": _check_queue,
    "dedupe": _check_journal,
    "broker": _check_broker,
    "delivery": delivery.check,
    "adapter": _check_adapter,
    "scale": _check_scale,
    "resources": _check_resources,
    "serviceAccountName": _check_text,
    "image": _check_text,
}
