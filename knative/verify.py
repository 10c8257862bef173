"""The compiler's last word on its own output: Knative's rules on every Service that was made.

A finding is reported at the manifest the Service came from, because that is what a person can
change.
"""

from collections.abc import Mapping
from typing import Any

from knative.api import knative_service, schema
from knative.api.problems import Level, Path, Report
from knative.api.resource import Resource

JSON = Any


class _Nowhere:
    """Made objects have no place of their own."""

    file = ""

    def locate(self, path: Path) -> tuple[int, int]:
        return (0, 0)

    def spelling(self, path: Path) -> str:
        return ""


def check(made: Mapping[str, JSON], source: Resource, report: Report) -> None:
    """Check one made Knative Service and lift what is found to its source's report."""
    resource = Resource(
        kind=made["kind"],
        api_version=made["apiVersion"],
        name=made["metadata"]["name"],
        namespace=source.namespace,
        data=made,
        document=_Nowhere(),
    )
    own = Report(_Nowhere(), resource.subject)
    schema.check(made["spec"], knative_service.SPEC, ("spec",), own)
    if not own.failed:
        knative_service.check(resource, own)
    for problem in own.problems:
        if problem.level is not Level.NOTE:
            if problem.path == "metadata.name":
                report.add(problem.level, ("metadata", "name"), problem.message)
                continue
            made_name = f"the Knative Service {resource.name} made from it"
            report.add(problem.level, (), f"{made_name}: {problem.path}: {problem.message}")
    for flag, path in own.flags.items():
        report.flags.setdefault(flag, path)
