"""Go regular expressions (RE2 syntax) over short ASCII texts, in linear time.

KServe's header patterns are Go's; Python's `re` knows more (look-around, back-references), less
(`\\pL`, `[[:alpha:]]`, `\\z`, `(?U)`) and can take exponential time. A pattern is parsed by Go's
grammar (`syntax`) and run as an automaton (`automaton`).
"""

from collections.abc import Callable

from .automaton import build
from .syntax import PatternError, parse

__all__ = ["PatternError", "compile_search"]


def compile_search(pattern: str, *, ignore_case: bool = False) -> Callable[[str], bool]:
    """A predicate: does the pattern match anywhere in a text? Raises PatternError as Go would."""
    return build(parse(pattern, ignore_case=ignore_case)).search
