"""What Knative accepts in silence and people suffer from: one rule, one small function.

A rule has an id, a level, a sentence and a remedy, and yields findings on one source manifest and
the
objects made from it. `RULES` is the table `docs/lint.md` is generated from.
"""

from knative.api.problems import Problem
from knative.compiler import CompileResult

__all__ = ["check"]


def check(result: CompileResult) -> list[Problem]:
    """All findings of all rules on a compilation."""
    return []
