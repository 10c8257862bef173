"""JSONPath on JSON bodies: the only door to jsonpath-ng, loaded when a path begins with `$`.

jsonpath-ng's extended grammar: filters `[?(@.score > 0.5)]`, sorting, arithmetic, `len`. Documents
are decoded by the standard library; one that is too deeply nested for it finds nothing.

Regular expressions (`=~`) are Go's, as in `PROPAGATE_HEADERS`, and take linear time: with Python's
`re`, which the library would use, a short string of a client could keep a process busy for days.
"""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

from router_fn import re2

logger = logging.getLogger(__name__)

_BEYOND_LATIN_1 = re.compile("[^\x00-\xff]")


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
        path = parse(text)
    except Exception as error:  # its lexer and parser raise bare Exception, too
        raise JsonPathError(f"{text!r} is not a JSONPath: {error}") from error
    try:
        return JsonPath(text, _with_linear_regexes(path).find)
    except re2.PatternError as error:
        raise JsonPathError(f"{text!r}: {error}") from error


def _with_linear_regexes(path: Any) -> Any:
    """The parsed path with every use of Python's `re` replaced, or refused."""
    from jsonpath_ng.ext.filter import Expression
    from jsonpath_ng.ext.string import Sub

    class Matches(Expression):  # type: ignore[misc, unused-ignore]
        """`target =~ pattern`: the targets that are strings in which the pattern is found."""

        def __init__(self, target: Any, pattern: str) -> None:
            super().__init__(target, "=~", pattern)
            self._search = re2.compile_search(pattern)

        def find(self, datum: Any) -> list[Any]:
            found = self.target.find(datum)
            return [match for match in found if self._holds(match.value)]

        def _holds(self, value: Any) -> bool:
            # The automaton knows Latin-1; what is beyond it is "some other character".
            return isinstance(value, str) and self._search(_BEYOND_LATIN_1.sub("\xff", value))

    def replaced(node: Any) -> Any:
        if isinstance(node, Sub):
            raise re2.PatternError("`sub()` is not offered: its pattern can take endless time")
        if isinstance(node, (list, tuple)):
            return type(node)(replaced(item) for item in node)
        if type(node).__module__.startswith("jsonpath_ng"):
            for name, value in vars(node).items():
                setattr(node, name, replaced(value))
            if isinstance(node, Expression) and node.op == "=~":
                return Matches(node.target, str(node.value))
        return node

    return replaced(path)
