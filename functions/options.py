"""One table row per setting: flag, variable, parser, default and the sentence that explains it.

`settings_table.py` holds the rows, `settings.py` builds the flags and reads the environment by
them, and `docs/model-server.md` prints them; so a setting cannot exist without its documentation.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Parser = Callable[[str], Any]
"""Text -> value. Raises ValueError whose text is the expectation ("a whole number from 1 to
65535")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting. The flag wins over the variable, the variable over the default."""

    name: str
    """Attribute of `Settings`; the flag is `--` plus the name with dashes."""
    env: str
    parse: Parser
    default: Any
    help: str
    repeat: bool = False
    """The flag may be given several times; the variable holds a comma-separated list."""
    aliases: tuple[str, ...] = ()
    """Further names of the flag, without dashes in front: KServe's, where they differ."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def shown_default(self) -> str:
        """As documentation prints it; empty when it is unset."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        return str(self.default)


def text(value: str) -> str:
    return value


def stripped(value: str) -> str:
    """Text from a file or a YAML block, where a line end follows it."""
    return value.strip()


def whole(low: int, high: int) -> Parser:
    def parse(value: str) -> int:
        expectation = f"a whole number from {low} to {high}"
        try:
            number = int(value)
        except ValueError:
            raise ValueError(expectation) from None
        if not low <= number <= high:
            raise ValueError(expectation)
        return number

    return parse


def number(low: float, high: float) -> Parser:
    def parse(value: str) -> float:
        expectation = f"a number from {low:g} to {high:g}"
        try:
            parsed = float(value)
        except ValueError:
            raise ValueError(expectation) from None
        if not low <= parsed <= high:  # also refuses NaN
            raise ValueError(expectation)
        return parsed

    return parse


_TRUE = frozenset({"true", "yes", "y", "t", "on", "1"})
_FALSE = frozenset({"false", "no", "n", "f", "off", "0"})


def boolean(value: str) -> bool:
    """KServe's and Seldon's spellings."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError("true or false")


def choice(*allowed: str) -> Parser:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return value

    return parse


def choices(*allowed: str) -> Parser:
    """A comma-separated set, in the order given, without repeats."""

    def parse(value: str) -> tuple[str, ...]:
        parts = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        if not parts or any(part not in allowed for part in parts):
            raise ValueError("a comma-separated list out of " + ", ".join(allowed))
        return parts

    return parse


_BYTE_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
}


def byte_size(value: str) -> int:
    """Bytes, or Kubernetes' suffixes: 64Mi, 1G."""
    match = re.fullmatch(r"(\d{1,15})([a-z]{0,2})", value.strip().lower().removesuffix("b"))
    if match is None or match[2] not in _BYTE_UNITS:
        raise ValueError("a number of bytes, optionally with Ki, Mi, Gi, k, M or G")
    return int(match[1]) * _BYTE_UNITS[match[2]]


def url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("an http:// or https:// URL")
    return value


def header_names(value: str) -> tuple[str, ...]:
    """Comma-separated header names; one that ends in `*` is a prefix."""
    names = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    if not all(re.fullmatch(r"[a-z0-9!#$%&'+.^_`|~-]+\*?", name) for name in names):
        raise ValueError("comma-separated header names, x-tenant or x-tenant-*")
    return names


def model_name(value: str) -> str:
    """A name that survives in a URL path of V1, V2 and TensorFlow Serving unescaped."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,252}", value):
        raise ValueError("letters, digits, '.', '_' and '-', not starting with '.' or '-'")
    return value


def named(parse_value: Parser, expectation: str, *, bare: bool = False) -> Parser:
    """`NAME=VALUE` pairs; the result is a (name, value) tuple. `bare`: NAME alone has an empty
    value."""

    def parse(value: str) -> tuple[str, Any]:
        name, equals, rest = value.partition("=")
        if not name or not (equals or bare):
            raise ValueError(expectation)
        return name, parse_value(rest)

    return parse
