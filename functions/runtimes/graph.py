"""Models of the kind "named tensors in, named tensors out": ONNX, TorchScript, TensorFlow
signatures.

V1 follows TensorFlow Serving: rows (`instances`: one value or one object of values an instance) or
columns (`inputs`); answers come as `predictions` or `outputs`, bare when there is one output
tensor. V2 takes and gives the tensors by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from functions import tensors
from functions.errors import InvalidRequest, NotSupported
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.model import Call, Item, JoinableModel, TensorSpec

Array = np.ndarray[Any, Any]


class GraphModel(JoinableModel):
    """Subclasses set `info` with all inputs and outputs, and implement `compute`."""

    static_batch = False
    """The model takes exactly the first dimension it was exported with: requests cannot be
    joined."""

    def compute(self, inputs: dict[str, Array], outputs: list[str] | None) -> dict[str, Array]:
        """Run the model. `outputs`: the names asked for, None for all."""
        raise NotImplementedError

    # --- in ------------------------------------------------------------------------------------

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        if kind == "infer":
            arrays = self._from_tensors(payload)
        elif kind == "predict":
            arrays = self._from_v1(payload)
        else:
            raise NotSupported(f"this model does not support {kind}")
        lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        joinable = len(lengths) == 1 and 0 not in lengths and not self.static_batch
        key = None
        if joinable:
            key = tuple((name, array.dtype, array.shape[1:]) for name, array in arrays.items())
        count = lengths.pop() if joinable else 1
        return Item(kind, payload, call, count=count, key=key, data=arrays)

    def _from_tensors(self, request: InferRequest) -> dict[str, Array]:
        given = {tensor.name: tensor for tensor in request.inputs}
        specs = self.info.inputs
        if len(specs) == 1 and len(given) == 1 and specs[0].name not in given:
            # KServe's clients name their one input as they like.
            given = {specs[0].name: next(iter(given.values()))}
        self._check_names(given)
        return {
            spec.name: self._fit(spec, given[spec.name].as_numpy())
            for spec in specs
            if spec.name in given
        }

    def _check_names(self, given: Mapping[str, Any]) -> None:
        wanted = {spec.name for spec in self.info.inputs}
        if set(given) != wanted:
            raise InvalidRequest(
                f"the model's inputs are {', '.join(sorted(wanted))}; the request has"
                f" {', '.join(sorted(given)) or 'none'}"
            )

    def _from_v1(self, payload: Any) -> dict[str, Array]:
        if not isinstance(payload, Mapping) or not ("instances" in payload or "inputs" in payload):
            raise InvalidRequest('the body must be a JSON object with "instances" or "inputs"')
        if "instances" in payload and "inputs" in payload:
            raise InvalidRequest('the body has both "instances" and "inputs"')
        columns = self._columns(payload["inputs"]) if "inputs" in payload else None
        if columns is None:
            columns = self._rows(payload["instances"])
        self._check_names(columns)
        return {
            spec.name: self._fit(spec, self._array(spec, columns[spec.name]))
            for spec in self.info.inputs
        }

    def _columns(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return dict(inputs)
        if len(self.info.inputs) != 1:
            raise InvalidRequest('"inputs" must be an object: the model has several inputs')
        return {self.info.inputs[0].name: inputs}

    def _rows(self, instances: Any) -> dict[str, Any]:
        if not isinstance(instances, list) or not instances:
            raise InvalidRequest('"instances" must be a list of at least one instance')
        if not isinstance(instances[0], Mapping):
            if len(self.info.inputs) != 1:
                raise InvalidRequest("instances must be objects: the model has several inputs")
            return {self.info.inputs[0].name: instances}
        names = set(instances[0])
        for index, row in enumerate(instances):
            if not isinstance(row, Mapping) or set(row) != names:
                raise InvalidRequest(f"instance {index} has not the same names as the first")
        return {name: [row[name] for row in instances] for name in instances[0]}

    def _array(self, spec: TensorSpec, values: Any) -> Array:
        try:
            array = np.asarray(values)
        except ValueError:
            raise InvalidRequest(f"the values of {spec.name} are ragged") from None
        if array.dtype.kind == "O" and spec.datatype != "BYTES":
            raise InvalidRequest(f"the values of {spec.name} are ragged, or no numbers")
        return array

    def _fit(self, spec: TensorSpec, array: Array) -> Array:
        """The array in the datatype and rank of the model's input. Raises InvalidRequest."""
        wanted = tensors.DTYPES[spec.datatype]
        if array.dtype != wanted:
            kinds = {"f": "fiub", "i": "iu", "u": "iu", "b": "b", "O": "OSU"}[wanted.kind]
            if array.dtype.kind not in kinds:
                raise InvalidRequest(
                    f"input {spec.name} is {spec.datatype}, the request has {array.dtype}"
                )
            if wanted.kind in "iu" and array.size:
                limits = np.iinfo(wanted)
                if array.max() > limits.max or array.min() < limits.min:
                    raise InvalidRequest(
                        f"input {spec.name}: a number is out of range for {spec.datatype}"
                    )
            array = array.astype(wanted)
        shape = spec.shape
        if spec.ranked and (
            array.ndim != len(shape)
            or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=False))
        ):
            raise InvalidRequest(
                f"input {spec.name} has shape {list(shape)}, the request has {list(array.shape)}"
            )
        return array

    # --- run and out ---------------------------------------------------------------------------

    def run(self, items: list[Item]) -> None:
        names = _wanted(items)
        if len(items) == 1:
            items[0].output = self.compute(items[0].data, names)
            return
        joined = {
            name: np.concatenate([item.data[name] for item in items]) for name in items[0].data
        }
        outputs = self.compute(joined, names)
        total = sum(item.count for item in items)
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != total:
                raise NotSupported(f"output {name} has not one row an instance: turn batching off")
        at = 0
        for item in items:
            item.output = {name: array[at : at + item.count] for name, array in outputs.items()}
            at += item.count

    def answer(self, item: Item) -> Any:
        outputs: dict[str, Array] = item.output
        if item.kind == "infer":
            request: InferRequest = item.payload
            return InferResponse(
                request.id or new_id(),
                request.model_name,
                [Tensor(name, data=array) for name, array in outputs.items()],
                self.info.versions[0] if self.info.versions else "",
            )
        single = len(outputs) == 1
        if "inputs" in item.payload:
            plain = {name: _plain(array) for name, array in outputs.items()}
            return {"outputs": next(iter(plain.values())) if single else plain}
        if single:
            return {"predictions": _plain(next(iter(outputs.values())))}
        lists = {name: _plain(array).tolist() if hasattr(_plain(array), "tolist") else _plain(array)
                 for name, array in outputs.items()}  # fmt: skip
        count = len(item.payload["instances"])
        if any(not isinstance(values, list) or len(values) != count for values in lists.values()):
            raise InvalidRequest(
                'the outputs have not one row an instance: ask in column form ("inputs")'
            )
        return {
            "predictions": [
                {name: values[row] for name, values in lists.items()} for row in range(count)
            ]
        }


def _plain(array: Array) -> Any:
    """What orjson writes: the array itself, or a list of texts for BYTES."""
    if array.dtype.kind in "OSU":
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _wanted(items: list[Item]) -> list[str] | None:
    """Requested outputs of V2 items, when all ask for the same; else all outputs."""
    if len(items) == 1 and items[0].kind == "infer":
        names = items[0].payload.wanted.outputs
        return list(names) if names else None
    return None
