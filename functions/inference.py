"""V2 requests and responses as user code and runtimes see them; the numbers are converted on
demand.

A `Tensor` holds its contents in whatever form they came in (JSON list, bytes of the body, numpy
array) and converts when asked: `as_numpy()`, `data`, `raw`. A tensor that is only passed through is
never converted at all. numpy is imported at the first `as_numpy`.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from .wire import v2

if TYPE_CHECKING:
    import numpy as np


_id_prefix = ""
_id_count = itertools.count(1)


def new_id() -> str:
    """An id in UUID4's form. It is no secret and only has to differ: a count does, behind a prefix
    of this process's own."""
    global _id_prefix
    if not _id_prefix:
        bits = os.urandom(9).hex()
        _id_prefix = f"{bits[:8]}-{bits[8:12]}-4{bits[12:15]}-a{bits[15:]}-"
    return f"{_id_prefix}{next(_id_count):012x}"


def _forget_prefix() -> None:
    """A forked worker counts behind a prefix of its own."""
    global _id_prefix
    _id_prefix = ""


os.register_at_fork(after_in_child=_forget_prefix)

_tensors: Any = None


def _arrays() -> Any:
    """`functions.tensors`, imported (with numpy) at its first use; an import statement in each of
    the
    methods below would cost more than they do."""
    global _tensors
    if _tensors is None:
        from . import tensors

        _tensors = tensors
    return _tensors


class Tensor:
    """A named tensor. Same attribute names as KServe's InferInput and InferOutput."""

    __slots__ = ("_array", "_json", "_list", "_raw", "datatype", "name", "parameters", "shape")

    def __init__(
        self,
        name: str,
        shape: list[int] | tuple[int, ...] = (),
        datatype: str = "",
        data: Any = None,
        parameters: dict[str, Any] | None = None,
        *,
        raw: bytes | memoryview | None = None,
    ) -> None:
        """`data`: a (nested) list or a numpy array; with an array, shape and datatype follow from
        it (a datatype that is given stays if it can carry the numbers)."""
        self.name = name
        self.parameters: dict[str, Any] = parameters if parameters is not None else {}
        self._list: list[Any] | None = None
        self._raw = raw
        self._array: np.ndarray[Any, Any] | None = None
        self._json = ""
        """`flat` or `nested`: the array was such a list in a JSON document."""
        if type(data) is tuple:
            data = list(data)
        if data is None or type(data) is list:
            self.shape = list(shape)
            self.datatype = datatype
            self._list = data
            if datatype == "BYTES" and data and _arrays().holds_bytes(data):
                self._array, self._list = _arrays().of_bytes(data, shape), None
                self.shape = list(self._array.shape)
        else:
            self._array, self.datatype = (_tensors or _arrays()).adopt(data, datatype)
            self.shape = list(self._array.shape)

    @classmethod
    def from_json(
        cls,
        name: str,
        datatype: str,
        array: np.ndarray[Any, Any],
        nested: bool,
        parameters: dict[str, Any] | None,
    ) -> Tensor:
        """A tensor whose JSON list has already become an array; towards others it is that list."""
        tensor = cls(name, array.shape, datatype, parameters=parameters)
        tensor._array = array
        tensor._json = "nested" if nested else "flat"
        return tensor

    def as_numpy(self) -> np.ndarray[Any, Any]:
        """The contents in their shape. A view of the request where possible: do not write to it.

        BYTES: an object array, of bytes for binary data and str for JSON. BF16: as float32.
        Raises InvalidRequest when data and shape do not fit.
        """
        array = self._array
        if array is None:
            convert = _tensors or _arrays()
            if self._raw is None and self._list is not None:
                array = convert.decode_json(self.name, self.datatype, self.shape, self._list)
            else:
                array = convert.decode(self.name, self.datatype, self.shape, None, self._raw)
            self._array = array
        return array

    def set_data_from_numpy(self, array: Any, binary_data: bool = True) -> None:
        """Take the contents, shape and (unless it is a datatype of the same kind) datatype of an
        array."""
        self._array, self.datatype = _arrays().adopt(array, self.datatype)
        self.shape = list(self._array.shape)
        self._list = self._raw = None
        self._json = ""

    @property
    def data(self) -> list[Any]:
        """The contents as a flat list (as given, for JSON requests, where it may be nested)."""
        if self._list is None:
            array = self.as_numpy()
            self._list = (array if self._json == "nested" else array.ravel()).tolist()
        return self._list

    @property
    def is_binary(self) -> bool:
        """The contents came as bytes."""
        return self._raw is not None

    @property
    def is_list(self) -> bool:
        """The contents are the JSON list that was sent."""
        if self._json:
            return True
        return self._list is not None and self._array is None and self._raw is None

    @property
    def is_array(self) -> bool:
        """The contents are in an array: as binary data they cost nothing."""
        return self._array is not None

    def raw(self) -> bytes | memoryview:
        """The contents as the binary extension writes them: little-endian, row-major."""
        if self._raw is not None:
            return self._raw
        encoded: bytes | memoryview = _arrays().encode_raw(self.as_numpy(), self.datatype)
        return encoded

    def fixed_raw(self) -> bytes | memoryview:
        """`raw`, to be sent later: what can be written to is copied, as it may be the model's own
        for its next call."""
        data = self.raw()
        return data if isinstance(data, bytes) or data.readonly else bytes(data)

    def json_data(self) -> Any:
        """The contents as JSON writes them: a flat array (numpy) or list. Raises InvalidRequest."""
        array = self._array
        if array is None:
            if self._list is not None and not _is_nested(self._list):
                return self._list
        elif (
            array.ndim == 1
            and self.datatype in _WRITTEN_AS_THEY_ARE
            and array.dtype.isnative
            and array.flags.c_contiguous
        ):
            return array
        return _arrays().encode_json(self.name, self.as_numpy(), self.datatype)

    def as_string(self) -> list[str]:
        """The elements of a BYTES tensor as text. Raises InvalidRequest for other datatypes, and
        for what is no UTF-8."""
        return _arrays().texts(self.name, self.datatype, self.as_numpy())  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, shape={self.shape}, datatype={self.datatype!r})"


_WRITTEN_AS_THEY_ARE = frozenset(v2.ITEM_BYTES) - v2.BINARY_ONLY - {"BYTES"}
"""Datatypes whose flat arrays need no conversion for JSON."""


def _is_nested(data: list[Any]) -> bool:
    return bool(data) and isinstance(data[0], list)


class InferRequest:
    """A V2 request: over REST or gRPC, JSON or binary, this is what hooks get."""

    __slots__ = ("from_grpc", "id", "inputs", "model_name", "model_version", "parameters", "wanted")

    def __init__(
        self,
        model_name: str,
        infer_inputs: list[Tensor],
        request_id: str = "",
        parameters: dict[str, Any] | None = None,
        *,
        model_version: str = "",
        from_grpc: bool = False,
        wanted: v2.Wanted = v2.ALL_AS_JSON,
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.inputs = infer_inputs
        self.id = request_id
        self.parameters: dict[str, Any] = parameters if parameters is not None else {}
        self.from_grpc = from_grpc
        self.wanted = wanted

    def get_input_by_name(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def as_dataframe(self) -> Any:
        """One column per input; needs pandas."""
        import pandas as pd

        return pd.DataFrame({tensor.name: tensor.as_numpy().ravel() for tensor in self.inputs})


class InferResponse:
    """A V2 answer."""

    __slots__ = ("id", "model_name", "model_version", "outputs", "parameters")

    def __init__(
        self,
        response_id: str,
        model_name: str,
        infer_outputs: list[Tensor],
        model_version: str = "",
        parameters: dict[str, Any] | None = None,
    ) -> None:
        self.id = response_id
        self.model_name = model_name
        self.model_version = model_version
        self.outputs = infer_outputs
        self.parameters: dict[str, Any] = parameters if parameters is not None else {}

    def get_output_by_name(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.outputs if tensor.name == name), None)


# KServe's names for the two roles of a tensor, so that user code reads as it did.
InferInput = Tensor
InferOutput = Tensor
