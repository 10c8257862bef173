"""Who calls whom: the URL behind a service name, and which services are called by others of the
input."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from knative import names
from knative.api.problems import Path, suggest
from knative.api.resource import Resource
from knative.resources import protocol

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any

_CALLABLE = ("InferenceService", "InferenceGraph", "SeldonDeployment", "Service")


def service_url(context: "Context", caller: Resource, name: str, path: Path) -> str:
    """The URL a caller uses for `name` in its namespace; reports what is wrong with it at
    `path`."""
    namespace = caller.namespace
    target = context.find("InferenceService", namespace, name)
    if target is not None:
        return _of_inference_service(context, caller, target, path)
    for kind in _CALLABLE[1:]:
        found = context.find(kind, namespace, name)
        if found is not None:
            return names.url(name, namespace, _path(context, found))
    known = [
        r.name
        for r in context.resources.values()
        if r.kind in _CALLABLE and r.namespace == namespace
    ]
    context.report(caller).warning(
        path,
        f"{name} is not in the input{suggest(name, known)}; taken for an InferenceService that"
        f" already runs in namespace {namespace} and speaks v1 (serviceUrl names anything else)",
    )
    return names.url(name, namespace, names.predict_path(name, "v1"))


def _of_inference_service(
    context: "Context", caller: Resource, target: Resource, path: Path
) -> str:
    if context.report(target).failed:
        return names.url(target.name, target.namespace)  # its own problems are reported already
    spoken = protocol.of_service(target, context)
    if spoken.startswith("grpc"):
        context.report(caller).warning(
            path, f"{target.name} speaks {spoken}; the step is called without a path"
        )
    return names.url(
        target.name, target.namespace, names.predict_path(protocol.model_name(target), spoken)
    )


def _path(context: "Context", target: Resource) -> str:
    """Graphs and plain Services are called at their root, Seldon's at their inference path."""
    if target.kind != "SeldonDeployment" or context.report(target).failed:
        return ""
    from knative.resources import seldon_paths

    return seldon_paths.inference_path(target)


def called_services(resources: Iterable[Resource]) -> set[tuple[str, str]]:
    """(namespace, name) of every service that a graph of the input names in a step."""
    return {
        (resource.namespace, name)
        for resource in resources
        if resource.kind == "InferenceGraph"
        for name in _step_names(resource.spec)
    }


def steps(spec: Any) -> Iterator[tuple[Path, dict[str, JSON]]]:
    """Every step of a graph's spec with its path; tolerates any shape."""
    nodes = spec.get("nodes") if hasattr(spec, "get") else None
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        listed = node.get("steps") if isinstance(node, dict) else None
        for index, step in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(step, dict):
                yield ("spec", "nodes", name, "steps", index), step


def _step_names(spec: Any) -> Iterator[str]:
    for _, step in steps(spec):
        name = step.get("serviceName")
        if isinstance(name, str) and name:
            yield name
