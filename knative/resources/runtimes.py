"""Which runtime serves a model: one named, one from the input, one of ours, or one of KServe's.

Order without a name: ServingRuntimes of the namespace, ClusterServingRuntimes of the input, our own
`functions` runtimes, KServe's stock runtimes. Within a group KServe's rules: the format must be
listed
with autoSelect, the protocol supported, then the higher priority wins (spec/kserve_sdk 5).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knative import keys
from knative.api.formats import OWN_RUNTIMES, V2_BY_DEFAULT
from knative.api.problems import Path, suggest
from knative.api.resource import Resource
from knative.resources import protocol
from knative.resources.stock_runtimes import STOCK_RUNTIMES

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any

OURS = "turnout-functions"
"""Value of `model.runtime` that asks for `python -m functions` whatever else there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A chosen runtime; `spec` is a ServingRuntime spec, or None for our own server."""

    name: str
    spec: Mapping[str, JSON] | None = None


def choose(resource: Resource, context: "Context", model: protocol.ModelServer) -> Choice | None:
    """The runtime of a predictor, or None after reporting why there is none."""
    named = model.fields.get("runtime")
    if named:
        return _named(resource, context, model, str(named))
    wanted = _wanted(model)
    for kind in ("ServingRuntime", "ClusterServingRuntime"):
        found = _best(model, wanted, _of_input(resource, context, kind))
        if found is not None:
            return found
    stock_first = wants_stock(resource, context)
    if model.format in OWN_RUNTIMES and not stock_first and wanted != "grpc-v1":
        return Choice(name=OURS)
    found = _best(model, wanted, iter(STOCK_RUNTIMES.items()))
    if found is None:
        _report_none(resource, context, model, wanted)
    return found


def wants_stock(resource: Resource, context: "Context") -> bool:
    """Whether stock containers come before ours, by annotation or option."""
    given = resource.annotations.get(keys.RUNTIME)
    if given not in (None, "functions", "stock"):
        context.report(resource).error(
            ("metadata", "annotations", keys.RUNTIME),
            f'must be "functions" or "stock", not "{given}"',
        )
    return given == "stock" or (given is None and context.options.stock_runtimes)


def _named(
    resource: Resource, context: "Context", model: protocol.ModelServer, name: str
) -> Choice | None:
    path: Path = (*model.path, "runtime")
    report = context.report(resource)
    if name == OURS:
        if model.format not in OWN_RUNTIMES:
            report.error(path, f"{OURS} serves {', '.join(OWN_RUNTIMES)}, not {model.format}")
            return None
        return Choice(name=OURS)
    known: dict[str, Mapping[str, JSON]] = dict(STOCK_RUNTIMES)
    for kind in ("ClusterServingRuntime", "ServingRuntime"):
        known |= dict(_of_input(resource, context, kind))
    spec = known.get(name)
    if spec is None:
        hint = suggest(name, [*known, OURS])
        report.error(path, f"runtime {name} is not in the input and not one of KServe's{hint}")
        return None
    if spec.get("disabled"):
        report.error(path, f"runtime {name} is disabled")
        return None
    if model.format not in {f["name"].lower() for f in spec["supportedModelFormats"]}:
        report.error(path, f"runtime {name} does not list the model format {model.format}")
        return None
    wanted = str(model.fields.get("protocolVersion") or "")
    spoken = spec.get("protocolVersions") or []
    if wanted and spoken and wanted not in spoken:
        report.error(path, f"runtime {name} speaks {', '.join(spoken)}, not {wanted}")
        return None
    return Choice(name=name, spec=spec)


def _wanted(model: protocol.ModelServer) -> str:
    given = model.fields.get("protocolVersion")
    return str(given) if given else ("v2" if model.format in V2_BY_DEFAULT else "v1")


def _of_input(
    resource: Resource, context: "Context", kind: str
) -> Iterator[tuple[str, Mapping[str, JSON]]]:
    for other in context.resources.values():
        if other.kind != kind or context.report(other).failed:
            continue
        if kind == "ClusterServingRuntime" or other.namespace == resource.namespace:
            yield other.name, other.spec


def _best(
    model: protocol.ModelServer, wanted: str, candidates: Iterator[tuple[str, Mapping[str, JSON]]]
) -> Choice | None:
    ranked: list[tuple[int, str, Mapping[str, JSON]]] = []
    for name, spec in candidates:
        spoken = spec.get("protocolVersions") or [wanted]
        if spec.get("disabled") or spec.get("multiModel") or wanted not in spoken:
            continue
        for listed in spec["supportedModelFormats"]:
            if (
                listed["name"].lower() == model.format
                and listed.get("autoSelect")
                and _same_version(listed.get("version"), model.version)
            ):
                ranked.append((-(listed.get("priority") or 0), name, spec))
    if not ranked:
        return None
    _, name, spec = min(ranked, key=lambda item: (item[0], item[1]))
    return Choice(name=name, spec=spec)


def _same_version(listed: str | None, wanted: str) -> bool:
    """KServe compares major versions; without a wanted one every version fits."""
    return not wanted or not listed or listed.split(".")[0] == wanted.split(".")[0]


def _report_none(
    resource: Resource, context: "Context", model: protocol.ModelServer, wanted: str
) -> None:
    formats = {f["name"] for spec in STOCK_RUNTIMES.values() for f in spec["supportedModelFormats"]}
    known = sorted({*OWN_RUNTIMES, *formats})
    path = (*model.path, "modelFormat", "name") if "modelFormat" in model.fields else model.path
    if model.format not in {name.lower() for name in known}:
        hint = suggest(model.format, known)
        message = f"no runtime serves {model.format}{hint}; known: {', '.join(known)}"
    else:
        message = (
            f"no runtime serves {model.format} with protocol {wanted}; name one in model.runtime"
        )
    context.report(resource).error(path, message)


_TEMPLATE = re.compile(r"\{\{\s*\.([A-Za-z]+)(?:\.([A-Za-z0-9_.-]+))?\s*\}\}")


def expand(value: JSON, facts: Mapping[str, JSON]) -> JSON:
    """Replace `{{.Name}}`, `{{.Annotations.modelFormat}}` and the like in every text of `value`.

    Raises KeyError with the expression for one that names nothing.
    """

    def fact(match: re.Match[str]) -> str:
        found = facts.get(match[1])
        if match[2]:
            found = found.get(match[2]) if isinstance(found, Mapping) else None
        if not isinstance(found, str):
            raise KeyError(match[0])
        return found

    if isinstance(value, str):
        return _TEMPLATE.sub(fact, value)
    if isinstance(value, dict):
        return {key: expand(inner, facts) for key, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner, facts) for inner in value]
    return value
