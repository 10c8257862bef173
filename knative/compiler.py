"""From manifests to Knative objects, in stages that each do one thing:

    read      bytes to documents with places                       knative.api.reader
    identify  document to Resource: kind, name, namespace          knative.api.identify
    check     field tables and rules between fields                knative.api.*
    make      Resource to Knative objects, pure                    knative.resources.*
    verify    what was made, by Knative's own rules                knative.verify
    order     dependencies first, then kind and name               knative.order

Problems of all files and stages are collected and raised together. The same input gives the same
output to the byte, and compiling the output again changes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knative import errors, order, verify
from knative.api import identify, kinds, reader, schema
from knative.api.problems import Level, Problem, Report
from knative.api.resource import Resource
from knative.options import CompileOptions
from knative.sources import read_sources

JSON = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileResult:
    """What a compilation produced. `problems` holds warnings and notes only; errors raise."""

    objects: list[dict[str, JSON]]
    problems: list[Problem] = field(default_factory=list)
    flags: Mapping[str, str] = field(default_factory=dict)
    """Knative feature flag -> where the need comes from (object and field path)."""
    resources: Sequence[Resource] = ()
    """The source manifests, for rules that look at them (lint)."""
    made: Sequence[tuple[Resource, dict[str, JSON]]] = ()
    """Every object with the manifest it was made from."""

    @property
    def warnings(self) -> list[Problem]:
        """The findings worth telling on every compilation."""
        return [p for p in self.problems if p.level is Level.WARNING]


class Context:
    """What a maker may ask: the options, the other manifests, and where to report."""

    def __init__(self, options: CompileOptions, resources: Iterable[Resource]) -> None:
        self.options = options
        self.resources: dict[tuple[str, str, str], Resource] = {r.key: r for r in resources}
        self._reports: dict[tuple[str, str, str], Report] = {}
        self._called: set[tuple[str, str]] | None = None

    def find(self, kind: str, namespace: str, name: str) -> Resource | None:
        """A manifest of the same input."""
        return self.resources.get((kind, namespace, name))

    def find_sound(self, kind: str, namespace: str, name: str) -> Resource | None:
        """A manifest of the same input whose fields can be trusted; None for a faulty one."""
        found = self.find(kind, namespace, name)
        return None if found is None or self.report(found).failed else found

    def report(self, resource: Resource) -> Report:
        """Where to say something about a manifest."""
        report = self._reports.get(resource.key)
        if report is None:
            report = Report(resource.document, resource.subject, strict=self.options.strict)
            self._reports[resource.key] = report
        return report

    def reports(self) -> Iterator[Report]:
        """All reports used so far."""
        yield from self._reports.values()

    def is_called(self, namespace: str, name: str) -> bool:
        """Whether another manifest of the input calls this service, so that it need not be
        public."""
        if self._called is None:
            from knative.resources import calls

            self._called = calls.called_services(self.resources.values())
        return (namespace, name) in self._called

    def service_url(self, caller: Resource, name: str, path: tuple[str | int, ...]) -> str:
        """URL of an InferenceService, graph or Service in the caller's namespace
        (spec/kserve_graph 2.5).

        A name that is not in the input is assumed to exist in the cluster, with a warning at
        `path`.
        """
        from knative.resources import calls

        return calls.service_url(self, caller, name, path)


def compile_files(
    paths: Sequence[str | Path], options: CompileOptions | None = None
) -> CompileResult:
    """Compile files, directories (their *.yaml, *.yml, *.json) and `-` (standard input).

    Raises ManifestError with all problems if there is an error among them.
    """
    documents, found = read_sources(paths)
    return _compile(documents, found, options or CompileOptions())


def compile_text(
    text: str | bytes, options: CompileOptions | None = None, *, file: str = ""
) -> CompileResult:
    """Compile one stream from memory; `file` is its name in messages."""
    raw = text.encode() if isinstance(text, str) else text
    documents: list[reader.Document] = []
    found: list[Problem] = []
    try:
        documents.extend(reader.read(file, raw))
    except reader.ReadError as error:
        found.append(_unreadable(file, error))
    return _compile(documents, found, options or CompileOptions())


def _unreadable(file: str, error: reader.ReadError) -> Problem:
    return Problem(
        level=Level.ERROR, message=error.message, file=file, line=error.line, column=error.column
    )


def _compile(
    documents: Sequence[reader.Document], found: list[Problem], options: CompileOptions
) -> CompileResult:
    found = [*found, *(p for d in documents for p in d.problems)]
    resources, identified = identify.identify(documents, options)
    found += identified
    context = Context(options, resources)
    sound = [r for r in resources if _check(r, context)]
    pairs: list[tuple[Resource, dict[str, JSON]]] = []
    for resource in sound:
        made = kinds.require(resource).make(resource, context)
        _verify(made, resource, context)
        pairs += [(resource, item) for item in made]
    objects = [item for _, item in pairs]
    found += order.clashes(pairs)
    found += [p for report in context.reports() for p in report.problems]
    if any(p.level is Level.ERROR for p in found):
        raise errors.ManifestError(found)
    return CompileResult(
        objects=order.ordered(objects),
        problems=sorted(found, key=lambda p: p.key),
        flags=_flags(context),
        resources=resources,
        made=pairs,
    )


def _check(resource: Resource, context: Context) -> bool:
    """Field tables first; rules between fields only on sound data. True if it may be made."""
    kind, report = kinds.require(resource), context.report(resource)
    known = schema.Obj(name=kind.name, fields={**identify.HEAD, **kind.fields})
    schema.check(resource.data, known, (), report)
    if not report.failed:
        kind.check(resource, report)
    return not report.failed


def _verify(made: Sequence[dict[str, JSON]], resource: Resource, context: Context) -> None:
    """Knative's rules on what was made from a manifest of another kind and found sound so far."""
    report = context.report(resource)
    if resource.kind == "Service" or report.failed:
        return
    for item in made:
        if item["kind"] == "Service":
            verify.check(item, resource, report)


def _flags(context: Context) -> dict[str, str]:
    flags: dict[str, str] = {}
    for resource in context.resources.values():
        for flag, path in context.report(resource).flags.items():
            flags.setdefault(flag, f"{resource.subject}: {path}")
    return dict(sorted(flags.items()))
