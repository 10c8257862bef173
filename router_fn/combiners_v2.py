"""Combining V2 answers (Open Inference Protocol): `{"outputs": [{name, shape, datatype, data}]}`.

Outputs are matched by name; all members must have the same names, and for each the same shape.
`data` may be flat or nested (row-major) and comes out flat.

* numeric datatypes: by the rule. `max` and votes keep the datatype; averages keep a floating one
  and make FP64 of integers; members of different numeric datatypes give FP64.
* BOOL and BYTES are labels, for `vote` and `weighted` only; the datatypes must be the same.
* in a vote, a floating tensor of two or more dimensions holds scores along its last one: the result
  is the share of members whose largest score is there.

The result has `model_name` "ensemble", and the members' `id` if they agree on it. Tensors sent in
the binary extension cannot be combined.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from router_fn.combiners_rules import CombineError, Rule, shares_of
from router_fn.combiners_v1 import MAX_NESTING

_FLOATS: Final = frozenset(("FP16", "FP32", "FP64", "BF16"))
_INTEGERS: Final = frozenset(
    ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
)
_LABELS: Final = frozenset(("BOOL", "BYTES"))
_DATATYPES: Final = _FLOATS | _INTEGERS | _LABELS


class _Tensor:
    """One output of one member, checked and flat."""

    __slots__ = ("data", "datatype", "shape")

    def __init__(self, step: str, name: str, raw: Mapping[str, Any]) -> None:
        where = f"output {name!r} of {step!r}"
        shape, datatype, data = raw.get("shape"), raw.get("datatype"), raw.get("data")
        if not isinstance(datatype, str) or datatype not in _DATATYPES:
            raise CombineError(f"{where} has the unknown datatype {datatype!r}")
        if not isinstance(shape, list) or not all(
            isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape
        ):
            raise CombineError(f"{where} has no valid shape")
        if not isinstance(data, list):
            raise CombineError(f"{where} has no `data` array (binary tensors are not combined)")
        self.shape: list[int] = shape
        self.datatype = datatype
        self.data = _flatten(data, where)
        if len(self.data) != math.prod(shape):
            raise CombineError(
                f"{where} has {len(self.data)} elements, but its shape {shape} needs"
                f" {math.prod(shape)}"
            )
        self._check_elements(where)

    def _check_elements(self, where: str) -> None:
        wanted: tuple[type, ...]
        if self.datatype == "BYTES":
            wanted = (str,)
        else:
            wanted = (bool,) if self.datatype == "BOOL" else (int, float)
        for element in self.data:
            if not isinstance(element, wanted) or (
                isinstance(element, bool) and bool not in wanted
            ):
                raise CombineError(f"{where} has {element!r} in {self.datatype} data")


def _flatten(data: list[Any], where: str, depth: int = 0) -> list[Any]:
    if not any(isinstance(element, list) for element in data):
        return data
    if depth > MAX_NESTING:
        raise CombineError(f"{where}: arrays are nested more than {MAX_NESTING} deep")
    flat: list[Any] = []
    for element in data:
        flat.extend(_flatten(element, where, depth + 1) if isinstance(element, list) else [element])
    return flat


def combine_outputs(
    rule: Rule, names: Sequence[str], answers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One V2 answer of several (decoded, in step order). Raises CombineError."""
    weights = rule.weights_of(names)
    members = [_tensors(name, answer) for name, answer in zip(names, answers, strict=True)]
    order = list(members[0])
    for name, member in zip(names, members, strict=True):
        if set(member) != set(order):
            raise CombineError(
                f"{name!r} has the outputs {sorted(member)}, {names[0]!r} has {sorted(order)}"
            )
    result: dict[str, Any] = {"model_name": "ensemble"}
    ids = {answer.get("id") if isinstance(answer.get("id"), str) else None for answer in answers}
    if len(ids) == 1 and (shared := ids.pop()) is not None:
        result["id"] = shared
    result["outputs"] = [
        _combine(rule, weights, names, output, [member[output] for member in members])
        for output in order
    ]
    return result


def _tensors(step: str, answer: Mapping[str, Any]) -> dict[str, _Tensor]:
    outputs = answer["outputs"]
    if not isinstance(outputs, list):
        raise CombineError(f"`outputs` of {step!r} is no array")
    tensors: dict[str, _Tensor] = {}
    for at, raw in enumerate(outputs):
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str):
            raise CombineError(f"outputs[{at}] of {step!r} has no name")
        if name in tensors:
            raise CombineError(f"{step!r} has two outputs named {name!r}")
        tensors[name] = _Tensor(step, name, raw)
    return tensors


def _combine(
    rule: Rule,
    weights: Sequence[float],
    names: Sequence[str],
    output: str,
    tensors: Sequence[_Tensor],
) -> dict[str, Any]:
    shape = tensors[0].shape
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.shape != shape:
            raise CombineError(
                f"output {output!r} has shape {tensor.shape} from {name!r},"
                f" but {shape} from {names[0]!r}"
            )
    datatype = _result_type(rule, output, [tensor.datatype for tensor in tensors])
    data: list[Any]
    if datatype in _LABELS:
        columns = zip(*(tensor.data for tensor in tensors), strict=True)
        data = [rule.label(values, weights, f"output {output!r}") for values in columns]
    elif rule.votes and datatype in _FLOATS and len(shape) > 1:
        data = _vote_by_score([tensor.data for tensor in tensors], shape[-1], weights)
    else:
        columns = zip(*(tensor.data for tensor in tensors), strict=True)
        data = [rule.number(values, weights, f"output {output!r}") for values in columns]
    return {"name": output, "shape": shape, "datatype": datatype, "data": data}


def _result_type(rule: Rule, output: str, datatypes: Sequence[str]) -> str:
    kinds = set(datatypes)
    same = len(kinds) == 1
    if kinds & _LABELS:
        if not same:
            raise CombineError(f"output {output!r} has the datatypes {sorted(kinds)}")
        return datatypes[0]
    if same and (datatypes[0] in _FLOATS or rule.name in ("max", "vote")):
        return datatypes[0]
    return "FP64"


def _vote_by_score(
    rows: Sequence[Sequence[float]], width: int, weights: Sequence[float]
) -> list[float]:
    """Row by row of `width`: at each place the share of members whose largest score is there."""
    data: list[float] = []
    for start in range(0, len(rows[0]), width) if width else ():
        choices = [
            max(range(start, start + width), key=member.__getitem__) - start for member in rows
        ]
        shares = shares_of(choices, weights)
        data.extend(shares.get(at, 0.0) for at in range(width))
    return data
