"""The rules by which values of several members become one.

Values come in step order, one per member that answered, and so do weights. Results do not depend on
the order except where it breaks a tie: then the member that stands first in the graph wins, so put
the most trusted model first. Equal values combine to that very value.

    rule      numbers                      labels (text, booleans, class numbers)
    mean      sum / count, exactly rounded    -
    median    middle; mean of the two middle  -
    max       largest                         -
    weighted  sum(w*x) / sum(w)            most weight
    vote      as labels                    most members
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

Number = int | float
Label = str | bool | int | float


class CombineError(ValueError):
    """These answers cannot be combined; the message says which and why."""


class Rule:
    """A named rule with the weights of the steps (1 each, except for `weighted`)."""

    def __init__(self, name: str, weights: Mapping[str, float] | None = None) -> None:
        self.name = name
        self._weights = weights

    @property
    def votes(self) -> bool:
        """Whether members choose between values instead of being averaged."""
        return self.name == "vote"

    def weights_of(self, names: Sequence[str]) -> list[float]:
        if self._weights is None:
            return [1.0] * len(names)
        weights = [self._weights[name] for name in names]
        if not any(weights):
            raise CombineError("all members that answered have weight 0")
        return weights

    def number(self, values: Sequence[Number], weights: Sequence[float], where: str) -> Number:
        """Combine numbers; `where` is for messages."""
        if self.votes:
            value = self.label(values, weights, where)
            assert isinstance(value, int | float)
            return value
        first = values[0]
        if all(value == first for value in values):
            return first
        try:
            result = _AVERAGES[self.name](values, weights)
        except OverflowError as error:
            raise CombineError(f"{where}: the numbers are too large to combine") from error
        if not math.isfinite(result):
            raise CombineError(f"{where}: the result is not a finite number")
        return result

    def label(self, values: Sequence[Label], weights: Sequence[float], where: str) -> Label:
        """Choose among labels."""
        if self.name not in ("vote", "weighted"):
            raise CombineError(
                f"{where}: {self.name!r} needs numbers, but {_shown(values[0])} is a label;"
                " use the combiner 'vote' or 'weighted'"
            )
        return values[winner([identity(value) for value in values], weights)]


def identity(value: Label) -> tuple[bool, Label]:
    """What makes labels the same: 1 is 1.0, but true is not 1."""
    return isinstance(value, bool), value


def winner(ballots: Sequence[Any], weights: Sequence[float]) -> int:
    """The position of the first ballot of the kind that has most weight."""
    shares: dict[Any, list[float]] = {}
    for ballot, weight in zip(ballots, weights, strict=True):
        shares.setdefault(ballot, []).append(weight)
    totals = {ballot: math.fsum(share) for ballot, share in shares.items()}
    best = max(totals.values())
    return next(at for at, ballot in enumerate(ballots) if totals[ballot] == best)


def shares_of(ballots: Sequence[Any], weights: Sequence[float]) -> dict[Any, float]:
    """The part of the votes that each choice got, most first (ties in step order)."""
    whole = math.fsum(weights)
    totals: dict[Any, float] = {}
    for ballot, weight in zip(ballots, weights, strict=True):
        totals[ballot] = totals.get(ballot, 0.0) + weight
    return {
        ballot: total / whole for ballot, total in sorted(totals.items(), key=lambda item: -item[1])
    }


def _mean(values: Sequence[Number], _weights: Sequence[float]) -> Number:
    return math.fsum(values) / len(values)


def _median(values: Sequence[Number], _weights: Sequence[float]) -> Number:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return math.fsum(ordered[middle - 1 : middle + 1]) / 2


def _max(values: Sequence[Number], _weights: Sequence[float]) -> Number:
    return max(values)


def _weighted(values: Sequence[Number], weights: Sequence[float]) -> Number:
    total = math.fsum(value * weight for value, weight in zip(values, weights, strict=True))
    return total / math.fsum(weights)


_AVERAGES: Final = {"mean": _mean, "median": _median, "max": _max, "weighted": _weighted}


def make_rule(name: str, options: Mapping[str, Any], step_names: Sequence[str]) -> Rule:
    """A rule by name. Only `weighted` has an option: `weights`, from step name to a number >= 0."""
    weights = options.get("weights")
    unknown = set(options) - ({"weights"} if name == "weighted" else set())
    if unknown:
        raise ValueError(f"the combiner {name!r} does not know {', '.join(sorted(unknown))}")
    if name != "weighted":
        return Rule(name)
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(
            "the combiner 'weighted' needs weights: a `weight` on every step, or"
            " `weights` from step name to number"
        )
    strangers = [str(key) for key in weights if key not in step_names]
    missing = [step for step in step_names if step not in weights]
    if strangers:
        raise ValueError(f"weights for steps that do not exist: {', '.join(strangers)}")
    if missing:
        raise ValueError(f"steps without a weight: {', '.join(missing)}")
    for key, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight of {key!r} must be a number, not {_shown(weight)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {key!r} must be finite and not negative")
    if not any(weights.values()):
        raise ValueError("at least one weight must be greater than 0")
    return Rule(name, {key: float(weight) for key, weight in weights.items()})


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
