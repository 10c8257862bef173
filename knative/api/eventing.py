"""Types that Knative Eventing's kinds share: destinations and delivery (spec/knative 3.1-3.3)."""

from collections.abc import Mapping
from typing import Any

from knative.api import core
from knative.api.problems import Path, Report
from knative.api.schema import Field, Int, Obj, Str

JSON = Any

DESTINATION = Obj(
    name="Destination",
    fields={
        "ref": Field(
            type=Obj(
                name="KReference",
                fields={
                    "apiVersion": Field(type=core.TEXT),
                    "group": Field(type=core.TEXT),
                    "kind": Field(type=core.TEXT, required=True),
                    "name": Field(type=core.OBJECT_NAME, required=True),
                    "namespace": Field(type=core.NAME),
                    "address": Field(type=core.TEXT),
                },
            )
        ),
        "uri": Field(type=core.TEXT),
        "CACerts": Field(type=core.TEXT),
        "audience": Field(type=core.TEXT),
    },
)
DELIVERY = Obj(
    name="DeliverySpec",
    fields={
        "deadLetterSink": Field(type=DESTINATION),
        "retry": Field(type=Int(minimum=0)),
        "timeout": Field(type=core.TEXT),
        "backoffPolicy": Field(type=Str(enum=("linear", "exponential"))),
        "backoffDelay": Field(type=core.TEXT),
        "retryAfterMax": Field(type=core.TEXT),
        "format": Field(type=Str(enum=("json", "binary"))),
    },
)


def check_destination(value: Mapping[str, JSON], path: Path, report: Report) -> None:
    """ref, uri, or both (then uri is relative to the ref's address)."""
    if not value.get("ref") and not value.get("uri"):
        report.error(path, "needs ref or uri")
    uri = value.get("uri")
    if uri and not value.get("ref") and "://" not in uri:
        report.error(
            (*path, "uri"), "must be absolute, because there is no ref it could be relative to"
        )


def check_delivery(value: Mapping[str, JSON], path: Path, report: Report) -> None:
    """Durations are ISO 8601 here (`PT0.5S`), unlike everywhere else in Knative."""
    for key in ("timeout", "backoffDelay", "retryAfterMax"):
        text = value.get(key)
        if text is not None and not _is_iso_duration(str(text)):
            report.error((*path, key), f'must be an ISO 8601 duration such as PT30S, not "{text}"')
    if value.get("deadLetterSink"):
        check_destination(value["deadLetterSink"], (*path, "deadLetterSink"), report)
    if value.get("retry") and not value.get("backoffPolicy"):
        report.note(
            path, "retries without backoffPolicy and backoffDelay follow the broker's default"
        )


def _is_iso_duration(text: str) -> bool:
    import re

    pattern = r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?"
    return re.fullmatch(pattern, text) is not None
