"""The `mlflow` runtime: the pyfunc flavour of an MLmodel directory, in this process.

No environment is built at start (Seldon's server took minutes for that): what the model needs must
be in the image, and what differs from its recorded requirements is logged. Loading runs code of the
artifact.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functions import tensors
from functions.errors import InvalidRequest, LoadFailed, NoArtifact
from functions.inference import InferRequest, InferResponse, Tensor, new_id
from functions.model import Call, Item, ModelInfo, ServedModel, TensorSpec

from .rows import RowModel

if TYPE_CHECKING:
    from functions.settings import Settings

logger = logging.getLogger(__name__)

_TYPES = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64",
    "string": "BYTES", "binary": "BYTES",
}  # fmt: skip


def find(directory: Path) -> Path:
    if (directory / "MLmodel").is_file():
        return directory
    found = sorted(path.parent for path in directory.glob("*/MLmodel"))
    if len(found) == 1:
        return found[0]
    raise NoArtifact(f"{directory} has no MLmodel file")


class MlflowModel(RowModel):
    """Feature names become DataFrame columns when the model's signature has them."""

    inline = False

    def __init__(self, model: Any, threads: int) -> None:
        signature = getattr(model.metadata, "signature", None)
        inputs = signature.inputs if signature is not None else None
        names = (
            tuple(inputs.input_names()) if inputs is not None and inputs.has_input_names() else ()
        )
        super().__init__(
            model.predict,
            platform="mlflow_pyfunc",
            features=() if inputs is not None and inputs.is_tensor_spec() else names,
            n_features=len(names) or None,
            frames=True,
            threads=threads,
        )
        self._tensor_names = names if inputs is not None and inputs.is_tensor_spec() else ()
        self._types = {}
        if inputs is not None and not inputs.is_tensor_spec():
            self._types = {c.name: str(c.type).rpartition(".")[2] for c in inputs.inputs if c.name}
            self.info = ModelInfo(
                platform="mlflow_pyfunc",
                inputs=tuple(
                    TensorSpec(name=name, datatype=_TYPES.get(kind, "BYTES"), shape=(-1,))
                    for name, kind in self._types.items()
                ),
                outputs=self.info.outputs,
            )

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        return self._typed(super().prepare(kind, payload, call))

    def seldon_input(self, matrix: Any, names: Sequence[str]) -> Item:
        item = super().seldon_input(matrix, names)
        if not self._features and names and matrix.ndim == 2:
            if len(names) != matrix.shape[1]:
                raise InvalidRequest(f"{len(names)} names for {matrix.shape[1]} columns")
            item.data = self._columns(names, matrix)
        return self._typed(item)

    def _typed(self, item: Item) -> Item:
        """Columns and their types as the model's schema has them."""
        if isinstance(item.data, np.ndarray) and self._features and item.data.ndim == 2:
            if item.data.shape[1] != len(self._features):
                raise InvalidRequest(
                    f"the model takes the {len(self._features)} features"
                    f" {', '.join(self._features)}"
                )
            item.data = self._columns(self._features, item.data)
            item.key = None
        if self._types and hasattr(item.data, "astype") and hasattr(item.data, "columns"):
            casts = {"long": "int64", "integer": "int32", "double": "float64", "float": "float32"}
            wanted = {n: casts[k] for n, k in self._types.items() if k in casts and n in item.data}
            try:
                item.data = item.data.astype(wanted)
            except (ValueError, TypeError) as exc:
                raise InvalidRequest(f"a feature has the wrong type: {exc}") from None
        return item

    def answer(self, item: Item) -> Any:
        result = item.output
        if item.kind == "infer" and hasattr(result, "columns"):
            request: InferRequest = item.payload
            outputs = [Tensor(str(c), data=result[c].to_numpy()) for c in result.columns]
            return InferResponse(request.id or new_id(), request.model_name, outputs)
        if hasattr(result, "columns"):
            return {"predictions": result.to_dict(orient="records")}
        return super().answer(item)

    def run(self, items: list[Item]) -> None:
        from mlflow.exceptions import MlflowException

        for item in items:
            try:
                result = self._predict(item.data)
            except MlflowException as problem:
                raise InvalidRequest(
                    f"the model refuses this input: {problem.message}"
                ) from problem
            except (ValueError, TypeError) as problem:
                raise InvalidRequest(f"the model refuses this input: {problem}") from problem
            item.output = result if hasattr(result, "columns") else tensors.as_array(result)


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    folder = find(directory)
    if not settings.allow_pickle:
        raise LoadFailed(
            "an MLmodel directory can run any code while loading, and --allow-pickle is false:"
            " serve the"
            " native format (ONNX, xgboost, lightgbm) instead"
        )
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    except ModuleNotFoundError as exc:
        raise LoadFailed(f"the model needs the module {exc.name}: put it into the image") from exc
    except MlflowException as exc:
        raise LoadFailed(f"{folder} cannot be loaded: {exc.message}") from exc
    return MlflowModel(model, settings.threads or 1)
