"""The `lightgbm` runtime: a Booster saved as text (.txt, .bst, .model). No code of the artifact
is run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions import cpu
from functions.errors import LoadFailed
from functions.model import ServedModel

from .files import one_model
from .rows import RowModel, numbers

if TYPE_CHECKING:
    from functions.settings import Settings

SUFFIXES = (".txt", ".bst", ".lgb", ".model")


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    file = one_model(directory, SUFFIXES)
    import lightgbm

    threads = cpu.library_threads(settings)
    try:
        booster = lightgbm.Booster(model_file=str(file))
    except lightgbm.basic.LightGBMError as exc:
        raise LoadFailed(f"{file.name} cannot be loaded: {exc}") from exc
    width = booster.num_feature()

    def predict(rows: Any) -> Any:
        matrix = numbers(rows)
        if matrix.ndim != 2 or matrix.shape[1] != width:
            raise ValueError(f"the model takes rows of {width} features, got {list(matrix.shape)}")
        return booster.predict(matrix, num_threads=threads)

    return RowModel(
        predict, platform="lightgbm", features=tuple(booster.feature_name()), n_features=width
    )
