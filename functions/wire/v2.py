"""Open Inference Protocol V2: the vocabulary, and the shape of its JSON documents.

Standard library only: no numpy, no sockets. Tensors' contents stay where they are (a list, or a
span of the body); `functions.tensors` turns them into arrays. Spec: Open Inference Protocol v2,
"Tensor Data Types", "Inference Request JSON Object", and Triton's binary tensor data extension.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, TypeGuard

ITEM_BYTES: dict[str, int] = {
    "BOOL": 1,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
    "BYTES": 0,
}
"""Datatype -> bytes per element; BYTES elements carry a length each."""

BINARY_ONLY = frozenset({"FP16", "BF16"})
"""Datatypes without a JSON form."""

HEADER_LENGTH = "inference-header-content-length"
"""Header that says where the JSON ends and the tensors begin."""

MAX_RANK = 32
"""Dimensions of a tensor; numpy's own limit is 64, no model has as many."""

Parameters = dict[str, Any]


class Malformed(ValueError):
    """The document is not an inference request; the text says where and what."""


InputDocument = tuple[str, list[int], str, Parameters | None, list[Any] | None, int | None]
"""(name, shape, datatype, parameters, data, size): one input, checked but not decoded. Exactly one
of `data` (a list; flat ones fill the shape) and `size` (bytes of binary data) is not None. A plain
tuple, because one is made for every input of every request."""


def parse_inputs(document: Any) -> list[InputDocument]:
    """The inputs of a request document. Raises Malformed."""
    if type(document) is not dict:
        raise Malformed("the body must be a JSON object")
    inputs = document.get("inputs")
    if type(inputs) is not list or not inputs:
        raise Malformed('the request needs "inputs", a list of at least one tensor')
    if len(inputs) == 1:
        return [_parse_input(inputs[0], 0)]
    return [_parse_input(entry, index) for index, entry in enumerate(inputs)]


def _parse_input(entry: Any, index: int) -> InputDocument:
    if type(entry) is not dict:
        raise Malformed(f"inputs[{index}] must be an object")
    get = entry.get
    name, datatype, shape, data = get("name"), get("datatype"), get("shape"), get("data")
    if type(name) is not str:
        raise Malformed(f'inputs[{index}] needs a "name", a string')
    if type(datatype) is not str:
        raise Malformed(f'input {name!r} needs a "datatype", a string')
    if datatype not in ITEM_BYTES:
        datatype = check_datatype(datatype, f"input {name!r}")
    if not _is_shape(shape):
        shape = check_shape(shape, f"input {name!r}")
    parameters = get("parameters")
    size = None
    if parameters is not None:
        check_parameters(parameters, f"input {name!r}")
        size = parameters.get("binary_data_size")
        if size is not None and (type(size) is not int or size < 0):
            raise Malformed(f"input {name!r}: binary_data_size must be a whole number")
    if data is None:
        if size is None:
            raise Malformed(f'input {name!r} needs "data" (or binary_data_size and binary data)')
        return name, shape, datatype, parameters, None, size
    # `data` wins if both are given (spec "Binary tensor extension").
    if type(data) is not list:
        raise Malformed(f'input {name!r}: "data" must be a list')
    if datatype in BINARY_ONLY:
        raise Malformed(
            f"input {name!r}: {datatype} must be sent as binary data, it has no JSON form"
        )
    return name, shape, datatype, parameters, data, None


def check_datatype(datatype: str, where: str) -> str:
    """The datatype in upper case, as KServe reads it. Raises Malformed."""
    upper = datatype.upper()
    if upper not in ITEM_BYTES:
        raise Malformed(f"{where}: unknown datatype {datatype!r}")
    return upper


def check_shape(shape: Any, where: str) -> list[int]:
    """A list of whole numbers, none negative. Raises Malformed."""
    if type(shape) is not list:
        raise Malformed(f'{where} needs a "shape", a list of whole numbers')
    for size in shape:
        if type(size) is not int or size < 0:
            raise Malformed(f"{where}: shape {shape!r} must be whole numbers, none negative")
    if len(shape) > MAX_RANK:
        raise Malformed(f"{where}: a tensor may have {MAX_RANK} dimensions")
    return shape


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    """The quick yes for `check_shape`, without a text to go with a no."""
    if type(shape) is not list or len(shape) > MAX_RANK:
        return False
    for size in shape:  # noqa: SIM110 - a generator would cost more than the loop
        if type(size) is not int or size < 0:
            return False
    return True


def check_parameters(parameters: Any, where: str) -> None:
    """Values are strings, numbers or booleans (spec "Parameters JSON Object"). What is null is not
    there, and removed: MLServer's types write so what was not set. Raises Malformed."""
    if type(parameters) is not dict:
        raise Malformed(f"{where}: parameters must be an object")
    for key, value in list(parameters.items()):
        if value is None:
            del parameters[key]
        elif not isinstance(value, (str, int, float, bool)):
            raise Malformed(f"{where}: parameter {key!r} must be a string, number or boolean")


def element_count(shape: Sequence[int]) -> int:
    return prod(shape)


def check_binary_size(size: int, shape: Sequence[int], datatype: str, where: str) -> None:
    """A fixed-size tensor's bytes must match its shape. Raises Malformed."""
    item = ITEM_BYTES[datatype]
    expected = element_count(shape) * item
    if item and size != expected:
        raise Malformed(
            f"{where}: {size} bytes of {datatype} do not fill shape {list(shape)} ({expected}"
            " bytes)"
        )


def check_flat(data: list[Any], shape: list[int], name: str) -> None:
    """A flat list must fill the shape; a nested one is measured when it is converted. Raises
    Malformed."""
    if data and type(data[0]) is list:
        return
    expected = prod(shape)
    if len(data) != expected:
        raise Malformed(
            f"input {name!r}: {len(data)} elements do not fill shape {shape} ({expected} elements)"
        )


class Wanted:
    """What the client asks for: which outputs, in order, and which of them as binary data."""

    __slots__ = ("binary_default", "outputs")

    def __init__(self, binary_default: bool, outputs: dict[str, bool | None] | None) -> None:
        self.binary_default = binary_default
        self.outputs = outputs
        """Name -> binary or not, None when the output does not say; None: all outputs."""

    def is_binary(self, name: str) -> bool:
        if self.outputs is not None:
            own = self.outputs.get(name)
            if own is not None:
                return own
        return self.binary_default


ALL_AS_JSON = Wanted(False, None)


def parse_wanted(document: Mapping[str, Any]) -> Wanted:
    """`outputs` and `binary_data_output` of a request. Raises Malformed."""
    if "parameters" not in document and "outputs" not in document:
        return ALL_AS_JSON
    parameters = document.get("parameters")
    binary = False
    if parameters is not None:
        check_parameters(parameters, "the request")
        binary = parameters.get("binary_data_output", False)
        if type(binary) is not bool:
            raise Malformed("binary_data_output must be true or false")
    outputs = document.get("outputs")
    if outputs is None or outputs == []:
        return Wanted(binary, None) if binary else ALL_AS_JSON
    if type(outputs) is not list:
        raise Malformed('"outputs" must be a list')
    wanted: dict[str, bool | None] = {}
    for index, entry in enumerate(outputs):
        if type(entry) is not dict or type(entry.get("name")) is not str:
            raise Malformed(f'outputs[{index}] needs a "name", a string')
        own = entry.get("parameters")
        flag = None
        if own is not None:
            check_parameters(own, f"output {entry['name']!r}")
            flag = own.get("binary_data")
            if flag is not None and type(flag) is not bool:
                raise Malformed(f"output {entry['name']!r}: binary_data must be true or false")
        wanted[entry["name"]] = flag
    return Wanted(binary, wanted)


def parse_id(document: Mapping[str, Any]) -> str:
    """The request's id, empty when it has none. Raises Malformed."""
    request_id = document.get("id")
    if request_id is None:
        return ""
    if type(request_id) is not str:
        raise Malformed('"id" must be a string')
    return request_id


def metadata(name: str, versions: Sequence[str], platform: str, inputs: Any, outputs: Any) -> Any:
    """Spec "Model Metadata Response JSON Object"."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": inputs,
        "outputs": outputs,
    }
