"""Documents to resources: apiVersion, kind, metadata. Lists are opened, empty documents skipped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from knative.api import core, kinds
from knative.api.problems import Level, Path, Problem, Report, render, suggest
from knative.api.reader import Document
from knative.api.resource import Resource
from knative.api.schema import Field, Obj, Str, describe, silent
from knative.options import CompileOptions

METADATA = Obj(
    name="ObjectMeta",
    fields={
        "name": Field(type=core.OBJECT_NAME, required=True),
        "namespace": Field(type=core.NAME),
        "labels": Field(type=core.TEXT_MAP),
        "annotations": Field(type=core.TEXT_MAP),
        **{
            key: silent("written by the API server")
            for key in (
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "finalizers",
                "generateName",
                "generation",
                "managedFields",
                "ownerReferences",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        },
    },
)

HEAD: dict[str, Field] = {
    "apiVersion": Field(type=Str(), required=True),
    "kind": Field(type=Str(), required=True),
    "metadata": Field(type=METADATA, required=True),
}
"""The top-level fields every kind has."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One item of a `v1 List`: paths count from the item, places from the file."""

    document: Document
    prefix: Path

    @property
    def file(self) -> str:
        return self.document.file

    def locate(self, path: Path) -> tuple[int, int]:
        return self.document.locate((*self.prefix, *path))

    def spelling(self, path: Path) -> str:
        return self.document.spelling((*self.prefix, *path))


def identify(
    documents: Sequence[Document], options: CompileOptions
) -> tuple[list[Resource], list[Problem]]:
    """The resources of an input and what is wrong with those that are none. Duplicates are
    errors."""
    resources: dict[tuple[str, str, str], Resource] = {}
    problems: list[Problem] = []
    for data, part in _items(documents):
        found = _resource(data, part, options)
        if isinstance(found, Problem):
            problems.append(found)
        elif found.key in resources:
            problems.append(_twice(found, resources[found.key]))
        else:
            resources[found.key] = found
    return list(resources.values()), problems


def _items(documents: Sequence[Document]) -> Iterator[tuple[Any, _Part]]:
    for document in documents:
        data = document.data
        if data is None:
            continue
        if (
            isinstance(data, dict)
            and data.get("kind") == "List"
            and isinstance(data.get("items"), list)
        ):
            for index, item in enumerate(data["items"]):
                yield item, _Part(document, ("items", index))
        else:
            yield data, _Part(document, ())


def _resource(data: Any, part: _Part, options: CompileOptions) -> Resource | Problem:
    if not isinstance(data, dict):
        return _error(part, (), f"a manifest must be a mapping, not {describe(data)}")
    api_version, name = data.get("apiVersion"), data.get("kind")
    for key, value in (("apiVersion", api_version), ("kind", name)):
        if not isinstance(value, str):
            return _error(part, (key,), f"{key} is required: not a Kubernetes manifest")
    if kinds.find(str(api_version), str(name)) is None:
        return _error(part, ("kind",), _unknown(str(api_version), str(name)))
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return _error(part, ("metadata",), f"{name}: metadata.name is required")
    for key in ("labels", "annotations"):
        if not isinstance(metadata.get(key) or {}, dict):
            return _error(part, ("metadata", key), f"{name}: must be a mapping")
    spec = data.get("spec")
    if spec is not None and not isinstance(spec, dict):
        return _error(part, ("spec",), f"{name}: must be a mapping, not {describe(spec)}")
    namespace = metadata.get("namespace")
    return Resource(
        kind=str(name),
        api_version=str(api_version),
        name=metadata["name"],
        namespace=namespace if isinstance(namespace, str) and namespace else options.namespace,
        data=data,
        document=part,
    )


def _unknown(api_version: str, name: str) -> str:
    versions = sorted({v for k in kinds.KINDS if k.name == name for v in k.versions})
    if versions:
        return f"{name} of {api_version} is not known; {' and '.join(versions)} are"
    known = list(dict.fromkeys(k.name for k in kinds.KINDS))
    return f"kind {name} is not known{suggest(name, known)}; Turnout reads {', '.join(known)}"


def _twice(found: Resource, first: Resource) -> Problem:
    line, _ = first.document.locate(())
    report = Report(found.document, found.subject)
    report.error(("metadata", "name"), f"is already defined in {first.document.file}:{line}")
    return report.problems[0]


def _error(part: _Part, path: Path, message: str) -> Problem:
    line, column = part.locate(path)
    return Problem(
        level=Level.ERROR,
        message=message,
        path=render(path),
        file=part.file,
        line=line,
        column=column,
    )
