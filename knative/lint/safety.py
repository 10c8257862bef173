"""Rules about secrets, metrics and events (spec/knative 3.4, 7.5, 7.6)."""

import re
from collections.abc import Iterator

from knative.api.problems import Level
from knative.lint.rule import Found, Rule, View

_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|ACCESS_KEY|API_?KEY|PRIVATE_KEY)", re.I)
_PREDICT_URL = re.compile(r"(:predict|:explain|/infer|/generate)\Z")


def _literal_secret(view: View) -> Iterator[Found]:
    if not view.is_service:
        return
    for group in ("initContainers", "containers"):
        for container in view.pod.get(group) or []:
            for variable in container.get("env") or []:
                value = variable.get("value")
                if value and _SECRET_NAME.search(variable["name"]) and not value.startswith("/"):
                    yield view.where, f"{variable['name']} looks like a secret and is written out"


def _scraped(view: View) -> Iterator[Found]:
    if not view.is_service or view.annotations.get("prometheus.io/scrape") != "true":
        return
    port = view.annotations.get("prometheus.io/port", "8080")
    serving = str(((view.serving.get("ports") or [{}])[0]).get("containerPort", 8080))
    if port == serving:
        yield view.where, f"Prometheus scrapes port {port}, the one that serves"


def _raw_subscriber(view: View) -> Iterator[Found]:
    if view.item["kind"] != "Trigger":
        return
    subscriber = (view.item.get("spec") or {}).get("subscriber") or {}
    uri = str(subscriber.get("uri") or "")
    if _PREDICT_URL.search(uri.partition("?")[0]):
        yield ("spec", "subscriber", "uri"), f"the Trigger delivers to {uri}"


def _no_delivery(view: View) -> Iterator[Found]:
    if view.item["kind"] != "Trigger":
        return
    delivery = (view.item.get("spec") or {}).get("delivery") or {}
    if not delivery.get("deadLetterSink"):
        yield ("spec",), f"events that {view.name} cannot deliver are lost without a trace"


RULES = (
    Rule(
        id="literal-secret",
        level=Level.WARNING,
        why="A value in a manifest is readable for everyone who may read the Service, and stays in"
        " every old revision.",
        remedy="use valueFrom.secretKeyRef",
        check=_literal_secret,
    ),
    Rule(
        id="scraped-serving-port",
        level=Level.WARNING,
        why="Scraping counts as traffic: a pod that is asked every 30 s never scales to zero, and a"
        " sleeping one is woken (knative #15191, #11722).",
        remedy="serve metrics on another port",
        check=_scraped,
    ),
    Rule(
        id="trigger-to-predict-url",
        level=Level.WARNING,
        why="A subscriber's reply must be a CloudEvent or empty. A model's JSON answer counts as a"
        " failed delivery, so the same event is predicted again and again.",
        remedy="point it at an events sink: use an InferenceTrigger",
        check=_raw_subscriber,
    ),
    Rule(
        id="no-dead-letter",
        level=Level.WARNING,
        why="After its retries a broker drops an event silently unless there is a dead letter"
        " sink.",
        remedy="add spec.delivery with retry, backoffPolicy, backoffDelay and deadLetterSink",
        check=_no_delivery,
    ),
)
