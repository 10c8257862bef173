"""Conditions judged together: which of them is the first to hold for a body?

`conditions` defines what a condition means, and always has the last word. This module only avoids
asking it the same question twice. Most conditions look at one top-level key
(`[@this].#(kind=="dog")`, `predictions.0.label`), so their verdict is a function of that key's
value alone. One C-speed pass over the body (msgspec, which is also the validity check) cuts out the
values of the keys that matter; a verdict is then looked up by value, and worked out at most once
per value, on a document that has just that key.

The short way is taken only when it provably gives the same answer: the condition's text names its
key plainly, the body is an object, and the key's name occurs in the body's text at most once (with
repeated keys GJSON has rules of its own) with no `\\u` escape that could spell it differently.
Everything else goes to `Condition.matches_valid`.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from router_fn import body as bodies

if TYPE_CHECKING:
    from router_fn.conditions import Condition

NONE: Final = -1
"""No condition holds."""
NOT_JSON: Final = -2
"""The body is not JSON, so nothing can be said of it."""

MAX_DECISIONS: Final = 1024
MAX_VALUE_BYTES: Final = 256
"""Decisions are remembered for short values only, and so many: a client cannot fill the memory."""

_KEY = r"[A-Za-z_][A-Za-z0-9_-]*"
_PLAIN = re.compile(rf"({_KEY})(?:\Z|([.|]))")
_QUERY = re.compile(
    rf"\[@this\]\.#\(\s*({_KEY})((?:\.[A-Za-z0-9_-]+)*)\s*(?:==?|!=|<=?|>=?|!?%)"
    r"""(?:\s*"[^"\\]*"\s*|[^()\[\]{}|#"\\~]*)\)"""
)

_PRESENCE, _SCALAR, _WHOLE = range(3)
"""How much of a value a condition looks at: whether it is there; itself unless it is a container
(which no comparison matches, spec 6.2); all of it."""


def looks_at(text: str) -> tuple[str, int] | None:
    """The one top-level key that a GJSON condition looks at, and how closely; None when that is not
    obvious."""
    match = _QUERY.fullmatch(text)
    if match is not None:
        return match[1], _WHOLE if match[2] else _SCALAR
    match = _PLAIN.match(text)
    if match is not None:
        return match[1], _WHOLE if match[2] else _PRESENCE
    return None


class Decider:
    """Several conditions on the same body, in order."""

    def __init__(self, conditions: Sequence["Condition"]) -> None:
        self._conditions = tuple(conditions)
        self.text = " | ".join(condition.text for condition in conditions)
        looks = [looks_at(condition.text) for condition in conditions]
        self._cut: Callable[[bytes], Any] | None = None
        if looks and None not in looks:
            self._prepare([look for look in looks if look is not None])

    def _prepare(self, looks: list[tuple[str, int]]) -> None:
        try:
            import msgspec
        except ImportError:
            return
        names = sorted({name for name, _ in looks})
        fields = [
            (f"f{i}", msgspec.Raw, msgspec.field(default=msgspec.Raw())) for i in range(len(names))
        ]
        rename = {f"f{i}": name for i, name in enumerate(names)}
        shape = msgspec.defstruct("Judged", fields, rename=rename, frozen=True)
        self._cut = msgspec.json.Decoder(shape).decode
        self._refused = (msgspec.DecodeError, RecursionError)
        self._names = [b'"%b"' % name.encode() for name in names]
        self._places = [names.index(name) for name, _ in looks]
        self._closely = [max(how for name, how in looks if name == one) for one in names]
        self._decisions: dict[bytes, int] = {}

    def first(self, body: bytes) -> int:
        """Index of the first condition that holds, NONE, or NOT_JSON."""
        if self._cut is not None:
            try:
                judged = self._cut(body)
            except self._refused:
                pass
            else:
                # One character is looked for eight times as fast as two.
                if b"\\" not in body or b"\\u" not in body:
                    for name in self._names:
                        if body.count(name) > 1:
                            break
                    else:
                        return self._look_up(judged)
        if not bodies.is_json(body):
            return NOT_JSON
        for index, condition in enumerate(self._conditions):
            if condition.matches_valid(body):
                return index
        return NONE

    def _look_up(self, judged: Any) -> int:
        """The decision for these values, worked out the first time they are seen."""
        if len(self._names) == 1:
            key = _reduce(bytes(judged.f0), self._closely[0])
            values: tuple[bytes, ...] = (key,)
        else:
            values = tuple(
                _reduce(bytes(getattr(judged, f"f{i}")), how) for i, how in enumerate(self._closely)
            )
            key = b"\0".join(values)  # no JSON text holds a NUL
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._decide(values)
            if len(key) <= MAX_VALUE_BYTES:
                if len(self._decisions) >= MAX_DECISIONS:
                    self._decisions.clear()
                self._decisions[key] = decision
        return decision

    def _decide(self, values: tuple[bytes, ...]) -> int:
        for index, (place, condition) in enumerate(
            zip(self._places, self._conditions, strict=True)
        ):
            value = values[place]
            document = b"{%b:%b}" % (self._names[place], value) if value else b"{}"
            if condition.matches_valid(document):
                return index
        return NONE


def _reduce(value: bytes, how: int) -> bytes:
    """What is left of a value for a condition that looks only so closely; empty stays empty
    (absent)."""
    if how == _SCALAR:
        first = value[:1]
        return b"[]" if first == b"[" else b"{}" if first == b"{" else value
    return value if how == _WHOLE or not value else b"0"
