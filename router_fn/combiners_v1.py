"""Combining V1 answers: `{"predictions": [...]}`, one prediction per row (or one for all).

All members must have as many rows, and each row the same kind of prediction:

* number: by the rule. A vote compares numbers as classes, 1 and 1.0 being the same.
* text or boolean: a label.
* object of numbers (label -> probability): label by label; one that a member leaves out counts 0.
  In a vote each member chooses its most probable label, and the result is label -> share of votes.
* array: element by element; lengths must agree. In a vote an array that holds a fraction is taken
  as scores: each member chooses the largest, the result is the share of votes at each place.

Only `predictions` is in the result; other keys of the members are dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from router_fn.combiners_rules import CombineError, Rule, shares_of

MAX_NESTING: Final = 32


def combine_predictions(
    rule: Rule, names: Sequence[str], answers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One V1 answer of several (decoded, in step order). Raises CombineError."""
    weights = rule.weights_of(names)
    values = [answer["predictions"] for answer in answers]
    return {"predictions": _Values(rule, names, weights).combine(values, "predictions", 0)}


class _Values:
    def __init__(self, rule: Rule, names: Sequence[str], weights: Sequence[float]) -> None:
        self.rule = rule
        self.names = names
        self.weights = weights

    def combine(self, values: Sequence[Any], where: str, depth: int) -> Any:
        if depth > MAX_NESTING:
            raise CombineError(f"{where}: arrays are nested more than {MAX_NESTING} deep")
        kinds = {_kind(value) for value in values}
        if len(kinds) > 1:
            raise CombineError(f"{where}: {self._each(values, _kind)}; they must be of one kind")
        match kinds.pop():
            case "number":
                return self.rule.number(values, self.weights, where)
            case "label":
                return self.rule.label(values, self.weights, where)
            case "array":
                return self._arrays(values, where, depth)
            case "object":
                return self._maps(values, where)
            case kind:
                raise CombineError(f"{where}: {kind} cannot be combined")

    def _arrays(self, values: Sequence[list[Any]], where: str, depth: int) -> list[Any]:
        if len({len(value) for value in values}) > 1:
            counts = self._each(values, lambda value: f"{len(value)} elements")
            raise CombineError(f"{where}: {counts}; they must be of one length")
        # The outermost array is the list of rows, never one row's scores.
        if depth and self.rule.votes and _are_scores(values):
            return self.vote_by_score(values)
        return [
            self.combine(row, f"{where}[{at}]", depth + 1)
            for at, row in enumerate(zip(*values, strict=True))
        ]

    def vote_by_score(self, values: Sequence[Sequence[float]]) -> list[float]:
        """At each place the share of members whose (first) largest element is there."""
        choices = [max(range(len(value)), key=value.__getitem__) for value in values]
        shares = shares_of(choices, self.weights)
        return [shares.get(at, 0.0) for at in range(len(values[0]))]

    def _maps(self, values: Sequence[dict[str, Any]], where: str) -> dict[str, Any]:
        for name, value in zip(self.names, values, strict=True):
            strange = next((key for key, one in value.items() if _kind(one) != "number"), None)
            if strange is not None:
                raise CombineError(
                    f"{where}: {name!r} has {_kind(value[strange])} at {strange!r};"
                    " an object must map labels to numbers"
                )
        if self.rule.votes:
            empty = next((n for n, v in zip(self.names, values, strict=True) if not v), None)
            if empty is not None:
                raise CombineError(f"{where}: {empty!r} names no label to vote for")
            return shares_of([max(value, key=value.__getitem__) for value in values], self.weights)
        labels = dict.fromkeys(label for value in values for label in value)
        return {
            label: self.rule.number(
                [value.get(label, 0) for value in values], self.weights, f"{where}[{label!r}]"
            )
            for label in labels
        }

    def _each(self, values: Sequence[Any], describe: Any) -> str:
        pairs = zip(self.names, values, strict=True)
        return ", ".join(f"{name!r} has {describe(value)}" for name, value in pairs)


def _kind(value: Any) -> str:
    if isinstance(value, bool | str):
        return "label"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "null"


def _are_scores(values: Sequence[list[Any]]) -> bool:
    """Whether arrays hold numbers only, and a fraction (or a float as such) among them."""
    flat = [element for value in values for element in value]
    return all(_kind(element) == "number" for element in flat) and any(
        isinstance(element, float) for element in flat
    )
