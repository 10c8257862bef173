"""The `onnx` runtime: one ONNX file on onnxruntime. No code of the artifact is run: a safe
format."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functions import cpu
from functions.errors import InvalidRequest, LoadFailed
from functions.model import ModelInfo, ServedModel, TensorSpec

from .files import newest_version, one_model
from .graph import Array, GraphModel

if TYPE_CHECKING:
    from functions.settings import Settings

logger = logging.getLogger(__name__)

_TYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}


def find(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """The file and its version: one at the top, or Triton's layout, `1/model.onnx`."""
    folder = None if any(directory.glob("*.onnx")) else newest_version(directory, "*.onnx")
    if folder is not None:
        return one_model(folder, (".onnx",)), (folder.name,)
    return one_model(directory, (".onnx",)), ()


class OnnxModel(GraphModel):
    inline = True

    def __init__(self, session: Any, threads: int, versions: tuple[str, ...]) -> None:
        self._session = session
        self.threads = threads
        self.info = ModelInfo(
            platform="onnxruntime_onnx",
            versions=versions,
            inputs=_specs(session.get_inputs()),
            outputs=tuple(spec for spec in _specs(session.get_outputs(), skip_unknown=True)),
        )
        self._outputs = [output.name for output in session.get_outputs()]
        self.static_batch = any(
            spec.shape and spec.shape[0] != -1 for spec in self.info.inputs if spec.ranked
        )

    def compute(self, inputs: dict[str, Array], outputs: list[str] | None) -> dict[str, Array]:
        names = (
            [n for n in outputs if n in self._outputs]
            if outputs
            else [s.name for s in self.info.outputs]
        )
        fed = {
            name: _texts(array) if array.dtype.kind == "O" else array
            for name, array in inputs.items()
        }
        try:
            results = self._session.run(names or self._outputs[:1], fed)
        except Exception as exc:
            # onnxruntime has one exception class per code, all in a private module.
            if type(exc).__name__ in ("InvalidArgument", "RuntimeException", "Fail"):
                raise InvalidRequest(f"the model refuses this input: {str(exc)[:500]}") from exc
            raise
        return {name: np.asarray(result) for name, result in zip(names, results, strict=False)}


def _texts(array: Array) -> Array:
    flat = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape)


def _specs(values: Any, *, skip_unknown: bool = False) -> tuple[TensorSpec, ...]:
    found = []
    for value in values:
        datatype = _TYPES.get(value.type)
        if datatype is None:
            if skip_unknown:  # sequences of maps: sklearn's probabilities, exported with zipmap
                logger.warning("output %s is of type %s and is not served", value.name, value.type)
                continue
            raise LoadFailed(
                f"input {value.name} is of type {value.type}, which no protocol carries"
            )
        shape = value.shape
        found.append(
            TensorSpec(
                name=value.name,
                datatype=datatype,
                shape=tuple(s if isinstance(s, int) and s >= 0 else -1 for s in shape or ()),
                ranked=shape is not None and shape != [],
            )
        )
    return tuple(found)


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    file, versions = find(directory)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu.library_threads(settings)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as exc:  # private classes again; every one of them means "not loadable"
        raise LoadFailed(f"{file.name} cannot be loaded: {str(exc)[:500]}") from exc
    return OnnxModel(session, settings.threads or 1, versions)
