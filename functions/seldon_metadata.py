"""What a unit says of itself at `/metadata`: `init_metadata()`, a file `metadata.yaml` beside the
model, and MODEL_METADATA, each over the one before it, all checked (spec "init_metadata").
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .seldon_message import BAD_METADATA, BadResult

FILE = "metadata.yaml"
_DEFAULTS: dict[str, Any] = {
    "name": "",
    "versions": [],
    "platform": "",
    "inputs": [],
    "outputs": [],
    "custom": {},
}


class Metadata:
    """The document, or why there is none."""

    def __init__(self, document: Mapping[str, Any], problem: str = "") -> None:
        self.document = document
        self.problem = problem

    def read(self) -> Mapping[str, Any]:
        """Raises BadResult (BAD_METADATA)."""
        if self.problem:
            raise BadResult(f"Model metadata unavailable: {self.problem}", BAD_METADATA)
        return self.document


def collect(
    image: str, found: Any = None, directory: Path | None = None, environ_text: str = ""
) -> Metadata:
    """Put it together. `found` is what `init_metadata()` returned."""
    name, colon, version = image.rpartition(":")
    if "/" in version:  # a port of the registry, not a tag
        name, colon, version = "", "", ""
    document = {
        **_DEFAULTS,
        "name": name or image,
        "versions": [version] if colon else [],
    }
    try:
        for what, layer in (
            ("init_metadata()", found),
            (FILE, _file(directory)),
            ("MODEL_METADATA", _yaml(environ_text, "MODEL_METADATA")),
        ):
            if layer is None:
                continue
            if not isinstance(layer, Mapping):
                raise ValueError(f"{what} must give an object")
            document |= layer
        _check(document)
    except ValueError as exc:
        return Metadata({}, str(exc))
    return Metadata(document)


def _file(directory: Path | None) -> Any:
    path = directory / FILE if directory is not None else None
    if path is None or not path.is_file():
        return None
    try:
        return _yaml(path.read_text(encoding="utf-8"), FILE)
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{FILE} cannot be read: {exc}") from None


def _yaml(text: str, what: str) -> Any:
    if not text.strip():
        return None
    try:
        import yaml
    except ImportError:
        raise ValueError(f"{what} needs pyyaml: install the extra seldon") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(f"{what} is no YAML: {exc}") from None


def _check(document: Mapping[str, Any]) -> None:
    """Raises ValueError for what has no place in SeldonModelMetadata."""
    for key in document:
        if key not in _DEFAULTS:
            raise ValueError(f"{key!r} is none of {', '.join(_DEFAULTS)}")
    for key in ("name", "platform"):
        if not isinstance(document[key], str):
            raise ValueError(f"{key} must be a text")
    if not _all(document["versions"], str):
        raise ValueError("versions must be a list of texts")
    custom = document["custom"]
    if not isinstance(custom, Mapping) or not _all([*custom, *custom.values()], str):
        raise ValueError("custom must be an object of texts")
    for key in ("inputs", "outputs"):
        if not _all(document[key], Mapping):
            raise ValueError(f"{key} must be a list of objects")
        for entry in document[key]:
            _check_tensor(key, entry)


def _check_tensor(key: str, entry: Mapping[str, Any]) -> None:
    if "messagetype" in entry:
        if set(entry) <= {"messagetype", "schema"} and isinstance(entry["messagetype"], str):
            return
        raise ValueError(f"{key}: an entry with messagetype has only schema beside it")
    shape = entry.get("shape")
    if set(entry) == {"name", "datatype", "shape"} and _all(shape, int):
        return
    raise ValueError(f"{key}: an entry is messagetype and schema, or name, datatype and shape")


def _all(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)
