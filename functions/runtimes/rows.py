"""Models of the kind "a matrix of rows in, one prediction a row out": sklearn, xgboost, lightgbm.

V1 `instances` (or `inputs`) become one matrix; V2 takes one tensor, or one tensor a column.
Predictions go out as V1 `predictions` and as the V2 tensor `output-0` (spec "v1 helper
conventions").
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functions import tensors
from functions.errors import InvalidRequest, NotSupported
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.model import Call, Item, JoinableModel, ModelInfo, TensorSpec
from functions.wire import v1

Array = np.ndarray[Any, Any]
Predict = Callable[[Any], Any]

OUTPUT = "output-0"


class RowModel(JoinableModel):
    """`predict(X)` with X: (rows, features) -> (rows,) or (rows, outputs)."""

    inline = True

    def __init__(
        self,
        predict: Predict,
        *,
        platform: str,
        features: Sequence[str] = (),
        n_features: int | None = None,
        frames: bool = False,
        texts: bool = False,
        threads: int = 1,
    ) -> None:
        """`frames`: named columns must reach the model as a pandas DataFrame. `texts`: X is one
        text an instance, (rows,)."""
        self._predict = predict
        self._features = tuple(features)
        self._frames = frames
        self._texts = texts
        self.threads = threads
        width = -1 if n_features is None else n_features
        datatype, shape = ("BYTES", (-1,)) if texts else ("FP64", (-1, width))
        self.info = ModelInfo(
            platform=platform,
            inputs=(TensorSpec(name="input-0", datatype=datatype, shape=shape),),
            outputs=(TensorSpec(name=OUTPUT, datatype="FP64", shape=(-1,)),),
        )

    # --- in ------------------------------------------------------------------------------------

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        if kind == "infer":
            matrix = self._from_tensors(payload)
        elif kind == "predict":
            rows, problem = v1.instances_of(payload)
            if rows is None:
                raise InvalidRequest(problem or "the body is not usable")
            matrix = self._from_rows(rows)
        else:
            raise NotSupported(f"this model does not support {kind}")
        if self._texts:
            matrix = _one_text_each(matrix)
        shape = matrix.shape
        if not shape or not shape[0]:
            raise InvalidRequest("there is no instance in the request")
        key = (matrix.dtype, shape[1:]) if isinstance(matrix, np.ndarray) else None
        return Item(kind, payload, call, count=shape[0], key=key, data=matrix)

    def seldon_input(self, matrix: Array, names: Sequence[str]) -> Item:
        """A request of Seldon's protocol: the array, and names if they are to be its columns."""
        if not matrix.size:
            raise InvalidRequest("there is no instance in the request")
        data = _text_values(matrix.astype(object)) if matrix.dtype.kind in "OU" else matrix
        return Item("predict", None, Call({}), count=len(matrix), key=None, data=data)

    def _from_rows(self, rows: list[Any]) -> Any:
        if rows and type(rows[0]) is dict:
            return self._from_records(rows)
        try:
            matrix = np.asarray(rows)
        except ValueError:
            raise InvalidRequest(
                "the instances are ragged: every one must have the same shape"
            ) from None
        kind = matrix.dtype.kind
        if kind == "O":
            if matrix.ndim < 2 or any(isinstance(v, (list, dict)) for v in matrix.ravel()):
                raise InvalidRequest("the instances are ragged: every one must have the same shape")
            return matrix
        if kind == "U":
            return self._strings(matrix, rows)
        return matrix

    @staticmethod
    def _strings(matrix: Array, rows: list[Any]) -> Array:
        """numpy turns numbers beside strings into strings; keep what was sent."""
        mixed = np.array(rows, dtype=object)
        return mixed if mixed.shape == matrix.shape else matrix.astype(object)

    def _from_records(self, rows: list[Any]) -> Any:
        """Instances as objects: feature name -> value (or a list of one, as KServe's clients
        send)."""
        names = self._features or tuple(rows[0])
        values = []
        for index, row in enumerate(rows):
            if type(row) is not dict:
                raise InvalidRequest("either all instances are objects or none is")
            missing = [name for name in names if name not in row]
            if missing or len(row) != len(names):
                surplus = [name for name in row if name not in names]
                raise InvalidRequest(
                    f"instance {index} must have exactly the features {', '.join(names)}"
                    + (f"; missing: {', '.join(missing)}" if missing else "")
                    + (f"; unknown: {', '.join(surplus)}" if surplus else "")
                )
            values.append([_scalar(row[name]) for name in names])
        return self._columns(names, self._from_rows(values))

    def _from_tensors(self, request: InferRequest) -> Any:
        inputs = request.inputs
        if len(inputs) == 1 and request.parameters.get("content_type") != "pd":
            values = inputs[0].as_numpy()
            return values if values.dtype.kind != "O" else _text_values(values)
        columns = [_text_values(tensor.as_numpy()) for tensor in inputs]
        flat = [
            column.reshape(column.shape[0], -1) if column.ndim else column for column in columns
        ]
        lengths = {column.shape[0] for column in flat if column.ndim}
        if len(lengths) != 1 or any(column.ndim != 2 or column.shape[1] != 1 for column in flat):
            raise InvalidRequest(
                "several inputs are taken as columns: each must be of shape [rows] or [rows, 1]"
            )
        names = tuple(tensor.name for tensor in inputs)
        if self._features and set(names) == set(self._features):
            order = [names.index(name) for name in self._features]
            names, flat = self._features, [flat[at] for at in order]
        return self._columns(names, np.hstack(flat))

    def _columns(self, names: Sequence[str], matrix: Array) -> Any:
        if not self._frames:
            return matrix
        import pandas as pd

        return pd.DataFrame(matrix, columns=list(names)).infer_objects()

    # --- run and out ---------------------------------------------------------------------------

    def run(self, items: list[Item]) -> None:
        try:
            if len(items) == 1:
                items[0].output = tensors.as_array(self._predict(items[0].data))
                return
            joined = tensors.as_array(self._predict(np.concatenate([item.data for item in items])))
        except (ValueError, TypeError) as problem:
            # Their input checks are these libraries' only use of ValueError while predicting.
            raise InvalidRequest(f"the model refuses this input: {problem}") from problem
        at = 0
        for item in items:
            item.output = joined[at : at + item.count]
            at += item.count

    def answer(self, item: Item) -> Any:
        output = item.output
        if item.kind == "infer":
            request: InferRequest = item.payload
            return InferResponse(
                request.id or new_id(), request.model_name, [Tensor(OUTPUT, data=output)]
            )
        if output.dtype.kind == "O" or not output.flags.c_contiguous:
            output = output.tolist()
        return {"predictions": output}


def _one_text_each(matrix: Array) -> Array:
    """(rows,), also of a column of texts, which is how MLServer's codecs send them."""
    if matrix.ndim == 2 and matrix.shape[1] == 1:
        matrix = matrix[:, 0]
    if matrix.ndim != 1 or not all(type(value) is str for value in matrix):
        raise InvalidRequest("every instance must be one text")
    return matrix


def numbers(rows: Any) -> Array:
    """Rows for models that know missing values: null is NaN. Raises ValueError for texts."""
    matrix = np.asarray(rows)
    if matrix.dtype.kind == "O" and all(
        value is None or isinstance(value, (int, float)) for value in matrix.ravel()
    ):
        matrix = matrix.astype(np.float64)
    if matrix.dtype.kind not in "fiub":
        raise ValueError("features must be numbers")
    return matrix


def _scalar(value: Any) -> Any:
    if isinstance(value, list):
        if len(value) != 1:
            raise InvalidRequest("a feature of an instance must be one value")
        return value[0]
    return value


def _text_values(values: Array) -> Array:
    """BYTES elements as text: what vectorisers and encoders were trained on."""
    if values.dtype.kind != "O":
        return values
    try:
        flat = [v.decode("utf-8") if isinstance(v, bytes) else v for v in values.ravel()]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"a BYTES element is not UTF-8 text: {exc}") from None
    texts = np.empty(len(flat), dtype=object)
    texts[:] = flat
    return texts.reshape(values.shape)
