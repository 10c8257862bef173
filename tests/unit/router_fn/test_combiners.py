"""Combiners: several answers in, one answer out."""

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_fn.combiners import NAMES, make_combiner
from router_fn.combiners_rules import CombineError


def _combine(name: str, *answers: Any, weights: list[float] | None = None) -> Any:
    steps = [f"s{number}" for number in range(len(answers))]
    options = {"weights": dict(zip(steps, weights, strict=True))} if weights else {}
    combiner = make_combiner(name, options, steps)
    bodies = [json.dumps(answer).encode() for answer in answers]
    return json.loads(combiner.combine(list(zip(steps, bodies, strict=True))))


def _v1(name: str, *predictions: Any, weights: list[float] | None = None) -> Any:
    answers = [{"predictions": value, "model_name": "m"} for value in predictions]
    result = _combine(name, *answers, weights=weights)
    assert list(result) == ["predictions"]
    return result["predictions"]


@pytest.mark.parametrize(
    ("name", "predictions", "expected"),
    [
        # numbers, row by row
        ("mean", ([1, 2], [2, 4]), [1.5, 3.0]),
        ("median", ([1, 9], [5, 1], [2, 2]), [2, 2]),
        ("median", ([1], [2], [10], [4]), [3.0]),
        ("max", ([1, 9], [5, 1.5]), [5, 9]),
        ("vote", ([1, 2], [1, 3], [2, 3]), [1, 3]),
        ("vote", ([1], [1.0], [2]), [1]),
        # a tie goes to the member that stands first
        ("vote", (["cat"], ["dog"]), ["cat"]),
        ("vote", (["dog"], ["cat"], ["cat"], ["dog"]), ["dog"]),
        # labels
        ("vote", (["cat", "a"], ["dog", "b"], ["dog", "b"]), ["dog", "b"]),
        ("vote", ([True], [1], [1]), CombineError),
        ("vote", ([True], [False], [False]), [False]),
        # label -> probability; what a member does not name counts 0
        ("mean", ([{"cat": 0.5, "dog": 0.5}], [{"dog": 1.0}]), [{"cat": 0.25, "dog": 0.75}]),
        ("max", ([{"cat": 0.2}], [{"dog": 0.9}]), [{"cat": 0.2, "dog": 0.9}]),
        ("median", ([{"a": 1}], [{"a": 3}], [{"a": 9}]), [{"a": 3}]),
        (
            "vote",
            ([{"cat": 0.6, "dog": 0.4}], [{"cat": 0.1, "dog": 0.9}], [{"dog": 0.8}]),
            [{"dog": 2 / 3, "cat": 1 / 3}],
        ),
        # vectors and nested arrays
        ("mean", ([[1, 2], [3, 4]], [[3, 2], [5, 8]]), [[2.0, 2], [4.0, 6.0]]),
        ("mean", ([[[1], [2]]], [[[3], [2]]]), [[[2.0], [2]]]),
        ("vote", ([[0.1, 0.9]], [[0.8, 0.2]], [[0.3, 0.7]]), [[1 / 3, 2 / 3]]),
        ("vote", ([["B", "I"]], [["B", "O"]], [["O", "O"]]), [["B", "O"]]),
        ("vote", ([[1, 2]], [[1, 3]], [[0, 3]]), [[1, 3]]),
        # one prediction for everything
        ("mean", (3, 5), 4.0),
        ("vote", ("x", "y", "y"), "y"),
        ("mean", ([], []), []),
        # mismatches
        ("mean", ([1], [1, 2]), CombineError),
        ("mean", ([[1, 2]], [[1]]), CombineError),
        ("mean", ([1], ["x"]), CombineError),
        ("mean", (["x"], ["y"]), CombineError),
        ("mean", ([None], [1]), CombineError),
        ("mean", ([{"a": "x"}], [{"a": 1}]), CombineError),
        ("mean", ([True], [False]), CombineError),
        ("vote", ([{}], [{"a": 1}]), CombineError),
        ("mean", ([1e308 * 10], [1.0]), CombineError),
        ("mean", ([10**400], [1]), CombineError),
    ],
)
def test_v1(name: str, predictions: tuple[Any, ...], expected: Any) -> None:
    if expected is CombineError:
        with pytest.raises(CombineError):
            _v1(name, *predictions)
    else:
        assert _v1(name, *predictions) == expected


def test_weights() -> None:
    assert _v1("weighted", [1, 0], [2, 4], weights=[1, 3]) == [1.75, 3.0]
    assert _v1("weighted", ["cat"], ["dog"], ["dog"], weights=[5, 1, 3]) == ["cat"]
    assert _v1("weighted", [{"a": 1}], [{"b": 1}], weights=[1, 3]) == [{"a": 0.25, "b": 0.75}]
    assert _v1("weighted", [1], [2], weights=[0, 2]) == [2.0]


def test_weights_of_members_that_did_not_answer_do_not_count() -> None:
    combiner = make_combiner("weighted", {"weights": {"a": 1, "b": 98, "c": 1}}, ["a", "b", "c"])
    members = [("a", b'{"predictions":[1]}'), ("c", b'{"predictions":[3]}')]
    assert combiner.combine(members) == b'{"predictions":[2.0]}'


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("average", {}, "unknown combiner"),
        ("mean", {"weights": {"a": 1}}, "does not know weights"),
        ("merge", {"x": 1}, "no options"),
        ("first", {"x": 1}, "no options"),
        ("weighted", {}, "needs weights"),
        ("weighted", {"weights": [1, 2]}, "needs weights"),
        ("weighted", {"weights": {"a": 1}}, "without a weight: b"),
        ("weighted", {"weights": {"a": 1, "b": 1, "c": 1}}, "do not exist: c"),
        ("weighted", {"weights": {"a": "1", "b": 1}}, "must be a number"),
        ("weighted", {"weights": {"a": True, "b": 1}}, "must be a number"),
        ("weighted", {"weights": {"a": -1, "b": 1}}, "not negative"),
        ("weighted", {"weights": {"a": math.inf, "b": 1}}, "finite"),
        ("weighted", {"weights": {"a": 0, "b": 0}}, "greater than 0"),
    ],
)
def test_wrong_configuration_is_refused_at_boot(
    name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_combiner(name, options, ["a", "b"])


def test_merge_and_first_take_any_json() -> None:
    members = [("a", b"[1.0]"), ("b", b'{"x":1}')]
    assert make_combiner("merge", {}, ["a", "b"]).combine(members) == b'{"a":[1.0],"b":{"x":1}}'
    assert make_combiner("first", {}, ["a", "b"]).combine(members) == b"[1.0]"


# --- V2 ------------------------------------------------------------------------------------------


def _tensor(
    data: Any, datatype: str = "FP32", shape: Any = None, name: str = "o"
) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def _v2(name: str, *tensors: Any, weights: list[float] | None = None) -> Any:
    answers = [{"model_name": "m", "id": "7", "outputs": [tensor]} for tensor in tensors]
    result = _combine(name, *answers, weights=weights)
    assert result["model_name"] == "ensemble"
    assert result["id"] == "7"
    (output,) = result["outputs"]
    return output


@pytest.mark.parametrize(
    ("name", "tensors", "data", "datatype"),
    [
        ("mean", (_tensor([1.0, 2.0]), _tensor([2.0, 4.0])), [1.5, 3.0], "FP32"),
        ("mean", (_tensor([1], "INT64"), _tensor([2], "INT64")), [1.5], "FP64"),
        ("max", (_tensor([1], "INT8"), _tensor([2], "INT8")), [2], "INT8"),
        ("max", (_tensor([1], "INT8"), _tensor([2.5])), [2.5], "FP64"),
        (
            "vote",
            (_tensor([3], "INT32"), _tensor([3], "INT32"), _tensor([1], "INT32")),
            [3],
            "INT32",
        ),
        ("vote", (_tensor(["a"], "BYTES"), _tensor(["b"], "BYTES")), ["a"], "BYTES"),
        ("vote", (_tensor([True], "BOOL"), _tensor([True], "BOOL")), [True], "BOOL"),
        (
            "mean",
            (_tensor([[1.0, 2.0]], shape=[1, 2]), _tensor([3.0, 4.0], shape=[1, 2])),
            [2.0, 3.0],
            "FP32",
        ),
        (
            "vote",
            (
                _tensor([0.1, 0.9, 0.7, 0.3], shape=[2, 2]),
                _tensor([0.4, 0.6, 0.1, 0.9], shape=[2, 2]),
            ),
            [0.0, 1.0, 0.5, 0.5],
            "FP32",
        ),
    ],
)
def test_v2(name: str, tensors: tuple[Any, ...], data: list[Any], datatype: str) -> None:
    output = _v2(name, *tensors)
    assert output["data"] == data
    assert output["datatype"] == datatype
    assert output["shape"] == tensors[0]["shape"]


def test_v2_outputs_are_matched_by_name() -> None:
    first = {"outputs": [_tensor([1.0], name="a"), _tensor([2.0], name="b")]}
    second = {"outputs": [_tensor([4.0], name="b"), _tensor([3.0], name="a")]}
    result = _combine("mean", first, second)
    assert [(o["name"], o["data"]) for o in result["outputs"]] == [("a", [2.0]), ("b", [3.0])]
    assert "id" not in result


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (([_tensor([1.0])], [_tensor([1.0], name="p")]), "has the outputs"),
        (([_tensor([1.0])], [_tensor([1.0, 2.0])]), "has shape"),
        (([_tensor([1.0], shape=[2])],), "needs 2"),
        (([_tensor([1.0], "FP99")],), "datatype"),
        (([_tensor([1.0], shape="x")],), "shape"),
        (([_tensor(["x"])],), "'x' in FP32"),
        (([_tensor([True], "INT8")],), "True in INT8"),
        (([_tensor([1], "BYTES")],), "1 in BYTES"),
        (([_tensor(["a"], "BYTES")], [_tensor([1], "INT8")]), "datatypes"),
        (([_tensor(["a"], "BYTES")], [_tensor(["b"], "BYTES")]), "needs numbers"),
        (([_tensor([1.0]), _tensor([1.0])],), "two outputs named 'o'"),
        (({"x": 1},), "no array"),
        (([1],), "has no name"),
        (([{"name": "o", "shape": [1], "datatype": "FP32"}],), "binary"),
    ],
)
def test_v2_answers_that_do_not_fit_together_are_named(
    answers: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(CombineError, match=words):
        _combine("mean", *({"outputs": outputs} for outputs in answers))


@pytest.mark.parametrize(
    ("bodies", "words"),
    [
        ([b"text"], "not JSON"),
        ([b"[1]"], "no JSON object"),
        ([b'{"predictions":[NaN]}'], "not JSON"),
        ([b'{"predictions":[1]}', b'{"outputs":[]}'], "'s0' V1, 's1' V2"),
        ([b'{"x":1}'], "'s0' neither"),
        ([b'{"predictions":' + b"[" * 5000 + b"]" * 5000 + b"}"], "not JSON|deep"),
        ([b'{"predictions":' + b"[" * 100 + b"]" * 100 + b"}"] * 2, "deep"),
        ([], "no member"),
    ],
)
@pytest.mark.parametrize("name", ["mean", "vote"])
def test_answers_that_cannot_be_combined_say_why(
    name: str, bodies: list[bytes], words: str
) -> None:
    steps = [f"s{number}" for number in range(len(bodies))]
    with pytest.raises(CombineError, match=words):
        make_combiner(name, {}, steps).combine(list(zip(steps, bodies, strict=True)))


# --- properties ----------------------------------------------------------------------------------

NUMBERS = st.integers(-(10**15), 10**15) | st.floats(-1e150, 1e150)
ROWS = st.lists(NUMBERS, min_size=1, max_size=4)
AVERAGES = st.sampled_from(["mean", "median", "max"])


@given(
    AVERAGES,
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n), min_size=1, max_size=4)
    ),
)
@settings(max_examples=200)
def test_averages_do_not_depend_on_the_order_of_members(
    name: str, members: list[list[Any]]
) -> None:
    results = [_v1(name, *order) for order in itertools.permutations(members)]
    assert all(result == results[0] for result in results)


@given(
    st.sampled_from([name for name in NAMES if name not in ("merge", "first")]),
    ROWS,
    st.integers(1, 5),
)
def test_equal_answers_combine_to_that_very_answer(name: str, rows: list[Any], count: int) -> None:
    weights = [1.0 + n for n in range(count)] if name == "weighted" else None
    assert repr(_v1(name, *[rows] * count, weights=weights)) == repr(json.loads(json.dumps(rows)))


@given(AVERAGES, st.lists(NUMBERS, min_size=1, max_size=6))
def test_an_average_lies_between_the_smallest_and_the_largest(name: str, values: list[Any]) -> None:
    (result,) = _v1(name, *[[value] for value in values])
    low, high = min(values), max(values)
    margin = 1e-9 * max(abs(low), abs(high))
    assert low - margin <= result <= high + margin


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=7))
def test_a_vote_elects_a_most_frequent_label(ballots: list[str]) -> None:
    (elected,) = _v1("vote", *[[ballot] for ballot in ballots])
    assert ballots.count(elected) == max(ballots.count(ballot) for ballot in ballots)
    assert elected == next(b for b in ballots if ballots.count(b) == ballots.count(elected))


MAPS = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1), min_size=1)


@given(st.lists(MAPS, min_size=1, max_size=5))
def test_shares_of_votes_sum_to_one(maps: list[dict[str, float]]) -> None:
    (shares,) = _v1("vote", *[[one] for one in maps])
    assert math.isclose(sum(shares.values()), 1.0)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


ANY = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["vote", "mean", "median", "max"]),
    st.lists(
        st.fixed_dictionaries({"predictions": ANY}) | st.fixed_dictionaries({"outputs": ANY}),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=300)
def test_any_answers_combine_or_fail_with_a_message(name: str, answers: list[Any]) -> None:
    try:
        _combine(name, *answers)
    except CombineError as error:
        message = str(error)
    else:
        message = "combined"
    assert message
