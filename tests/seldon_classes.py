"""User classes of Seldon's contract for tests, as a user would write them: no SDK, no base class.

The first eighteen are those that the observed cases were taken with.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np


class Ident:
    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return X


class TwoCol:
    def predict(self, X: Any, names: Any) -> Any:
        return np.array([[0.1, 0.9]])


class OneD:
    def predict(self, X: Any, names: Any) -> Any:
        return np.array([1, 2, 3])


class Named:
    def predict(self, X: Any, names: Any) -> Any:
        return np.array([[1, 2]])

    def class_names(self) -> Any:
        return ["a", "b"]

    def tags(self) -> Any:
        return {"k": "v"}

    def metrics(self) -> Any:
        return [{"type": "COUNTER", "key": "c", "value": 1}]


class Str:
    def predict(self, X: Any, names: Any) -> Any:
        return "hello"


class Byt:
    def predict(self, X: Any, names: Any) -> Any:
        return b"\x00\x01"


class Dct:
    def predict(self, X: Any, names: Any) -> Any:
        return {"x": 1}


class StrArr:
    def predict(self, X: Any, names: Any) -> Any:
        return np.array(["cat", "dog"])


class NoneRet:
    def predict(self, X: Any, names: Any) -> Any:
        return None


class Boom:
    def predict(self, X: Any, names: Any) -> Any:
        raise ValueError("bad thing")


class Raw:
    def predict_raw(self, message: Any) -> Any:
        return {"status": {"code": 418, "status": "FAILURE"}, "strData": "teapot"}


class Router:
    def route(self, X: Any, names: Any) -> Any:
        return 1


class BadRouter:
    def route(self, X: Any, names: Any) -> Any:
        return "1"


class NpRouter:
    def route(self, X: Any, names: Any) -> Any:
        return np.int64(1)


class Comb:
    def aggregate(self, Xs: Any, names: Any) -> Any:
        return (Xs[0] + Xs[1]) / 2.0


class TI:
    def transform_input(self, X: Any, names: Any) -> Any:
        return X * 2


class Empty:
    pass


class Fb:
    def send_feedback(
        self, X: Any, names: Any, reward: Any, truth: Any, routing: Any = None
    ) -> Any:
        return [[reward, routing or -9]]


# --- ours -----------------------------------------------------------------------------------------


class TO:
    def transform_output(self, X: Any, names: Any, meta: Any = None) -> Any:
        return X + 1


class Told:
    """What the hook was given."""

    def predict(self, X: Any, names: Any, **extra: Any) -> Any:
        return {
            "type": type(X).__name__,
            "dtype": str(getattr(X, "dtype", "")),
            "names": list(names),
            "extra": {key: extra[key] for key in sorted(extra)},
        }

    def send_feedback(
        self, X: Any, names: Any, reward: Any, truth: Any, routing: Any = None
    ) -> Any:
        given = {"X": X.tolist(), "names": list(names), "truth": truth.tolist()}
        return {**given, "reward": reward, "routing": routing}

    def aggregate(self, Xs: Any, names: Any) -> Any:
        return {"types": [type(X).__name__ for X in Xs], "names": [list(one) for one in names]}


class Inner:
    """A TypeError of its own must not run it twice."""

    calls = 0

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        type(self).calls += 1
        raise TypeError(f"call {self.calls}")


class Ill:
    def health_status(self) -> Any:
        raise RuntimeError("ill")


class Fit:
    def health_status(self) -> Any:
        return [[1.0, 2.0]]


class FitRaw:
    def health_status_raw(self) -> Any:
        return {"strData": "fine"}


class Described:
    def init_metadata(self) -> Any:
        return {
            "name": "mm",
            "versions": ["v2"],
            "platform": "p",
            "inputs": [{"messagetype": "tensor", "schema": {"names": ["a"], "shape": [2]}}],
            "outputs": [{"name": "o", "datatype": "FP32", "shape": [1]}],
            "custom": {"a": "b"},
        }


class Misdescribed:
    def init_metadata(self) -> Any:
        return {"name": "mm", "bogus": 1}


class BadMetric(Ident):
    def metrics(self) -> Any:
        return [{"type": "COUNTER", "key": "c"}]


class Reports(Ident):
    def metrics(self) -> Any:
        return [
            {"type": "COUNTER", "key": "seen", "value": 2, "tags": {"kind": "cat"}},
            {"type": "GAUGE", "key": "level", "value": 7},
            {"type": "TIMER", "key": "took", "value": 20.0},
        ]


class Response:
    """Seldon's response object by its shape."""

    def predict(self, X: Any, names: Any) -> Any:
        return SimpleNamespace(
            data=X, tags={"own": 1}, metrics=[{"type": "GAUGE", "key": "g", "value": 3}]
        )

    def tags(self) -> Any:
        return {"own": 0, "kept": True}


class Chooses(Named):
    def route(self, X: Any, names: Any) -> Any:
        return 0

    def aggregate(self, Xs: Any, names: Any) -> Any:
        return Xs[0]

    def transform_input(self, X: Any, names: Any) -> Any:
        return X

    def send_feedback(
        self, X: Any, names: Any, reward: Any, truth: Any, routing: Any = None
    ) -> Any:
        return [[reward, 0]]


class RouterRaw:
    def route_raw(self, message: Any) -> Any:
        return {"data": {"ndarray": [[2]]}}


class CombRaw:
    def aggregate_raw(self, messages: Any) -> Any:
        return {"jsonData": {"type": type(messages).__name__}}


class FbRaw:
    def send_feedback_raw(self, feedback: Any) -> Any:
        return {"jsonData": {"reward": feedback.reward}}


class FbNone:
    def send_feedback(
        self, X: Any, names: Any, reward: Any, truth: Any, routing: Any = None
    ) -> Any:
        return None


class Conflict(Exception):
    status_code = 409
    reason = "TAKEN"
    message = "somebody was faster"


class Broken(Exception):
    status_code = 500
    reason = "BROKEN"
    message = "out of order"


class BreaksDown:
    def predict(self, X: Any, names: Any) -> Any:
        raise Broken


class Refuses:
    def predict(self, X: Any, names: Any) -> Any:
        raise Conflict


class Shapes:
    """An answer by name: `{"strData": "three"}`."""

    class_names = ("x", "y")

    def predict(self, X: Any, names: Any) -> Any:
        return {
            "three": np.zeros((1, 2, 3)),
            "zero": np.array(3.5),
            "bool": np.array([[True, False]]),
            "nan": np.array([[float("nan"), float("inf")]]),
            "mixed": [["a", 1]],
            "tuple": (1, 2),
            "scalar": np.float64(3.5),
            "numpy": {"a": np.float32(1.5), "b": np.array([1, 2])},
            "ragged": [[1], [1, 2]],
        }[X]


class Async:
    async def predict(self, X: Any, names: Any) -> Any:
        return X


class LoadsBadly(Ident):
    """Seldon's wrapper would swallow this, and serve a model that is not loaded."""

    def load(self) -> None:
        self.missing.attribute  # type: ignore[attr-defined]  # noqa: B018


class Parametrised:
    def __init__(self, factor: float, name: str = "x", flag: bool = False) -> None:
        self.told = [factor, name, flag]

    def load(self, force: bool = False) -> None:
        self.told.append(f"loaded {force}")

    def predict(self, X: Any, names: Any) -> Any:
        return {"told": self.told}
