"""Every problem of an inference trigger's spec, found in one pass over a table of fields. Pure.

Each problem is (path, message); paths look like `result.move.bucket`. Unknown fields are problems.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import filters, names, template
from .errors import Refused

Problem = tuple[str, str]
Check = Callable[[Any, str], list[Problem]]

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

_URL = re.compile(r"https?://[^/\s?#]+[^\s]*\Z")
_EVENT_NAME = re.compile(r"(?:s3:)?Object(?:Created|Removed|Tagging|Restore):(?:\*|[A-Za-z]+)\Z")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def check(value: Any, *, resolved: bool = True) -> list[Problem]:
    """All problems; `resolved` False: `target.ref` may stand where `target.url` will."""
    if not isinstance(value, Mapping):
        return [("", "must be a map")]
    target = _map({**_TARGET, **({} if resolved else {"ref": _reference})})
    problems = _fields(
        value,
        "",
        {
            **_TOP,
            **dict.fromkeys(TOP_LEVEL_OF_COMPILER, _anything),
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


# --- checks of single values ----------------------------------------------------------------------
def _anything(value: Any, path: str) -> list[Problem]:
    return []


def _string(value: Any, path: str) -> list[Problem]:
    return [] if isinstance(value, str) and value else [(path, "must be a text, not empty")]


def _text_any(value: Any, path: str) -> list[Problem]:
    return [] if isinstance(value, str) else [(path, "must be a text")]


def _one_of(*allowed: str) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        if value in allowed:
            return []
        return [(path, f"{value!r} is not one of {', '.join(allowed)}")]

    return run


def _number(low: float, high: float, *, whole: bool = True) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            return [
                (
                    path,
                    f"must be a {'whole ' if whole else ''}number from {low} to {high}, "
                    f"not {value!r}",
                )
            ]
        return []

    return run


def _list_of(one: Check) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, list) or not value:
            return [(path, "must be a list, not empty")]
        return [
            problem for index, item in enumerate(value) for problem in one(item, f"{path}[{index}]")
        ]

    return run


def _bucket(value: Any, path: str) -> list[Problem]:
    try:
        names.bucket(value if isinstance(value, str) else "")
    except Refused:
        return [(path, f"{value!r} is not a bucket name (3-63 of a-z, 0-9, dots and dashes)")]
    return []


def _event_name(value: Any, path: str) -> list[Problem]:
    if isinstance(value, str) and _EVENT_NAME.match(value):
        return []
    return [
        (path, f"{value!r} is not an S3 event name such as ObjectCreated:* or ObjectCreated:Put")
    ]


def _url(value: Any, path: str) -> list[Problem]:
    if isinstance(value, str) and _URL.match(value):
        return []
    return [(path, f"{value!r} is not an http(s) URL")]


def _template(default: str) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, str) or not value:
            return [(path, "must be a text, not empty")]
        try:
            template.compile_text(value, default)
        except template.TemplateError as error:
            return [(path, str(error))]
        return []

    return run


def _document(default: str) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        try:
            template.compile_body(value, default)
        except template.TemplateError as error:
            return [(path, str(error))]
        return []

    return run


def _templates(default: str) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, Mapping):
            return [(path, "must be a map of name: text")]
        problems: list[Problem] = []
        for name, text in value.items():
            here = f"{path}.{name}"
            if not isinstance(name, str) or not _HEADER.match(name):
                problems.append((here, "the name must be letters, digits and dashes"))
            problems += _template(default)(text, here)
        return problems

    return run


def _map(fields: Mapping[str, Check]) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        if not isinstance(value, Mapping):
            return [(path, "must be a map")]
        return _fields(value, f"{path}.", fields)

    return run


def _fields(value: Mapping[str, Any], prefix: str, fields: Mapping[str, Check]) -> list[Problem]:
    problems: list[Problem] = []
    for name, item in value.items():
        if name not in fields:
            close = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else f" (expected {', '.join(fields)})"
            problems.append((f"{prefix}{name}", f"unknown field{hint}"))
        elif item is not None:
            problems += fields[name](item, f"{prefix}{name}")
    return problems


def _reply_map(fields: Mapping[str, Check]) -> Check:
    def run(value: Any, path: str) -> list[Problem]:
        missing = isinstance(value, Mapping) and not value.get("type")
        return _map(fields)(value, path) + ([(f"{path}.type", "is missing")] if missing else [])

    return run


def _reference(value: Any, path: str) -> list[Problem]:
    problems = _map(
        {
            "kind": _one_of("InferenceGraph", "InferenceService", "SeldonDeployment", "Service"),
            "name": _string,
            "namespace": _string,
            "apiVersion": _string,
        }
    )(value, path)
    if isinstance(value, Mapping):
        problems += [
            (f"{path}.{name}", "is missing") for name in ("kind", "name") if not value.get(name)
        ]
    return problems


_TARGET: dict[str, Check] = {
    "url": _url,
    "path": _text_any,
    "timeoutSeconds": _number(0.001, 86400, whole=False),
}
_DAY = 86400
_TOP: dict[str, Check] = {
    "name": _string,
    "namespace": _string,
    "source": _map(
        {
            "s3": _map(
                {
                    "bucket": _bucket,
                    "buckets": _list_of(_bucket),
                    "prefix": _text_any,
                    "suffix": _text_any,
                    "events": _list_of(_event_name),
                    "removed": _one_of("Ignore", "DeleteResult"),
                    "endpoint": _url,
                    "region": _string,
                    "notify": _one_of("Webhook", "IntegrationSource", "SQS", "None"),
                    "queue": _string,
                    "credentials": _anything,
                    "sweep": _map(
                        {
                            "schedule": _string,
                            "minAgeSeconds": _number(0, _DAY),
                            "maxAgeSeconds": _number(1, 365 * _DAY),
                        }
                    ),
                }
            ),
            "filters": _list_of(_anything),
        }
    ),
    "request": _map(
        {
            "object": _one_of("none", "base64", "bytes", "text", "json", "url"),
            "template": _document("data"),
            "contentType": _string,
            "headers": _templates("data"),
            "maxObjectBytes": _number(1, 1 << 34),
            "urlExpiresSeconds": _number(1, 7 * _DAY),
        }
    ),
    "result": _map(
        {
            "reply": _reply_map(
                {
                    "type": _template("answer"),
                    "source": _template("answer"),
                    "subject": _template("answer"),
                    "data": _document("answer"),
                }
            ),
            "write": _map(
                {
                    "bucket": _template("answer"),
                    "key": _template("answer"),
                    "content": _document("answer"),
                }
            ),
            "copy": _map({"bucket": _template("answer"), "key": _template("answer")}),
            "move": _map({"bucket": _template("answer"), "key": _template("answer")}),
            "tag": _templates("answer"),
        }
    ),
    "dedupe": _map(
        {
            "store": _one_of("memory", "sqlite", "s3"),
            "path": _string,
            "volumeClaim": _string,
            "bucket": _bucket,
            "prefix": _text_any,
            "ttlSeconds": _number(1, 365 * _DAY),
            "maxEntries": _number(1, 10_000_000),
        }
    ),
    "concurrency": _map({"max": _number(1, 1000), "waiting": _number(0, 100_000)}),
    "deadlineSeconds": _number(0.001, _DAY, whole=False),
    "asyncTtlSeconds": _number(1, 7 * _DAY),
    "maxHops": _number(1, 1000),
}
