"""The order of compiled objects, computed from the objects alone so that it survives a round trip.

By kind (what others mount first, triggers last), then callees before callers, then namespace and
name.
A Service calls another one when a cluster-local URL of it appears in a container's command, args
or env.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from knative.api.problems import Problem, Report
from knative.api.resource import Resource

JSON = Any

_KINDS = ("ServiceAccount", "Secret", "ConfigMap", "Service", "Broker", "SinkBinding", "Trigger")
"""Unlisted kinds follow, by name."""
_CALL = re.compile(r"\b([a-z0-9][-a-z0-9]*)\.([a-z0-9][-a-z0-9]*)\.svc\.cluster\.local\b")

Key = tuple[str, str]


def ordered(objects: Sequence[dict[str, JSON]]) -> list[dict[str, JSON]]:
    """The objects, dependencies first. Stable and total: equal input gives equal output."""
    services = {_key(o): o for o in objects if o["kind"] == "Service"}
    calls = {
        key: [k for k in _calls(o) if k in services and k != key] for key, o in services.items()
    }
    depths: dict[Key, int] = {}
    for key in sorted(calls):
        _depth(key, calls, depths)
    return sorted(objects, key=lambda o: _rank(o, depths))


def clashes(pairs: Sequence[tuple[Resource, dict[str, JSON]]]) -> list[Problem]:
    """Two objects of one kind and name, made from different manifests."""
    problems: list[Problem] = []
    seen: dict[tuple[str, str, str, str], Resource] = {}
    for resource, item in pairs:
        metadata = item["metadata"]
        identity = (
            item["apiVersion"],
            item["kind"],
            metadata.get("namespace", ""),
            metadata["name"],
        )
        first = seen.setdefault(identity, resource)
        if first is resource:
            continue
        report = Report(resource.document, resource.subject)
        line, _ = first.document.locate(())
        report.error(
            ("metadata", "name"),
            f"{item['kind']} {metadata['name']} is already made from {first.subject}"
            f" ({first.document.file}:{line}); rename one",
        )
        problems += report.problems
    return problems


def _key(item: Mapping[str, JSON]) -> Key:
    return (item["metadata"].get("namespace", ""), item["metadata"]["name"])


def _rank(item: Mapping[str, JSON], depths: Mapping[Key, int]) -> tuple[int, int, str, str, str]:
    kind = item["kind"]
    position = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    namespace, name = _key(item)
    return (
        position,
        depths.get((namespace, name), 0) if kind == "Service" else 0,
        kind,
        namespace,
        name,
    )


def _depth(start: Key, calls: Mapping[Key, Sequence[Key]], depths: dict[Key, int]) -> None:
    """Longest chain of callees below `start`, without recursion; a cycle counts as a leaf."""
    stack = [(start, iter(calls[start]))]
    open_: set[Key] = {start}
    while stack:
        key, rest = stack[-1]
        step = next((k for k in rest if k not in depths and k not in open_), None)
        if step is not None:
            open_.add(step)
            stack.append((step, iter(calls[step])))
            continue
        depths.setdefault(key, 1 + max((depths.get(k, -1) for k in calls[key]), default=-1))
        stack.pop()


def _calls(item: Mapping[str, JSON]) -> list[Key]:
    return sorted({(ns, name) for text in _texts(item) for name, ns in _CALL.findall(text)})


def _texts(item: Mapping[str, JSON]) -> Iterator[str]:
    pod = ((item.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in pod.get("containers") or []:
        for text in [*(container.get("command") or []), *(container.get("args") or [])]:
            if isinstance(text, str):
                yield text
        for env in container.get("env") or []:
            if isinstance(env.get("value"), str):
                yield env["value"]
