"""The `sklearn` runtime: one pickled or joblib-dumped estimator.

Loading a pickle runs code from it; `--allow-pickle false` refuses.
"""

import importlib.util
import logging
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions.errors import LoadFailed, MissingExtra
from functions.model import ServedModel

from .files import one_model

if TYPE_CHECKING:
    from functions.settings import Settings

logger = logging.getLogger(__name__)

SUFFIXES = (".joblib", ".pkl", ".pickle")
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    """Load the estimator. Raises LoadFailed."""
    file = one_model(directory, SUFFIXES)
    if not settings.allow_pickle:
        raise LoadFailed(
            f"{file.name} is a pickle, which can run any code while loading, and --allow-pickle"
            " is false:"
            " export the model to ONNX instead"
        )
    method = str(dict(settings.param).get("method", "predict"))
    if method not in METHODS:
        raise LoadFailed(f"--param method={method}: expected one of {', '.join(METHODS)}")
    estimator = load(file)
    if settings.predict_proba and hasattr(estimator, "predict_proba"):
        method = "predict_proba"
    function = getattr(estimator, method, None)
    if not callable(function):
        raise LoadFailed(f"{type(estimator).__name__} has no method {method}")
    return _wrap(estimator, function)


def load(file: Path) -> Any:
    """Unpickle, with errors that say what to do."""
    try:
        import joblib
    except ImportError as exc:
        raise MissingExtra("scikit-learn", "sklearn") from exc
    try:
        return joblib.load(file)
    except ModuleNotFoundError as exc:
        raise LoadFailed(
            f"{file.name} needs the module {exc.name}, which is not installed here: put it into"
            " the image"
        ) from exc
    except (EOFError, KeyError, ValueError, IndexError, AttributeError) as exc:
        raise LoadFailed(
            f"{file.name} cannot be unpickled ({type(exc).__name__}: {exc}): is it complete, and"
            " was it"
            " written with a compatible scikit-learn?"
        ) from exc


def _is_finite(rows: Any) -> bool:
    """No NaN and no infinity; False also when the sum of finite values overflows, which is
    harmless."""
    # For a few values Python's own sum is several times quicker than a reduction in numpy.
    total = sum(rows.ravel().tolist()) if rows.size <= 64 else rows.sum()
    return math.isfinite(total)


def _wrap(estimator: Any, function: Any) -> ServedModel:
    import numpy as np
    import sklearn

    from .rows import RowModel

    configured = threading.local()

    def predict(rows: Any) -> Any:
        """Whether an input is finite is found out here, more cheaply than sklearn does; its own
        check
        (which knows whether the model bears NaN) runs only if it is not."""
        if type(rows) is np.ndarray and (
            rows.dtype.kind in "iub" or (rows.dtype.kind == "f" and _is_finite(rows))
        ):
            if not hasattr(configured, "done"):  # sklearn's configuration is per thread
                sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
                configured.done = True
            return function(rows)
        with sklearn.config_context(assume_finite=False):
            return function(rows)

    features = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    n_features = getattr(estimator, "n_features_in_", None)
    return RowModel(
        predict,
        platform="sklearn",
        features=features,
        n_features=int(n_features) if isinstance(n_features, int) else None,
        texts=_takes_texts(estimator),
        frames=bool(features) and importlib.util.find_spec("pandas") is not None,
    )


def _takes_texts(estimator: Any) -> bool:
    """The first step is one of sklearn's text vectorisers."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    steps = getattr(estimator, "steps", None)
    return hasattr(steps[0][1] if steps else estimator, "build_analyzer")
