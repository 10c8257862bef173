"""PyTorch without an archive: TorchScript, or a state dict beside the file with its architecture.

State dicts are loaded with `weights_only`: a pickle with anything but tensors in it is refused,
always.
"""

import inspect
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from functions import loader, tensors
from functions.errors import AmbiguousArtifact, InvalidRequest, LoadFailed, NoArtifact, NotSupported
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.model import Call, Item, JoinableModel, ModelInfo
from functions.wire import v1

from .files import newest_version, one_model

SUFFIXES = (".pt", ".pth")


class TorchModel(JoinableModel):
    """`module(*inputs)`: V1 rows become one float32 tensor, V2 inputs are passed in their order."""

    def __init__(self, module: Any, platform: str, threads: int) -> None:
        self._module = module
        self.threads = threads
        self.info = ModelInfo(platform=platform)

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        if kind == "infer":
            request: InferRequest = payload
            arrays = [tensor.as_numpy() for tensor in request.inputs]
        elif kind == "predict":
            rows, problem = v1.instances_of(payload)
            if not rows:
                raise InvalidRequest(problem or "there is no instance in the request")
            try:
                arrays = [np.asarray(rows)]
            except ValueError:
                raise InvalidRequest(
                    "the instances are ragged: every one must have the same shape"
                ) from None
            if arrays[0].dtype.kind in "fiu":
                arrays = [arrays[0].astype(np.float32)]
        else:
            raise NotSupported(f"this model does not support {kind}")
        if any(array.dtype.kind not in "fiub" for array in arrays):
            raise InvalidRequest("the inputs must be numbers")
        lengths = {array.shape[0] if array.ndim else 0 for array in arrays}
        joinable = len(lengths) == 1 and 0 not in lengths
        key = tuple((array.dtype, array.shape[1:]) for array in arrays) if joinable else None
        return Item(
            kind, payload, call, count=lengths.pop() if joinable else 1, key=key, data=arrays
        )

    def run(self, items: list[Item]) -> None:
        columns = zip(*(item.data for item in items), strict=True)
        inputs = [
            torch.from_numpy(np.concatenate(column) if len(items) > 1 else np.array(column[0]))
            for column in columns
        ]
        with torch.inference_mode():
            try:
                result = self._module(*inputs)
            except (RuntimeError, TypeError, IndexError) as problem:
                # Wrong shapes and types surface as these; torch has no narrower class.
                raise InvalidRequest(
                    f"the model refuses this input: {str(problem)[:500]}"
                ) from problem
        outputs = [
            tensors.as_array(part)
            for part in (result if isinstance(result, (tuple, list)) else [result])
        ]
        if len(items) == 1:
            items[0].output = outputs
            return
        total = sum(item.count for item in items)
        if any(not array.ndim or array.shape[0] != total for array in outputs):
            raise NotSupported(
                "the model's outputs have not one row an instance: turn batching off"
            )
        at = 0
        for item in items:
            item.output = [array[at : at + item.count] for array in outputs]
            at += item.count

    def answer(self, item: Item) -> Any:
        if item.kind == "infer":
            request: InferRequest = item.payload
            outputs = [Tensor(f"output-{i}", data=array) for i, array in enumerate(item.output)]
            return InferResponse(request.id or new_id(), request.model_name, outputs)
        plain = [np.ascontiguousarray(array) for array in item.output]
        return {"predictions": plain[0] if len(plain) == 1 else plain}


def build(directory: Path, threads: int) -> TorchModel:
    """Raises LoadFailed."""
    at_top = directory.is_file() or any(directory.glob("*.pt*"))
    triton = None if at_top else newest_version(directory, "*.pt")
    file = one_model(triton or directory, SUFFIXES)
    folder = file.parent
    if _is_torchscript(file):
        try:
            load: Any = torch.jit.load  # its stub says nothing
            module = load(str(file), map_location="cpu")
        except RuntimeError as exc:
            raise LoadFailed(f"{file.name} cannot be loaded: {str(exc)[:500]}") from exc
        return TorchModel(module.eval(), "pytorch_torchscript", threads)
    module = _architecture(folder)()
    try:
        state = torch.load(str(file), map_location="cpu", weights_only=True)
        for key in ("state_dict", "model_state_dict"):  # a training checkpoint around it
            if isinstance(state.get(key), Mapping):
                state = state[key]
        module.load_state_dict(state)
    except (RuntimeError, EOFError, AttributeError, TypeError) as exc:
        raise LoadFailed(
            f"{file.name} does not fit {type(module).__name__}: {str(exc)[:500]}"
        ) from exc
    except Exception as exc:  # pickle.UnpicklingError and torch's own
        raise LoadFailed(
            f"{file.name} is no plain state dict ({type(exc).__name__}); save"
            " model.state_dict(), or TorchScript"
        ) from exc
    return TorchModel(module.eval(), "pytorch_state_dict", threads)


def _is_torchscript(file: Path) -> bool:
    """TorchScript archives are zips with a `constants.pkl` and code; state dicts have neither."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _architecture(folder: Path) -> Any:
    """The one nn.Module class of the one Python file beside the weights."""
    files = sorted(folder.glob("*.py"))
    if len(files) != 1:
        raise NoArtifact(
            "a state dict needs its architecture: one Python file with one nn.Module class in"
            f" {folder}"
        )
    module = loader.load_file(files[0])
    classes = [
        c
        for c in loader.defined_classes(module)
        if inspect.isclass(c) and issubclass(c, torch.nn.Module)
    ]
    leaves = [c for c in classes if not any(o is not c and issubclass(o, c) for o in classes)]
    preferred = [
        c
        for c in leaves
        if c.__name__.lower() in (files[0].stem.lower(), "model", "net", "network")
    ]
    chosen = leaves if len(leaves) == 1 else preferred
    if len(chosen) != 1:
        names = ", ".join(c.__name__ for c in leaves) or "none"
        raise AmbiguousArtifact(
            f"{files[0].name} must have one nn.Module class (found: {names}); name it Model"
        )
    return chosen[0]
