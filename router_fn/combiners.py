"""Ensemble combiners: one answer from several models' answers.

    merge      {step: answer, ...}        KServe's own; the only one that takes any JSON
    vote       the most frequent prediction, row by row
    mean       the arithmetic mean        \\
    median     the median                  > of numbers, vectors, nested arrays, label maps
    max        the largest                /
    weighted   the weighted mean, or the vote with weights
    first      the first good answer      (the engine takes it; nothing is combined)

V1 answers (`predictions`) and V2 answers (`outputs`) are understood; all members must speak one
protocol and have one shape. What exactly happens, ties and mismatches included, is written where it
is done: `combiners_rules`, `combiners_v1`, `combiners_v2`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from router_fn import body as bodies
from router_fn.combiners_rules import CombineError, Rule, make_rule
from router_fn.combiners_v1 import combine_predictions
from router_fn.combiners_v2 import combine_outputs

Members = Sequence[tuple[str, bytes]]

NAMES: Final = ("merge", "vote", "mean", "median", "max", "weighted", "first")


class Combiner(Protocol):
    """Makes one JSON body of the members' bodies (step name, body), in step order."""

    name: str

    def combine(self, members: Members) -> bytes: ...


class _Merge:
    name = "merge"

    def combine(self, members: Members) -> bytes:
        for name, body in members:
            if not bodies.is_json(body):
                raise CombineError(f"{name!r} answered what is not JSON")
        return bodies.stitch(members)


class _First:
    name = "first"

    def combine(self, members: Members) -> bytes:
        if not members:
            raise CombineError("no member answered")
        return members[0][1]


class _Numeric:
    """Decodes the answers, combines them by a rule, encodes the result."""

    def __init__(self, name: str, rule: Rule) -> None:
        self.name = name
        self._rule = rule

    def combine(self, members: Members) -> bytes:
        if not members:
            raise CombineError("no member answered")
        names = [name for name, _ in members]
        answers = [_decode(name, body) for name, body in members]
        if all("predictions" in answer for answer in answers):
            result = combine_predictions(self._rule, names, answers)
        elif all("outputs" in answer for answer in answers):
            result = combine_outputs(self._rule, names, answers)
        else:
            raise CombineError(_describe_kinds(names, answers))
        return json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )


def _decode(name: str, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CombineError(f"{name!r} answered what is not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise CombineError(f"{name!r} answered no JSON object")
    return answer


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _describe_kinds(names: Sequence[str], answers: Sequence[dict[str, Any]]) -> str:
    kinds = [
        "V1" if "predictions" in answer else "V2" if "outputs" in answer else "neither"
        for answer in answers
    ]
    listed = ", ".join(f"{name!r} {kind}" for name, kind in zip(names, kinds, strict=True))
    return (
        "the members must all answer with `predictions` (V1) or all with `outputs` (V2), "
        f"but they are: {listed}"
    )


def make_combiner(name: str, options: Mapping[str, Any], step_names: Sequence[str]) -> Combiner:
    """A combiner by name. Options: `weighted` takes `weights`, a map from step name to number.

    Raises ValueError that says what to change.
    """
    if name == "merge":
        _no_options(name, options)
        return _Merge()
    if name == "first":
        _no_options(name, options)
        return _First()
    if name not in NAMES:
        raise ValueError(f"unknown combiner {name!r}; there are: {', '.join(NAMES)}")
    return _Numeric(name, make_rule(name, options, step_names))


def _no_options(name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise ValueError(f"the combiner {name!r} takes no options: remove {', '.join(options)}")
