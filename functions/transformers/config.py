"""Reading a transformer's configuration: a JSON or YAML file, or JSON text itself."""

import json
from pathlib import Path
from typing import Any

from functions.errors import ConfigurationError

_FLAG = "--transformer-config"


def read(source: str) -> dict[str, Any]:
    """The mapping in a file (`.yaml` and `.yml` need pyyaml), or in `source` itself when it begins
    with `{`. Raises ConfigurationError."""
    if source.lstrip()[:1] == "{":
        return _mapping(_parse(source, "its JSON"), "its JSON")
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            [f"{_FLAG}: {source!r} cannot be read ({reason}): give a file, or JSON in braces"]
        ) from None
    if source.endswith((".yaml", ".yml")):
        return _mapping(_parse_yaml(text, source), source)
    return _mapping(_parse(text, source), source)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError([f"{_FLAG}: {where} is not JSON: {error}"]) from None


def _parse_yaml(text: str, where: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            [f"{_FLAG}: {where} is YAML, which needs pyyaml: install turnout[cli] or write JSON"]
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise ConfigurationError([f"{_FLAG}: {where} is not YAML: {line}"]) from None


def _mapping(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ConfigurationError([f"{_FLAG}: {where} must be a mapping of parameters"])
    return {str(name): value for name, value in found.items()}
