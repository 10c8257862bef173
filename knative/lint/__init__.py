"""What Knative accepts in silence and people suffer from: one rule, one small function.

A rule has an id, a level, the reason with its source, a remedy, and a function that yields
findings on one
compiled object. `RULES` is the table docs/lint.md is generated from (`python -m knative.lint.doc`).
"""

from knative.api.problems import Problem, Report
from knative.compiler import CompileResult
from knative.lint import graphs, loops, safety, scale, start
from knative.lint.rule import Rule, View

RULES: tuple[Rule, ...] = (
    *graphs.RULES,
    *scale.RULES,
    *start.RULES,
    *safety.RULES,
    *loops.RULES,
)
"""All rules, in the order of the documentation."""

__all__ = ["RULES", "check"]


def check(result: CompileResult) -> list[Problem]:
    """All findings of all rules on a compilation, in file order."""
    found: list[Problem] = []
    for resource, item in result.made:
        report = Report(resource.document, resource.subject)
        view = View(resource, item, result)
        for rule in RULES:
            for path, message in rule.check(view):
                report.add(rule.level, path, f"{message}; {rule.remedy}", rule=rule.id)
        found += report.problems
    return sorted(found, key=lambda p: p.key)
