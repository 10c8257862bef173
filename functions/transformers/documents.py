"""V2 messages as the JSON documents that templates look at, and back."""

from collections.abc import Callable
from typing import Any

import numpy as np

from functions import tensors
from functions.errors import InvalidRequest
from functions.inference import InferRequest, InferResponse, Tensor


def of_request(request: InferRequest) -> dict[str, Any]:
    """Raises InvalidRequest when an input's data does not fit its shape."""
    return {
        "id": request.id,
        "model_name": request.model_name,
        "parameters": request.parameters,
        "inputs": [_document(tensor) for tensor in request.inputs],
    }


def of_response(response: InferResponse) -> dict[str, Any]:
    return {
        "id": response.id,
        "model_name": response.model_name,
        "parameters": response.parameters,
        "outputs": [_document(tensor) for tensor in response.outputs],
    }


def _document(tensor: Tensor) -> dict[str, Any]:
    """`data` is nested as `shape` says, so that `data[0]` is the first row."""
    array = tensor.as_numpy()
    data = _texts(array).tolist() if array.dtype.kind == "O" else array.tolist()
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "parameters": tensor.parameters,
        "data": data,
    }


def _texts(array: Any) -> Any:
    found = np.empty(array.shape, dtype=object)
    found.ravel()[:] = [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else item
        for item in array.ravel().tolist()
    ]
    return found


def tensors_of(entries: Any, kind: str, fault: Callable[[str], Exception]) -> list[Tensor]:
    """Tensors of a made document; shape and datatype follow from the data where they are left out.

    Raises what `fault` makes of a text.
    """
    if not isinstance(entries, list) or not entries:
        raise fault(f"{kind}s must be a list of tensors")
    return [_tensor(entry, index, kind, fault) for index, entry in enumerate(entries)]


def _tensor(entry: Any, index: int, kind: str, fault: Callable[[str], Exception]) -> Tensor:
    if not isinstance(entry, dict) or "data" not in entry:
        raise fault(f"{kind} {index} must be an object with name and data")
    name = str(entry.get("name") or f"{kind}-{index}")
    datatype = str(entry.get("datatype") or "").upper()
    if datatype and datatype not in tensors.DTYPES:
        raise fault(f"{kind} {name!r}: unknown datatype {datatype!r}")
    try:
        array = _array(entry["data"], datatype)
        if entry.get("shape") is not None:
            array = array.reshape([int(length) for length in entry["shape"]])
        return Tensor(name, (), datatype, array, entry.get("parameters"))
    except (TypeError, ValueError, OverflowError, InvalidRequest) as error:
        raise fault(f"{kind} {name!r}: its data makes no tensor ({error})") from None


def _array(data: Any, datatype: str) -> Any:
    """FP32 for numbers with a fraction and INT64 for whole ones, unless a datatype is given."""
    if datatype == "BYTES":
        return np.asarray(data, dtype=object)
    found = np.asarray(data)
    if datatype:
        if found.dtype.kind not in "fiub":
            raise TypeError(f"it is not all {datatype}")
        wanted = tensors.DTYPES[datatype]
        if wanted.kind in "iu" and found.size:
            limits = np.iinfo(wanted)
            if found.min() < limits.min or found.max() > limits.max:
                raise ValueError(f"a number is out of range for {datatype}")
        return found.astype(wanted)
    if found.dtype.kind == "f":
        return found.astype(np.float32)
    if found.dtype.kind == "O":
        raise TypeError("it is ragged, or of several types")
    return found
