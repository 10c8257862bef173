"""Which request headers a graph passes on to its steps (KServe's PROPAGATE_HEADERS).

The setting is a comma-separated list of Go regular expressions (RE2), matched anywhere in the
canonical name of a header (`X-Request-Id`). Patterns that Go would refuse are reported and skipped,
the others still apply; an empty pattern forwards nothing (in KServe it forwards everything).
All values of a matching header are passed on, in their order.
"""

from collections.abc import Callable, Sequence
from typing import Final

from functions.wire.headers import Headers, canonical

from . import re2

# Verdicts are kept per header name as the client spelled it; a client that invents names cannot
# make the memory grow.
MAX_REMEMBERED: Final = 1024


class HeaderPlan:
    """Compiled patterns. `problems` are those that could not be compiled, for a warning at boot."""

    __slots__ = ("_matchers", "_verdicts", "patterns", "problems")

    def __init__(
        self,
        patterns: Sequence[str],
        matchers: Sequence[Callable[[str], bool]],
        problems: Sequence[str],
    ) -> None:
        self.patterns = tuple(patterns)
        self.problems = tuple(problems)
        self._matchers = tuple(matchers)
        self._verdicts: dict[bytes, bool] = {}

    def __bool__(self) -> bool:
        """Whether any header can be selected at all."""
        return bool(self._matchers)

    def select(self, headers: Headers) -> Headers:
        """The headers to pass on, names and values as they came."""
        if not self._matchers:
            return []
        verdicts = self._verdicts
        try:
            return [field for field in headers if verdicts[field[0]]]
        except KeyError:
            return [field for field in headers if self.matches(field[0])]

    def matches(self, name: bytes) -> bool:
        """Whether a header of this name is passed on."""
        verdict = self._verdicts.get(name)
        if verdict is None:
            text = canonical(name).decode("latin-1")
            verdict = any(match(text) for match in self._matchers)
            if len(self._verdicts) >= MAX_REMEMBERED:
                self._verdicts.clear()
            self._verdicts[name] = verdict
        return verdict


def compile_patterns(
    patterns: str | Sequence[str] | None, *, ignore_case: bool = False
) -> HeaderPlan:
    """Compile a setting: the text of PROPAGATE_HEADERS, a list of patterns, or None for nothing.

    Blanks around a pattern belong to it, as in KServe. `ignore_case` is an extension: every pattern
    then matches in any case.
    """
    if patterns is None:
        patterns = ()
    elif isinstance(patterns, str):
        patterns = patterns.split(",")
    matchers: list[Callable[[str], bool]] = []
    problems: list[str] = []
    for pattern in patterns:
        if not pattern:
            continue
        try:
            matchers.append(re2.compile_search(pattern, ignore_case=ignore_case))
        except re2.PatternError as error:
            problems.append(f"header pattern {pattern!r} is skipped: {error}")
    return HeaderPlan([pattern for pattern in patterns if pattern], matchers, problems)
