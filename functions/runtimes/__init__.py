"""One model library a file, imported when a model of its kind is loaded and never before.

`build(runtime, ...)` is the only way in: it imports the runtime's module by name.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from functions.errors import LoadFailed, MissingExtra
from functions.model import ServedModel

from . import files

if TYPE_CHECKING:
    from functions.settings import Settings

MODULES = {
    "python": "python",
    "pytorch": "pytorch",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "onnx": "onnx",
    "mlflow": "mlflow",
    "tensorflow": "tensorflow",
    "huggingface": "huggingface",
    "transformer": "transformer",
}
"""Runtime -> module of this package with `build(name, directory, settings) -> ServedModel`."""

LIBRARIES = {
    "torch": "pytorch",
    "sklearn": "sklearn",
    "joblib": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "onnxruntime": "onnx",
    "mlflow": "mlflow",
    "tensorflow": "tensorflow",
    "transformers": "huggingface",
    "numpy": "sklearn",
}
"""Import name -> the extra that brings it."""


def build(runtime: str, name: str, directory: Path, settings: "Settings") -> ServedModel:
    """Load a model. Raises LoadFailed (MissingExtra when the library is not installed)."""
    if runtime not in MODULES:
        raise LoadFailed(f"there is no runtime {runtime}")
    module = importlib.import_module(f"{__name__}.{MODULES[runtime]}")
    try:
        model: ServedModel = module.build(name, directory, settings)
    except ModuleNotFoundError as exc:
        if exc.name in LIBRARIES:
            raise MissingExtra(exc.name, LIBRARIES[exc.name]) from exc
        raise
    version = files.mlserver_parameters(directory).get("version")
    if version and not model.info.versions:
        model.info.versions = (str(version),)
    return model
