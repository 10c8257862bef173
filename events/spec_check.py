"""Every problem of an inference trigger's spec, found in one pass over a table of fields. Pure.

Each problem is (path, message); paths look like `result.move.bucket`. Unknown fields are problems.
"""

import re
from collections.abc import Mapping
from typing import Any

from . import filters
from . import spec_values as values
from .spec_values import Check, Problem

TOP_LEVEL_OF_COMPILER = (
    "broker",
    "delivery",
    "adapter",
    "scale",
    "resources",
    "serviceAccountName",
    "image",
)
"""Fields that shape manifests; the sink itself does not look at them (the compiler checks them)."""


def check(value: Any, *, resolved: bool = True) -> list[Problem]:
    """All problems; `resolved` False: `target.ref` may stand where `target.url` will."""
    if not isinstance(value, Mapping):
        return [("", "must be a map")]
    target = values.mapping({**_TARGET, **({} if resolved else {"ref": values.reference})})
    problems = values.fields(
        value,
        "",
        {
            **_TOP,
            **dict.fromkeys(TOP_LEVEL_OF_COMPILER, values.anything),
            "target": target,
        },
    )
    problems += _check_source(value.get("source"))
    problems += _check_target(value.get("target"), resolved)
    problems += _check_objects_used(value)
    problems += _check_dedupe(value.get("dedupe"))
    problems += _check_sweep(value)
    return problems


def _check_source(source: Any) -> list[Problem]:
    if source is None:
        return [("source", "is missing: say which objects (s3) or which events (filters)")]
    if not isinstance(source, Mapping):
        return []  # already reported
    s3 = source.get("s3")
    if s3 is None and not source.get("filters"):
        return [("source", "needs s3 (which objects) or filters (which CloudEvents)")]
    if isinstance(s3, Mapping) and bool(s3.get("bucket")) == bool(s3.get("buckets")):
        return [("source.s3", "needs bucket or buckets (one of them)")]
    return [
        (f"source.{path}", message)
        for path, message in filters.check({"filters": source.get("filters")})
    ]


def _check_target(target: Any, resolved: bool) -> list[Problem]:
    if target is None:
        return [("target", "is missing: the graph or service to call")]
    if not isinstance(target, Mapping):
        return []
    if resolved and not target.get("url"):
        return [("target.url", "is missing")]
    if not resolved and bool(target.get("url")) == bool(target.get("ref")):
        return [("target", "needs ref (kind and name) or url (one of them)")]
    return []


def _check_objects_used(value: Mapping[str, Any]) -> list[Problem]:
    """Things that need an object, in a trigger that is not about objects; and moves in circles."""
    source, result = value.get("source"), value.get("result")
    request = value.get("request")
    about_objects = isinstance(source, Mapping) and isinstance(source.get("s3"), Mapping)
    problems: list[Problem] = []
    result = result if isinstance(result, Mapping) else {}
    if not about_objects:
        for name in ("copy", "move", "tag"):
            if result.get(name) is not None:
                problems.append((f"result.{name}", "needs source.s3: there is no object"))
        write = result.get("write")
        if isinstance(write, Mapping) and not (write.get("bucket") and write.get("key")):
            problems.append(("result.write", "needs bucket and key: there is no object beside it"))
        form = request.get("object") if isinstance(request, Mapping) else None
        if form not in (None, "none"):
            problems.append(("request.object", f"{form} needs source.s3: there is no object"))
    if result.get("move") is not None and result.get("copy") is not None:
        problems.append(("result", "has copy and move: a move copies already"))
    for name in ("write", "copy", "move"):
        problems += _check_computed_bucket(result.get(name), f"result.{name}.bucket")
    for name in ("copy", "move"):
        action = result.get(name)
        if isinstance(action, Mapping) and not (action.get("bucket") or action.get("key")):
            problems.append((f"result.{name}", "needs bucket or key, or it stays where it is"))
    if (
        about_objects
        and isinstance(source, Mapping)
        and source["s3"].get("removed") == "DeleteResult"
    ):
        write = result.get("write")
        texts = (
            [str(write.get(part) or "") for part in ("bucket", "key")]
            if isinstance(write, Mapping)
            else []
        )
        if result.get("move") is not None:
            problems.append(
                (
                    "source.s3.removed",
                    "DeleteResult with result.move would delete every result: a move removes the"
                    " input; use Ignore, or copy",
                )
            )
        if not texts:
            problems.append(("source.s3.removed", "DeleteResult needs result.write"))
        elif any(re.search(r"\{\s*(\$|answer)", text) for text in texts):
            problems.append(
                (
                    "source.s3.removed",
                    "DeleteResult needs a result.write that does not use the answer",
                )
            )
    return problems


def _check_computed_bucket(place: Any, path: str) -> list[Problem]:
    """A bucket that is nothing but what a model says could be any bucket."""
    text = place.get("bucket") if isinstance(place, Mapping) else None
    if not isinstance(text, str) or not re.fullmatch(r"(?:\{(?!object\.bucket\})[^{}]+\})+", text):
        return []
    message = "could be any bucket; put fixed text before or after the placeholder: digit-{...}"
    return [(path, message)]


def _check_dedupe(dedupe: Any) -> list[Problem]:
    if not isinstance(dedupe, Mapping):
        return []
    store = dedupe.get("store")
    if store == "sqlite" and not dedupe.get("path"):
        return [("dedupe.path", "is missing: the SQLite file")]
    if store == "s3" and not dedupe.get("bucket"):
        return [("dedupe.bucket", "is missing: where the marker objects go")]
    return []


def _check_sweep(value: Mapping[str, Any]) -> list[Problem]:
    """A sweep without a lasting memory would do everything again after a restart."""
    source, dedupe = value.get("source"), value.get("dedupe")
    s3 = source.get("s3") if isinstance(source, Mapping) else None
    sweep = s3.get("sweep") if isinstance(s3, Mapping) else None
    if not isinstance(sweep, Mapping):
        return []
    dedupe = dedupe if isinstance(dedupe, Mapping) else {}
    if dedupe.get("store") not in ("sqlite", "s3"):
        return [("source.s3.sweep", "needs dedupe.store sqlite or s3: it must know what was done")]
    longest, remembered = sweep.get("maxAgeSeconds", _DAY), dedupe.get("ttlSeconds", 7 * _DAY)
    numbers = isinstance(longest, (int, float)) and isinstance(remembered, (int, float))
    if numbers and longest >= remembered:
        return [("source.s3.sweep.maxAgeSeconds", "must be less than dedupe.ttlSeconds")]
    return []


_TARGET: dict[str, Check] = {
    "url": values.url,
    "path": values.text_or_empty,
    "timeoutSeconds": values.number(0.001, 86400, whole=False),
}
_DAY = 86400
_TOP: dict[str, Check] = {
    "name": values.string,
    "namespace": values.string,
    "source": values.mapping(
        {
            "s3": values.mapping(
                {
                    "bucket": values.bucket,
                    "buckets": values.list_of(values.bucket),
                    "prefix": values.text_or_empty,
                    "suffix": values.text_or_empty,
                    "events": values.list_of(values.event_name),
                    "removed": values.one_of("Ignore", "DeleteResult"),
                    "endpoint": values.url,
                    "region": values.string,
                    "notify": values.one_of("Webhook", "IntegrationSource", "SQS", "None"),
                    "queue": values.string,
                    "credentials": values.anything,
                    "sweep": values.mapping(
                        {
                            "schedule": values.string,
                            "minAgeSeconds": values.number(0, _DAY),
                            "maxAgeSeconds": values.number(1, 365 * _DAY),
                        }
                    ),
                }
            ),
            "filters": values.list_of(values.anything),
        }
    ),
    "request": values.mapping(
        {
            "object": values.one_of("none", "base64", "bytes", "text", "json", "url"),
            "template": values.document_template("data"),
            "contentType": values.string,
            "headers": values.headers_of_templates("data"),
            "maxObjectBytes": values.number(1, 1 << 34),
            "urlExpiresSeconds": values.number(1, 7 * _DAY),
        }
    ),
    "result": values.mapping(
        {
            "reply": values.reply(
                {
                    "type": values.text_template("answer"),
                    "source": values.text_template("answer"),
                    "subject": values.text_template("answer"),
                    "data": values.document_template("answer"),
                }
            ),
            "write": values.mapping(
                {
                    "bucket": values.text_template("answer"),
                    "key": values.text_template("answer"),
                    "content": values.document_template("answer"),
                }
            ),
            "copy": values.mapping(
                {"bucket": values.text_template("answer"), "key": values.text_template("answer")}
            ),
            "move": values.mapping(
                {"bucket": values.text_template("answer"), "key": values.text_template("answer")}
            ),
            "tag": values.headers_of_templates("answer"),
        }
    ),
    "dedupe": values.mapping(
        {
            "store": values.one_of("memory", "sqlite", "s3"),
            "path": values.string,
            "volumeClaim": values.string,
            "bucket": values.bucket,
            "prefix": values.text_or_empty,
            "ttlSeconds": values.number(1, 365 * _DAY),
            "maxEntries": values.number(1, 10_000_000),
        }
    ),
    "concurrency": values.mapping(
        {"max": values.number(1, 1000), "waiting": values.number(0, 100_000)}
    ),
    "deadlineSeconds": values.number(0.001, _DAY, whole=False),
    "asyncTtlSeconds": values.number(1, 7 * _DAY),
    "maxHops": values.number(1, 1000),
}
