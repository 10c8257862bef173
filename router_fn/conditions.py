"""Conditions of graph steps: text compiled once at boot, then asked for each body.

A condition is a GJSON path and holds if the path exists in the document, whatever value it has
(KServe; spec 6 and 7). One that begins with `$` is a JSONPath and holds if it finds something.
`matches_valid` is for callers that know that the body is JSON, `matches` checks that first.
"""

from typing import Final, Protocol

from router_fn import body as bodies
from router_fn import gjson
from router_fn.gjson.advice import constant_of, slip_of
from router_fn.gjson.evaluate import Exhausted, Work, find
from router_fn.gjson.paths import Path
from router_fn.gjson.shapes import specialise

# Each step of a path keeps the text behind it, so this bounds what a path may come to in memory.
MAX_PATH_COST: Final = 64 << 20


class ConditionError(ValueError):
    """The condition can never be judged: a JSONPath that does not parse."""


class Condition(Protocol):
    """A compiled condition."""

    text: str
    constant: bool | None
    """True or False if it holds for every, or for no, JSON document; None if it depends."""
    reason: str
    """Why it is constant, or else what looks like a slip; worth a warning at boot. Often empty."""

    def matches(self, body: bytes) -> bool: ...

    def matches_valid(self, body: bytes) -> bool: ...


class _GjsonCondition:
    """The general case: the path is looked up."""

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.constant, self.reason = constant_of(path)
        if self.constant is None:
            self.reason = slip_of(text)
        self._path = path
        self._fast = specialise(path)

    def matches_valid(self, body: bytes) -> bool:
        if self._fast is not None:
            verdict = self._fast(body)
            if verdict is not None:
                return verdict
        try:
            return find(body, self._path, Work(len(body), self._path)) is not None
        except Exhausted:
            return False

    def matches(self, body: bytes) -> bool:
        return bodies.is_json(body) and self.matches_valid(body)


class _NeverCondition:
    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        self.constant: bool | None = False
        self.reason = reason

    def matches_valid(self, body: bytes) -> bool:
        return False

    matches = matches_valid


class _JsonPathCondition:
    def __init__(self, text: str) -> None:
        from router_fn import jsonpath

        self.text = text
        self.constant: bool | None = True if text == "$" else None
        self.reason = "`$` is the document itself" if text == "$" else ""
        try:
            self._find = jsonpath.compile_jsonpath(text).find
        except jsonpath.JsonPathError as error:
            raise ConditionError(str(error)) from error

    def matches_valid(self, body: bytes) -> bool:
        return bool(self._find(body))

    def matches(self, body: bytes) -> bool:
        return bodies.is_json(body) and bool(self._find(body))


def compile_condition(text: str) -> Condition:
    """Compile a condition; raises ConditionError for a JSONPath that cannot be parsed.

    Any other text compiles: a GJSON path that makes no sense matches nothing, as in KServe.
    """
    if text.startswith("$"):
        return _JsonPathCondition(text)
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) * (1 + sum(raw.count(mark) for mark in (b".", b"|", b"#", b","))) > MAX_PATH_COST:
        return _NeverCondition(text, "the path has too many steps")
    return _GjsonCondition(text, gjson.Path(raw))
