"""Whose fault was it? The one place that turns an exception of user code into an answer.

The client's fault (its text reaches the client):

* `functions.errors.InvalidRequest` (400) and our other errors, with their own status;
* any exception with an integer attribute `status_code`, `error_code`, `http_status` or `code` from
  400 to 599: that status. TorchServe's `PredictionException(message, error_code)`, werkzeug's and
  requests-style exceptions, Seldon's microservice exception are such;
* KServe's `InvalidInput` (400), found by class name so that no SDK is imported;
* `KeyError` for `instances` or `inputs`: the body lacks what every V1 model needs (400);
* data that is not what it claims to be: `UnicodeDecodeError`, `json.JSONDecodeError`,
  `binascii.Error` (base64), PIL's `UnidentifiedImageError`, `DecompressionBombError` and its "image
  file is truncated".

Everything else, a plain `ValueError` or `KeyError` included, may as well be a bug of the model: 500
with a correlation id, the traceback in the log only. Raise `InvalidRequest` (or any of the above)
to tell the client what is wrong with its request; without importing anything of ours, define a
class with `status_code = 400`.
"""

import binascii
import json
import logging
import traceback
import uuid

from .errors import (
    FunctionsError,
    InvalidRequest,
    ModelFailed,
    ModelTimeout,
    NotSupported,
    StatusError,
)

logger = logging.getLogger(__name__)

_STATUS_ATTRIBUTES = ("status_code", "error_code", "http_status", "code")
_DATA_FAULTS = (UnicodeDecodeError, json.JSONDecodeError, binascii.Error)
_DATA_FAULT_NAMES = frozenset(
    {
        ("PIL", "UnidentifiedImageError"),
        ("PIL", "DecompressionBombError"),
        ("kserve", "InvalidInput"),
    }
)


def own_status(exc: BaseException) -> int | None:
    """The 4xx/5xx status an exception carries as an attribute, if any."""
    for name in _STATUS_ATTRIBUTES:
        value = getattr(exc, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return None


def is_data_fault(exc: BaseException) -> bool:
    """The exception says that the bytes given are not what they claim to be."""
    if isinstance(exc, _DATA_FAULTS):
        return True
    for cls in type(exc).__mro__:
        if (cls.__module__.split(".", 1)[0], cls.__name__) in _DATA_FAULT_NAMES:
            return True
    if isinstance(exc, OSError) and exc.errno is None:
        frames = traceback.extract_tb(exc.__traceback__)
        return bool(frames) and "/PIL/" in frames[-1].filename.replace("\\", "/")
    return False


def classify(
    exc: BaseException, model: str, request_id: str = "", stage: str = ""
) -> FunctionsError:
    """The error to answer with; `stage` is the hook it came from, where that is known.

    Unexpected exceptions are logged here, once, with their traceback.
    """
    if isinstance(exc, ModelTimeout) and stage:
        return ModelTimeout(exc.name, exc.timeout_s, stage)
    if isinstance(exc, FunctionsError):
        return exc
    status = own_status(exc)
    if status is not None:
        text = getattr(exc, "message", None) or getattr(exc, "description", None) or str(exc)
        return StatusError(status, str(text) or type(exc).__name__)
    if is_data_fault(exc):
        return InvalidRequest(f"{type(exc).__name__}: {exc}")
    if isinstance(exc, KeyError) and exc.args in (("instances",), ("inputs",)):
        return InvalidRequest(f'the body needs "{exc.args[0]}"')
    if isinstance(exc, NotImplementedError):
        return NotSupported(str(exc) or f"model {model} does not implement this")
    correlation_id = uuid.uuid4().hex
    logger.error(
        "%s raised %s",
        f"{stage} of model {model}" if stage else f"model {model}",
        type(exc).__name__,
        exc_info=exc,
        extra={"model": model, "correlation_id": correlation_id, "request_id": request_id},
    )
    failed = ModelFailed(model, correlation_id, stage)
    failed.__cause__ = exc
    return failed
