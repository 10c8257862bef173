"""JSONPath on JSON bodies: the only door to jsonpath-ng, loaded when a path begins with `$`.

jsonpath-ng's extended grammar: filters `[?(@.score > 0.5)]`, sorting, arithmetic, `len`. Documents
are decoded by the standard library; one that is too deeply nested for it finds nothing.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


class JsonPathError(ValueError):
    """The text is not a JSONPath."""


class JsonPath:
    """A compiled JSONPath."""

    def __init__(self, text: str, find: Callable[[Any], Any]) -> None:
        self.text = text
        self._find = find

    def find(self, body: bytes) -> list[Any]:
        """All values found, decoded; none if the body cannot be decoded or searched."""
        try:
            document = json.loads(body.decode("utf-8", "replace"), parse_constant=_no_constant)
            return [match.value for match in self._find(document)]
        except Exception as error:
            # Filters compare whatever they meet (a string with a number, an attribute of None), and
            # the library raises as it likes; a condition that cannot be judged does not hold.
            logger.debug("JSONPath %s not applicable: %s", self.text, error)
            return []


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def compile_jsonpath(text: str) -> JsonPath:
    """Parse; raises JsonPathError with the reason, also if jsonpath-ng is not installed."""
    try:
        from jsonpath_ng.ext import parse  # type: ignore[attr-defined]
    except ImportError as error:
        raise JsonPathError(
            f"{text!r} is a JSONPath and needs jsonpath-ng: install the extra router-jsonpath"
        ) from error
    try:
        return JsonPath(text, parse(text).find)
    except Exception as error:  # its lexer and parser raise bare Exception, too
        raise JsonPathError(f"{text!r} is not a JSONPath: {error}") from error
