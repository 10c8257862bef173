"""TorchServe's contract with a handler, without TorchServe: context, request processors, entry
points.

A handler is a class with `initialize(context)` and `handle(data, context)`, or a module-level
function (called once with `None` data to initialise). `data` is a list with one item per instance.
Handlers that build on `ts.torch_handler.base_handler` work when the torchserve package is
installed.
"""

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from functions import loader
from functions.errors import AmbiguousArtifact, LoadFailed, MissingExtra

logger = logging.getLogger(__name__)

Entry = Callable[[Any, "Context"], Any]


class Metrics:
    """What handlers call on `context.metrics`; values are kept per name for the metrics
    endpoint."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.request_ids: Any = None

    def add_time(
        self, name: str, value: float, idx: Any = None, unit: str = "ms", **_: Any
    ) -> None:
        self.values[name] = float(value)

    def add_counter(self, name: str, value: float = 1, idx: Any = None, **_: Any) -> None:
        self.values[name] = self.values.get(name, 0.0) + float(value)

    def add_size(
        self, name: str, value: float, idx: Any = None, unit: str = "MB", **_: Any
    ) -> None:
        self.values[name] = float(value)

    def add_percent(self, name: str, value: float, idx: Any = None, **_: Any) -> None:
        self.values[name] = float(value)

    def add_error(self, name: str, value: Any, **_: Any) -> None:
        logger.warning("handler reported %s: %s", name, value)

    def add_metric(self, name: str, value: float, unit: str = "", **_: Any) -> None:
        self.values[name] = float(value)


class RequestProcessor:
    """Headers of one instance's request, and the status a handler may set for it."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._response_headers: dict[str, str] = {}
        self.status = 200
        self.phrase: str | None = None

    def get_request_property(self, key: str) -> str | None:
        return self._headers.get(key, self._headers.get(key.lower()))

    def get_request_properties(self) -> Mapping[str, str]:
        return self._headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self.status = code
        self.phrase = reason_phrase

    def get_response_status_code(self) -> int:
        return self.status

    def get_response_status_phrase(self) -> str | None:
        return self.phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_headers[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_headers

    def get_response_header(self, key: str) -> str | None:
        return self._response_headers.get(key)


class Context:
    """What TorchServe hands to `initialize` and `handle`."""

    def __init__(
        self, model_name: str, model_dir: Path, manifest: dict[str, Any], config: dict[str, Any]
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config = config
        self.metrics = Metrics()
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] = []
        self.stopping_criteria = None
        self.system_properties: dict[str, Any] = {
            "model_dir": str(model_dir),
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "turnout",
            "server_version": "0.12.0",
            "limit_max_image_pixels": True,
        }

    def get_request_id(self, idx: int = 0) -> str | None:
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, str]:
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        return self.request_processor[idx].status, self.request_processor[idx].phrase

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.request_processor[idx].add_response_property(key, value)


def read_config(directory: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """The archive's `model-config.yaml`; {} when it has none."""
    name = model.get("configFile")
    if not name:
        return {}
    try:
        import yaml
    except ImportError as exc:
        raise MissingExtra("PyYAML", "pytorch") from exc
    try:
        config = yaml.safe_load((directory / name).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise LoadFailed(f"{name} in the archive cannot be read: {exc}") from exc
    return config if isinstance(config, dict) else {}


def load_entry(handler: str, directory: Path) -> tuple[Entry, Callable[[Context], Any], Any]:
    """The handler's (handle, initialize, instance) for a manifest's `handler` value.

    `file.py`, `file`, `file.py:function`, or the name of a default handler of torchserve.
    """
    module_part, _, function = handler.partition(":")
    file = directory / (module_part if module_part.endswith(".py") else module_part + ".py")
    if not file.is_file():
        file = directory / Path(file.name).name
    module = loader.load_file(file) if file.is_file() else _default_handler(module_part, directory)
    function = function or "handle"
    entry = vars(module).get(function)
    if callable(entry):
        return entry, lambda context: entry(None, context), module
    classes = [c for c in loader.defined_classes(module) if callable(getattr(c, "handle", None))]
    leaves = [c for c in classes if not any(o is not c and issubclass(o, c) for o in classes)]
    if not leaves:
        raise LoadFailed(
            f"handler {handler} has neither a function {function}(data, context) nor a class"
            " with handle"
        )
    if len(leaves) > 1:
        names = ", ".join(c.__name__ for c in leaves)
        raise AmbiguousArtifact(
            f"handler {handler} has several handler classes ({names}): keep one"
        )
    instance = leaves[0]()
    initialize = getattr(instance, "initialize", None)
    return instance.handle, initialize if callable(initialize) else (lambda _: None), instance


def _default_handler(name: str, directory: Path) -> Any:
    try:
        return importlib.import_module(f"ts.torch_handler.{name}")
    except ModuleNotFoundError as exc:
        if exc.name in (None, f"ts.torch_handler.{name}"):
            known = ", ".join(sorted(p.name for p in directory.glob("*.py"))) or "no Python files"
            raise LoadFailed(
                f"handler {name} is neither in the archive ({known}) nor one of torchserve's"
            ) from exc
        if exc.name == "ts" or exc.name.startswith("ts."):
            raise LoadFailed(
                f"handler {name} is one of torchserve's: pip install torchserve, or pack a"
                " handler file"
            ) from exc
        raise
