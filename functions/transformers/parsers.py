"""One parameter of a ready-made transformer, and the parsers of its values: text in, value out.

Parsers raise ValueError whose text is the expectation, as those of `functions.options`.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from functions import options as o


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a transformer."""

    name: str
    parse: o.Parser
    default: Any
    help: str
    shown: str = ""
    """The default as the documentation prints it, where it is not the value itself."""


@dataclass(frozen=True, slots=True)
class Size:
    """`256` is the shorter side (`height` is 0), `28x32` is exactly HEIGHT x WIDTH."""

    side: int = 0
    height: int = 0
    width: int = 0

    def __bool__(self) -> bool:
        return bool(self.side or self.height)


_MAX_SIDE = 16384
_DOCUMENT = re.compile(r"\s*(?:\{\s*[\"}]|\[|\")")
"""What a JSON document begins with; `{$.x}` and `{request.x}` are placeholders."""


def size(value: str) -> Size:
    """Raises ValueError."""
    expectation = f"SIDE or HEIGHTxWIDTH in pixels, 1 to {_MAX_SIDE}"
    parts = value.lower().split("x")
    if not all(part.isdecimal() and 1 <= int(part) <= _MAX_SIDE for part in parts):
        raise ValueError(expectation)
    if len(parts) == 1:
        return Size(side=int(parts[0]))
    if len(parts) == 2:
        return Size(height=int(parts[0]), width=int(parts[1]))
    raise ValueError(expectation)


def fraction(value: str) -> float:
    """`0.5`, or `1/255`. Raises ValueError."""
    above, slash, below = value.partition("/")
    try:
        found = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise ValueError("a number or a fraction such as 1/255") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise ValueError("a finite number")
    return found


def numbers(value: str) -> tuple[float, ...]:
    """Comma-separated. Raises ValueError."""
    try:
        return tuple(fraction(part.strip()) for part in value.split(","))
    except ValueError:
        raise ValueError("numbers separated by commas, one or one a channel") from None


def color(value: str) -> str:
    """`#rrggbb`, `white` or `black`. Raises ValueError."""
    named = {"white": "#ffffff", "black": "#000000"}.get(value.lower(), value.lower())
    digits = named.removeprefix("#")
    if len(digits) != 6 or any(digit not in "0123456789abcdef" for digit in digits):
        raise ValueError("white, black or #rrggbb")
    return f"#{digits}"


def template(value: str) -> Any:
    """A JSON document whose strings may hold placeholders; a bare text is one such string. Raises
    ValueError."""
    if _DOCUMENT.match(value) is None:
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"a JSON document ({error})") from None


def renames(*allowed: str) -> o.Parser:
    """`NAME` or `NAME:AS`, comma-separated -> ((name, as), …)."""

    def parse(value: str) -> tuple[tuple[str, str], ...]:
        pairs = [part.strip().partition(":") for part in value.split(",") if part.strip()]
        found = tuple((name, given or name) for name, _, given in pairs)
        names = [name for name, _ in found]
        if not found or len(set(names)) != len(names) or any(n not in allowed for n in names):
            raise ValueError(f"NAME or NAME:AS out of {', '.join(allowed)}, comma-separated")
        return found

    return parse
