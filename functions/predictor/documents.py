"""What hooks return, as the predictor wants it, and the predictor's answers, as hooks want them."""

from collections.abc import Sequence
from typing import Any

from functions import codec_v2, jsonio
from functions.buffers import Buffer
from functions.errors import BadHookResult, FunctionsError, InvalidRequest, UpstreamError
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.wire import v2

_TRANSPORT_PARAMETERS = frozenset({"binary_data", "binary_data_size"})
"""They describe one message, not the tensor."""


def is_v2(payload: Any) -> bool:
    """An InferRequest (ours, KServe's), or a V2 document."""
    if isinstance(payload, InferRequest):
        return True
    if isinstance(payload, dict):
        inputs = payload.get("inputs")
        return isinstance(inputs, list) and bool(inputs) and all(map(_is_tensor, inputs))
    return isinstance(getattr(payload, "inputs", None), list)


def _is_tensor(entry: Any) -> bool:
    """An entry of a V2 document, as JSON has it, or as code makes it: with an array, an object."""
    if isinstance(entry, dict):
        return "datatype" in entry or ("name" in entry and _is_array(entry.get("data")))
    return hasattr(entry, "datatype")


def _is_array(data: Any) -> bool:
    """numpy's, torch's and the like."""
    return hasattr(data, "dtype") and hasattr(data, "shape")


def v1_body(payload: Any) -> bytes:
    """A V1 body: dicts and lists as JSON, bytes and text as they are, V2 requests as the rows of
    their first tensor. Raises BadHookResult."""
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    if isinstance(payload, str):
        return payload.encode()
    if is_v2(payload):
        request = infer_request(payload, "")
        if len(request.inputs) != 1:
            raise BadHookResult(
                "preprocess returned a V2 request with several tensors, which V1 cannot carry:"
                " return a dict with instances, or use --predictor-protocol v2"
            )
        payload = {"instances": request.inputs[0].as_numpy()}
    elif not isinstance(payload, (dict, list)):
        raise _wrong_type(payload, "a dict, a list or bytes")
    try:
        return jsonio.dumps(payload)
    except TypeError as exc:
        raise BadHookResult(
            f"preprocess returned what cannot be written as JSON: {exc.__cause__ or exc}"
        ) from exc


def infer_request(payload: Any, model: str) -> InferRequest:
    """An InferRequest: V2 documents, KServe's InferRequest and V1 `instances` are converted.

    Raises BadHookResult.
    """
    if isinstance(payload, InferRequest):
        payload.model_name = payload.model_name or model
        return payload
    rows = _v1_rows(payload)
    if rows is not None:
        from functions import results, tensors

        try:
            tensor = Tensor("input-0", data=tensors.as_array(rows))
            results.check_elements(tensor)
        except (TypeError, ValueError) as exc:
            raise BadHookResult(
                f"preprocess returned instances that make no tensor for a V2 predictor: {exc}"
            ) from None
        return InferRequest(model, [tensor])
    inputs = getattr(payload, "inputs", None)
    if isinstance(inputs, list) and not isinstance(payload, dict):
        return _from_foreign(payload, inputs, model)
    if not isinstance(payload, dict):
        raise _wrong_type(payload, "an InferRequest or a dict")
    try:
        if is_v2(payload) and not all(map(_is_json, payload["inputs"])):
            made = [_made_tensor(entry) for entry in payload["inputs"]]
            return InferRequest(model, made, v2.parse_id(payload), payload.get("parameters"))
        return codec_v2.from_document(payload, memoryview(b""), model, "")
    except (v2.Malformed, AttributeError, TypeError, ValueError, InvalidRequest) as problem:
        raise BadHookResult(f"preprocess returned no V2 request: {problem}") from None


def _is_json(entry: Any) -> bool:
    return type(entry) is dict and type(entry.get("data")) is list and "shape" in entry


def _made_tensor(entry: Any) -> Tensor:
    """An input as code writes it: its shape follows from the data unless it is given. Raises
    v2.Malformed, TypeError, ValueError."""
    if not isinstance(entry, dict):
        return foreign_tensor(entry)
    from functions import results, tensors

    name, data = entry.get("name"), entry.get("data")
    if not isinstance(name, str) or data is None:
        raise v2.Malformed('each of its "inputs" needs "name" and "data"')
    datatype = entry.get("datatype") or ""
    if datatype:
        v2.check_datatype(datatype, f"input {name!r}")
    array = tensors.as_array(data)
    if entry.get("shape") is not None:
        array = array.reshape(entry["shape"])
    tensor = Tensor(name, (), datatype, array, entry.get("parameters"))
    results.check_elements(tensor)
    return tensor


def _v1_rows(payload: Any) -> Any:
    """What a V1 document calls `instances`, or `inputs`; None for anything else."""
    if not isinstance(payload, dict) or is_v2(payload):
        return None
    rows = payload.get("instances")
    if rows is None:
        rows = payload.get("inputs")
        if isinstance(rows, list) and (not rows or isinstance(rows[0], dict)):
            return None  # meant as V2
    return rows


def _wrong_type(payload: Any, wanted: str) -> BadHookResult:
    return BadHookResult(f"preprocess returned {type(payload).__name__}: expected {wanted}")


def _from_foreign(payload: Any, inputs: list[Any], model: str) -> InferRequest:
    """KServe's classes, by the attributes they share with ours."""
    try:
        tensors = [foreign_tensor(entry) for entry in inputs]
    except (AttributeError, TypeError, ValueError, InvalidRequest) as exc:
        raise BadHookResult(f"preprocess returned no V2 request: {exc}") from exc
    return InferRequest(
        getattr(payload, "model_name", "") or model,
        tensors,
        getattr(payload, "id", None) or "",
        dict(getattr(payload, "parameters", None) or {}),
        model_version=getattr(payload, "model_version", None) or "",
    )


def foreign_tensor(entry: Any) -> Tensor:
    """One input or output of another SDK: its bytes where it has them, else its numbers."""
    if isinstance(entry, Tensor):
        return entry
    ours = getattr(entry, "untouched", None)
    if isinstance(ours, Tensor):
        return ours
    datatype, shape = str(entry.datatype), list(entry.shape)
    parameters = {
        key: value
        for key, value in (entry.parameters or {}).items()
        if isinstance(value, (str, int, float, bool)) and key not in _TRANSPORT_PARAMETERS
    }
    raw = getattr(entry, "_raw_data", None)
    if isinstance(raw, (bytes, memoryview)) and raw:
        return Tensor(entry.name, shape, datatype, parameters=parameters, raw=raw)
    data = entry.data
    if isinstance(data, list) and not any(isinstance(item, list) for item in data[:1]):
        return Tensor(entry.name, shape, datatype, data, parameters)
    return Tensor(entry.name, shape, datatype, entry.as_numpy(), parameters)


def encode_request(request: InferRequest, *, binary: bool) -> tuple[bytes, list[Buffer]]:
    """(JSON, tensors that follow it). Tensors that are arrays or bytes go out as binary data,
    as the very buffers they are in; lists stay in the JSON. Raises InvalidRequest for a datatype
    without a JSON form when `binary` is false."""
    documents: list[dict[str, Any]] = []
    pieces: list[Buffer] = []
    for tensor in request.inputs:
        document: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
        }
        parameters = {
            key: value
            for key, value in tensor.parameters.items()
            if key not in _TRANSPORT_PARAMETERS
        }
        if not binary or (tensor.is_list and not tensor.is_array):
            document["data"] = tensor.json_data()
        else:
            raw = tensor.raw()
            parameters["binary_data_size"] = len(raw)
            pieces.append(raw)
        if parameters:
            document["parameters"] = parameters
        documents.append(document)
    head: dict[str, Any] = {"id": request.id or new_id(), "inputs": documents}
    parameters = {k: v for k, v in request.parameters.items() if k != "binary_data_output"}
    if binary:
        parameters["binary_data_output"] = True
    if parameters:
        head["parameters"] = parameters
    return jsonio.dumps(head), pieces


def decode_response(body: Buffer, json_length: str | None) -> InferResponse:
    """A V2 answer; binary outputs are views of `body`. Raises InvalidRequest or v2.Malformed."""
    document, tail = codec_v2.split(body, json_length)
    if type(document) is not dict or type(document.get("outputs")) is not list:
        raise v2.Malformed('it has no "outputs"')
    outputs: list[Tensor] = []
    if document["outputs"]:
        # An output document has the shape of an input document.
        entries = [_without_nulls(entry) for entry in document["outputs"]]
        outputs = codec_v2.from_document({"inputs": entries}, tail, "", "").inputs
    return InferResponse(
        v2.parse_id(document),
        str(document.get("model_name") or ""),
        outputs,
        str(document.get("model_version") or ""),
        document.get("parameters") or {},
    )


def _without_nulls(entry: Any) -> Any:
    return {k: v for k, v in entry.items() if v is not None} if type(entry) is dict else entry


def error_text(body: Buffer, limit: int = 500) -> str:
    """What an error answer says: `{"error": ...}`, FastAPI's `{"detail": ...}`, else its text."""
    try:
        document = jsonio.loads(body)
    except FunctionsError:
        document = None
    if isinstance(document, dict):
        for key in ("error", "detail", "message"):
            if key in document:
                return str(document[key])[:limit]
    return bytes(body[:limit]).decode("utf-8", "replace").strip()


def total(pieces: Sequence[Buffer]) -> int:
    """Bytes of all pieces."""
    return sum(map(len, pieces))


class _OutputTensor(Tensor):
    """A tensor of the predictor's: what is wrong with its contents is the predictor's fault."""

    __slots__ = ("_source",)
    _source: str

    def as_numpy(self) -> Any:
        try:
            return super().as_numpy()
        except InvalidRequest as exc:
            problem = str(exc).replace("input", "output", 1)
            raise UpstreamError(self._source, f"sent a broken tensor: {problem}") from exc


def checked(response: InferResponse, source: str) -> InferResponse:
    """The response, with faults of its tensors blamed on `source`, now or when they are looked
    at."""
    for at, tensor in enumerate(response.outputs):
        if isinstance(tensor, _OutputTensor):
            continue
        own = _OutputTensor(tensor.name, tensor.shape, tensor.datatype,
                            parameters=tensor.parameters)  # fmt: skip
        own._source = source
        own._list, own._raw = tensor._list, tensor._raw
        own._array, own._json = tensor._array, tensor._json
        response.outputs[at] = own
    return response
