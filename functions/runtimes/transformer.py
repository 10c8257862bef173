"""The ready-made transformers of `functions.transformers`, in front of a predictor."""

from pathlib import Path
from typing import TYPE_CHECKING

from functions import transformers
from functions.model import ServedModel

from .python import KServeHooks

if TYPE_CHECKING:
    from functions.settings import Settings

THREADS = 16
"""Calls at once: most of their time is waiting for the predictor."""


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    """Raises LoadFailed, or ConfigurationError for parameters that are wrong."""
    from functions.upstream import Predictor  # requests

    chosen = transformers.plan(settings.transformer, settings.transformer_config, settings.param)
    place = transformers.Place(
        model_name=name,
        directory=directory,
        predictor_protocol=settings.predictor_protocol,
        predictor=settings.predictor_host,
    )
    hooks = transformers.build(chosen, place)
    threads = settings.threads or THREADS
    return KServeHooks(hooks, predict=Predictor(name, settings), threads=threads)
