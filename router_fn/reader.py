"""One JSON object of a graph, read field by field, with every problem at its path."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from router_fn.errors import Problem


class Reader:
    """One JSON object being read: typed access by field, problems with paths, unknown fields
    last."""

    def __init__(self, value: object, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.known: set[str] = set()
        self.fields: dict[str, Any] = {}
        if isinstance(value, Mapping):
            self.fields = dict(value)
        else:
            self.error("", f"must be an object, not {kind_of(value)}")

    def error(self, name: str, message: str) -> None:
        where = f"{self.path}.{name}" if self.path and name else self.path or name
        self.problems.append(("error", where, message))

    def take(self, name: str) -> Any:
        self.known.add(name)
        return self.fields.get(name)

    def text(self, name: str) -> str:
        value = self.take(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.error(name, f"must be a string, not {kind_of(value)}")
            return ""
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.error(name, f"must be true or false, not {kind_of(value)}")
        return value is True

    def number(
        self, name: str, *, minimum: float = 0, above: bool = False, maximum: float | None = None
    ) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.error(name, f"must be a number, not {kind_of(value)}")
            return None
        if (
            value < minimum
            or (above and value == minimum)
            or (maximum is not None and value > maximum)
        ):
            limit = f"more than {minimum:g}" if above else f"at least {minimum:g}"
            limit += "" if maximum is None else f" and at most {maximum:g}"
            self.error(name, f"is {value:g}, must be {limit}")
            return None
        return float(value)

    def whole(self, name: str, *, minimum: int = 0, maximum: int | None = None) -> int | None:
        value = self.fields.get(name)
        if isinstance(value, float) and not value.is_integer():
            self.known.add(name)
            self.error(name, f"is {value:g}, must be a whole number")
            return None
        number = self.number(name, minimum=minimum, maximum=maximum)
        return None if number is None else int(number)

    def word(self, name: str, words: Sequence[str], default: str) -> str:
        value = self.take(name)
        if value is None or value == "":
            return default
        if value not in words:
            self.error(name, f"is {json.dumps(value)}, must be one of {', '.join(words)}")
            return default
        return cast("str", value)

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            self.error(name, "must be a list of strings")
            return None
        return tuple(value)

    def finish(self, ignored: frozenset[str] = frozenset()) -> None:
        """Report what nobody asked for, with the nearest known name."""
        for name in self.fields:
            if name not in self.known and name not in ignored:
                import difflib

                close = difflib.get_close_matches(str(name), self.known | ignored, 1, 0.6)
                self.error(
                    str(name),
                    "is not a known field" + (f"; did you mean {close[0]}?" if close else ""),
                )


def kind_of(value: object) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        tuple: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
