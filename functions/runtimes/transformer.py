"""The ready-made transformers of `functions.transformers`, in front of a predictor."""

from pathlib import Path
from typing import TYPE_CHECKING

from functions import transformers
from functions.model import ServedModel

from .kserve_hooks import KServeHooks

if TYPE_CHECKING:
    from functions.settings import Settings

THREADS = 4
"""Pictures and texts in work at once; waiting for the predictor takes no thread."""


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    """Raises LoadFailed, or ConfigurationError for parameters that are wrong."""
    from functions.predictor import Predictor

    chosen = transformers.plan(settings.transformer, settings.transformer_config, settings.param)
    place = transformers.Place(
        model_name=name,
        directory=directory,
        predictor_protocol=settings.predictor_protocol,
        predictor=settings.predictor_host,
    )
    hooks = transformers.build(chosen, place)
    threads = settings.threads or THREADS
    return KServeHooks(hooks, name=name, predictor=Predictor(name, settings), threads=threads)
