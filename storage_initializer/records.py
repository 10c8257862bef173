"""`Record`: what `dataclasses` gives, for a program whose start is waited for.

`dataclasses` imports `inspect` and compiles a handful of methods for each class; for the dozen
classes of a fetch that was 30 ms, as much as everything else this unit imports together. Here a
metaclass turns the annotations into slots, and `Record` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType

TYPE_CHECKING = False  # mypy takes the name for true; `typing` is 4 ms of the start
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorated: decorated


NOTHING: Mapping[str, Any] = MappingProxyType({})
"""The empty mapping, as a default."""
_put = object.__setattr__


@dataclass_transform(frozen_default=True)
class _Fields(type):
    """Annotated names become slots; their values, if any, defaults (one for all)."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], space: dict[str, Any], *, frozen: bool = True
    ) -> _Fields:
        names = tuple(space.get("__annotations__", ()))
        space["_names"] = names
        if names:
            space["_values"] = attrgetter(*names)
        space["_defaults"] = {field: space.pop(field) for field in names if field in space}
        space["_frozen"] = frozen
        space["__slots__"] = names
        return super().__new__(mcls, name, bases, space)


class Record(metaclass=_Fields):
    """Immutable (unless `frozen=False` stands beside it), compared and hashed by its values."""

    if TYPE_CHECKING:
        _names: ClassVar[tuple[str, ...]]
        _defaults: ClassVar[dict[str, Any]]
        _frozen: ClassVar[bool]
        _values: ClassVar[attrgetter[Any]]
        """The values as a tuple, of a single field the value itself; in C: records are keys."""

    def __init__(self, *args: Any, **values: Any) -> None:
        if args:
            values = dict(zip(self._names, args, strict=False)) | values
        values = self._defaults | values
        if len(values) != len(self._names) or len(args) > len(self._names):
            odd = ", ".join(sorted(values.keys() ^ set(self._names)))
            raise TypeError(f"{type(self).__name__}: fields missing or unknown: {odd}")
        for name, value in values.items():
            _put(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        if self._frozen:
            raise AttributeError(f"{type(self).__name__} is immutable")
        _put(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values(self) == self._values(other)

    def __hash__(self) -> int:
        return hash(self._values(self))

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({pairs})"

    def but(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        values = {name: getattr(self, name) for name in self._names}
        return type(self)(**values | changes)
