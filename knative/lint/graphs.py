"""Rules about graphs, on top of the router's own findings (spec/kserve_graph 2.3)."""

import re
from collections.abc import Iterator
from itertools import pairwise

from knative.api.problems import Level
from knative.lint.rule import Found, Rule, View

_TOO_MANY_STEPS = 3


def _error_becomes_200(view: View) -> Iterator[Found]:
    """A soft step's error document is what the next step's condition judges."""
    if view.resource.kind != "InferenceGraph" or not view.is_service:
        return
    for name, node in (view.resource.spec.get("nodes") or {}).items():
        steps = node.get("steps") or []
        if node.get("routerType") != "Sequence":
            continue
        for index, (step, after) in enumerate(pairwise(steps)):
            if after.get("condition") and step.get("dependency") != "Hard":
                yield (
                    ("spec", "nodes", name, "steps", index),
                    "if this step fails, its error answer is judged by the next condition and"
                    " reaches"
                    " the client with status 200",
                )


def _cold_chain(view: View) -> Iterator[Found]:
    if view.resource.kind != "InferenceGraph" or not view.is_service:
        return
    spec = view.resource.spec
    longest = max((len(n.get("steps") or []) for n in spec.get("nodes", {}).values()), default=0)
    if spec.get("prewarm") == "none" and longest >= _TOO_MANY_STEPS:
        yield ("spec", "prewarm"), f"{longest} sleeping steps wake one after the other"


def _lower_case_header(view: View) -> Iterator[Found]:
    """Patterns match canonical header names (`X-Trace`), as Go writes them."""
    given = view.resource.spec.get("propagateHeaders")
    if view.resource.kind != "InferenceGraph" or not view.is_service or not isinstance(given, list):
        return
    for index, pattern in enumerate(given):
        if isinstance(pattern, str) and re.fullmatch(r"[a-z0-9-]+", pattern):
            yield ("spec", "propagateHeaders", index), f"{pattern} matches no header"


RULES = (
    Rule(
        id="header-case",
        level=Level.WARNING,
        why="Header patterns are matched, as in KServe, against canonical names such as"
        " X-Request-Id;"
        " a pattern in lower case never matches.",
        remedy="write X-Request-Id, or propagateHeaders: {patterns: [...], ignoreCase: true}",
        check=_lower_case_header,
    ),
    Rule(
        id="soft-step-before-condition",
        level=Level.WARNING,
        why="KServe's Sequence hands a failed soft step's body on; an unmet condition then ends the"
        " Sequence with that error body and status 200.",
        remedy="set dependency: Hard on the step",
        check=_error_becomes_200,
    ),
    Rule(
        id="cold-chain",
        level=Level.NOTE,
        why="Every hop of a chain pays its own cold start (knative #4902).",
        remedy="remove prewarm: none; the default wakes the services a request surely needs at"
        " once",
        check=_cold_chain,
    ),
)
