"""Prepackaged servers under Seldon's protocol: loaded models with the hooks of a user class (spec
section 5), so that they answer Seldon's clients themselves.

* scikit-learn, XGBoost, LightGBM: X is the matrix; the answer of the model's method comes back in
  the kind of data that was sent.
* MLflow: X is what the model's schema says; without one, an array, or (parameter `xtype` other than
  ndarray) a data frame with the request's names as columns. A data frame that comes back names its
  columns.
* Anything else takes the rows as V1 instances; a `jsonData` object is a whole V1 request, and its
  answer comes back as `jsonData`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidRequest
from .model import Call, ServedModel
from .seldon_message import Result

if TYPE_CHECKING:
    from .settings import Settings


def target_of(model: ServedModel, settings: "Settings") -> Any:
    """The object whose hooks answer for a model."""
    target = getattr(model, "target", None)
    if target is not None:
        return target
    if hasattr(model, "seldon_input"):
        return Rows(model, str(dict(settings.param).get("xtype", "ndarray")))
    return Instances(model)


class Rows:
    """A model of rows: a matrix in, one prediction a row out."""

    def __init__(self, model: Any, xtype: str) -> None:
        self._model = model
        self._frames = xtype != "ndarray"

    def predict(self, X: Any, names: list[str]) -> Any:
        matrix = X if isinstance(X, np.ndarray) else _matrix(X)
        item = self._model.seldon_input(matrix, names if self._frames else [])
        self._model.run([item])
        output = item.output
        if hasattr(output, "columns"):
            return Result(output.to_numpy(), [str(column) for column in output.columns])
        return output


def _matrix(X: Any) -> Any:
    if not isinstance(X, list):
        raise InvalidRequest("send data (ndarray, tensor or tftensor): rows of features")
    try:
        return np.asarray(X)
    except ValueError:
        raise InvalidRequest("the rows are ragged: every one must have the same shape") from None


class Instances:
    """Any other model, asked as V1 asks it."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def predict(self, X: Any, names: list[str]) -> Any:
        call = Call({})
        if isinstance(X, Mapping):
            answer = self._model.v1("predict", dict(X), call)
            return answer if isinstance(answer, Mapping) else {"predictions": answer}
        if isinstance(X, str | bytes):
            X = [X]
        rows = X.tolist() if hasattr(X, "tolist") else X
        if not isinstance(rows, list):
            raise InvalidRequest("send data, strData or a jsonData object")
        reply: Any = self._model.v1("predict", {"instances": rows}, call)
        found: Any = reply.get("predictions") if isinstance(reply, Mapping) else reply
        return found.tolist() if hasattr(found, "tolist") else found
