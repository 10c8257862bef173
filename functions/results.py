"""What hooks return for V2 requests -> InferResponse. numpy is imported here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import InvalidRequest
from .inference import InferRequest, InferResponse, Tensor, new_id
from .tensors import DTYPES, as_array
from .wire import v2


def to_response(result: Any, request: InferRequest) -> InferResponse:
    """Whatever a hook returned for a V2 request -> InferResponse.

    Ours and KServe's InferResponse, a V2 document (dict with `outputs`), a dict of name -> array, a
    data frame (one output a column), or one array-like (named `output-0`). Raises TypeError for
    anything else.
    """
    if isinstance(result, InferResponse):
        result.id = result.id or request.id or new_id()
        result.model_name = result.model_name or request.model_name
        return result
    if isinstance(result, Mapping):
        if isinstance(result.get("outputs"), list):
            outputs = [_from_document(entry) for entry in result["outputs"]]
        else:
            outputs = [Tensor(str(name), data=as_array(value)) for name, value in result.items()]
            return InferResponse(request.id or new_id(), request.model_name, outputs)
        own = {key: result.get(key) for key in ("id", "model_version")}
        request_id, version = (v if isinstance(v, str) else "" for v in own.values())
        parameters = result.get("parameters")
        return InferResponse(
            request_id or request.id or new_id(),
            request.model_name,
            outputs,
            version,
            parameters if isinstance(parameters, dict) else None,
        )
    foreign = getattr(result, "outputs", None)
    if isinstance(foreign, list):  # kserve.InferResponse and the like
        outputs = [
            Tensor(o.name, list(o.shape), o.datatype, data=as_array(o.as_numpy())) for o in foreign
        ]
        return InferResponse(
            getattr(result, "id", None) or request.id or new_id(), request.model_name, outputs
        )
    if isinstance(result, Tensor):
        return InferResponse(request.id or new_id(), request.model_name, [result])
    if hasattr(result, "columns") and hasattr(result, "to_numpy"):
        outputs = [Tensor(str(name), data=result[name].to_numpy()) for name in result.columns]
        return InferResponse(request.id or new_id(), request.model_name, outputs)
    return InferResponse(
        request.id or new_id(), request.model_name, [Tensor("output-0", data=as_array(result))]
    )


def _from_document(entry: Any) -> Tensor:
    if isinstance(entry, Tensor):
        return entry
    try:
        name, shape, datatype, data = (entry[key] for key in ("name", "shape", "datatype", "data"))
    except (KeyError, TypeError):
        raise TypeError("an output needs name, shape, datatype and data") from None
    where = f"output {name!r}"
    datatype = v2.check_datatype(datatype, where)
    if datatype in v2.BINARY_ONLY and isinstance(data, list):
        data = np.asarray(data, dtype=DTYPES[datatype]).reshape(shape)
        return Tensor(name, datatype=datatype, data=data, parameters=entry.get("parameters"))
    return Tensor(name, v2.check_shape(shape, where), datatype, data, entry.get("parameters"))


def check_output(tensor: Tensor, request: InferRequest) -> None:
    """Data, datatype and shape agree. Raises TypeError; InvalidRequest when it is an input that
    user code passes on as it came."""
    try:
        tensor.as_numpy()
    except InvalidRequest as exc:
        if any(tensor is sent for sent in request.inputs):
            raise
        raise TypeError(str(exc).replace("input ", "output ", 1)) from exc
    check_elements(tensor)


def check_elements(tensor: Tensor) -> None:
    """BYTES elements are text or bytes: the first one is looked at. Raises TypeError for what
    numpy has put into an array of objects because it knows no better."""
    if tensor.datatype != "BYTES":
        return
    array = tensor.as_numpy()
    if array.size and not isinstance(array.flat[0], (str, bytes)):
        raise TypeError(f"{type(array.flat[0]).__name__} is neither a number nor text")
