"""The `xgboost` runtime: a saved Booster (.json, .ubj, .bst, .model). No code of the artifact is
run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functions import cpu
from functions.errors import LoadFailed
from functions.model import ServedModel

from .files import one_model
from .rows import RowModel, numbers

if TYPE_CHECKING:
    from functions.settings import Settings

SUFFIXES = (".json", ".ubj", ".bst", ".xgb")


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    file = one_model(directory, SUFFIXES)
    import xgboost

    threads = cpu.library_threads(settings)
    try:
        booster = xgboost.Booster({"nthread": threads}, model_file=str(file))
    except (xgboost.core.XGBoostError, UnicodeDecodeError) as exc:  # the latter: cut off
        raise LoadFailed(f"{file.name} cannot be loaded: {str(exc).splitlines()[0]}") from exc
    features = tuple(booster.feature_names or ())
    width = booster.num_features()

    def predict(rows: Any) -> Any:
        matrix = numbers(rows)
        if matrix.ndim != 2 or matrix.shape[1] != width:
            raise ValueError(f"the model takes rows of {width} features, got {list(matrix.shape)}")
        # inplace_predict skips the DMatrix copy; base_margin and categories are not served here.
        return booster.inplace_predict(
            np.ascontiguousarray(matrix, dtype=np.float32), validate_features=False
        )

    return RowModel(predict, platform="xgboost", features=features, n_features=width)
