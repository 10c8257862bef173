"""Classes that extend `kserve.Model` (or were written for it), unchanged.

KServe is imported only when user code has imported it; nothing here needs it.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from functions.context import Remote
from functions.errors import LoadFailed
from functions.inference import InferRequest, InferResponse, Tensor

if TYPE_CHECKING:
    from functions.settings import Settings


def protocol_name(settings: "Settings") -> str:
    """KServe's name of the protocol to the predictor; its default is v1."""
    chosen = settings.predictor_protocol
    return "v1" if chosen == "auto" else chosen


def flags(name: str, settings: "Settings") -> dict[str, Any]:
    """KServe's flags of a transformer, by their names."""
    return {
        "model_name": name,
        "predictor_host": settings.predictor_host,
        "predictor_protocol": protocol_name(settings),
        "protocol": protocol_name(settings),
        "predictor_use_ssl": settings.predictor_use_ssl,
        "predictor_request_timeout_seconds": max(1, int(settings.predictor_timeout_s)),
        "predictor_request_retries": settings.predictor_retries,
    }


@contextlib.contextmanager
def command_line(name: str, directory: str, settings: "Settings") -> Iterator[None]:
    """Importing kserve parses `sys.argv`, and so do the scripts of its examples: while user code
    is imported, they find what KServe's own container would have been started with, and `--param`
    as flags. Raises LoadFailed when they give up."""
    kept = sys.argv
    given: dict[str, Any] = {"model_name": name, "model_dir": directory}
    if settings.predictor_host:
        given |= flags(name, settings)
    given |= dict(settings.param)
    sys.argv = [kept[0] if kept else "functions"]
    for flag, value in given.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        sys.argv += [f"--{flag}", text]
    try:
        yield
    except SystemExit as exc:
        raise LoadFailed(
            f"the code ended with SystemExit({exc.code!r}) while it was loaded. If it wants flags"
            " of its own (stderr has its words), give them as --param NAME=VALUE"
        ) from exc
    finally:
        sys.argv = kept


def predictor_config(settings: "Settings") -> Any:
    """KServe's PredictorConfig, or an object with its attributes where kserve is not installed."""
    values = flags("", settings)
    del values["model_name"], values["protocol"]
    with contextlib.suppress(ImportError):
        return importlib.import_module("kserve").PredictorConfig(**values)
    return SimpleNamespace(**values, protocol=values["predictor_protocol"])


def is_kserve_model(target: Any) -> bool:
    """The class extends one of KServe's: its hooks expect KServe's own request classes."""
    return any(cls.__module__.split(".", 1)[0] == "kserve" for cls in type(target).__mro__)


def adopt(target: Any) -> None:
    """`await super().predict(...)` of its class takes our way to the predictor: with its deadline,
    patience, TLS, connections and errors, which KServe's clients lack."""
    from functions import public

    for cls in type(target).__mro__:
        if cls.__module__.split(".", 1)[0] == "kserve" and "predict" in vars(cls):
            cls.predict = public.Model.predict  # type: ignore[attr-defined]


def answering(remote: Remote) -> Remote:
    """The predictor's InferResponses as KServe's."""

    async def ask(payload: Any, call: Any, headers: Mapping[str, str] | None = None) -> Any:
        return to_kserve(await remote(payload, call, headers))

    return ask


def enter(settings: "Settings") -> None:
    """`self.predictor_config` of a kserve.Model comes from a context variable: set it for the
    running task."""
    module = sys.modules.get("kserve.context")
    if module is not None and settings.predictor_host:
        module.set_predictor_config(predictor_config(settings))


def to_kserve(payload: Any) -> Any:
    """Our request and response objects as KServe's; anything else as it is."""
    if isinstance(payload, InferRequest):
        types = _types()
        return types.InferRequest(
            payload.model_name,
            [_tensor(types.LazyInput, tensor) for tensor in payload.inputs],
            request_id=payload.id or None,
            from_grpc=payload.from_grpc,
            parameters=payload.parameters,
            model_version=payload.model_version or None,
        )
    if isinstance(payload, InferResponse):
        types = _types()
        return types.InferResponse(
            payload.id,
            payload.model_name,
            [_tensor(types.LazyOutput, tensor) for tensor in payload.outputs],
            model_version=payload.model_version or None,
            parameters=payload.parameters,
        )
    return payload


def _tensor(kind: Any, tensor: Tensor) -> Any:
    made = kind(tensor.name, list(tensor.shape), tensor.datatype, parameters=tensor.parameters)
    made.ours = tensor
    return made


@cache
def _types() -> Any:
    """KServe's classes, whose data is ours until somebody replaces it."""
    kserve: Any = importlib.import_module("kserve")

    class Lazy:
        ours: Any = None
        shape: list[int]
        _data: Any
        _raw_data: Any = None

        @property
        def untouched(self) -> Any:
            """Our tensor, unless somebody gave this one other contents."""
            if self._data is not None or self._raw_data is not None or self.ours is None:
                return None
            return self.ours if self.ours.shape == self.shape else None

        @property
        def data(self) -> Any:
            if self._data is None and self._raw_data is None and self.ours is not None:
                self._data = self.ours.data
            return self._data

        @data.setter
        def data(self, data: Any) -> None:
            self._data = data

        def as_numpy(self) -> Any:
            if self._data is None and self._raw_data is None and self.ours is not None:
                return self.ours.as_numpy().reshape(self.shape)
            return super().as_numpy()  # type: ignore[misc]

    lazy_input = type("InferInput", (Lazy, kserve.InferInput), {})
    lazy_output = type("InferOutput", (Lazy, kserve.InferOutput), {})
    return SimpleNamespace(
        InferRequest=kserve.InferRequest,
        InferResponse=kserve.InferResponse,
        LazyInput=lazy_input,
        LazyOutput=lazy_output,
    )
