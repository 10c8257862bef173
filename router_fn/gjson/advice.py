"""What is odd about a condition: paths that always or never exist, and likely slips.

`constant_of` is exact: True and False are for every valid JSON document. `slip_of` is a guess that
helps people: syntax of other languages that GJSON reads in its own way.
Both are for boot; nothing here runs per request.
"""

import re
from typing import Final

from .evaluate import Exhausted, find
from .heads import Lines, Literal, Modifier, Multi, Plain
from .paths import Path, Query

# Modifiers that answer with a value for every document.
_TOTAL: Final = frozenset(
    b"this ugly pretty valid keys values tostr flatten join reverse dig".split()
)
_OPERATORS: Final = frozenset((b"=", b"!=", b"<", b"<=", b">", b">=", b"%", b"!%"))


def constant_of(path: Path) -> tuple[bool | None, str]:
    """Whether the path exists in every (True) or no (False) document, and why."""
    head = path.head
    if isinstance(head, Literal):
        exists = _finds(path)
        return exists, "a literal (`!...`) does not depend on the document"
    if isinstance(head, Modifier):
        if head.rest is None and head.name in _TOTAL:
            return True, f"`@{head.name.decode()}` has a result for every document"
        return None, ""
    if isinstance(head, Multi):
        shape = f"`{head.opener.decode()}...`"
        if head.rest is None:
            return True, f"a multipath {shape} has a result for every document, even an empty one"
        if head.opener == b"[":
            only = len(head.members) == 1 and head.members[0][1].text == b"@this"
            return _constant_in_array(head.rest, len(head.members), only)
        return None, ""
    if isinstance(head, Lines):
        return None, ""
    return None, ""


def _finds(path: Path) -> bool:
    try:
        return find(b"null", path) is not None
    except Exhausted:
        return False


def _constant_in_array(path: Path, most: int, exactly: bool) -> tuple[bool | None, str]:
    """The same for a path applied to an array of at most (or exactly) so many elements."""
    if not isinstance(path.head, Plain) or path.head.path is not path:
        return None, ""
    step = path.array_step
    if not step.hashed:
        if step.position < 0:
            return False, f"`{path.text.decode('utf-8', 'replace')}` asks an array for a key"
        if step.position >= most:
            return False, f"the array has at most {most} element(s), there is no {step.position}"
        if exactly and step.rest is None and step.pipe is None:
            return True, "the array always has this element"
        return None, ""
    if step.counts:
        if step.pipe is None and (step.each is None or step.each.split_at_pipe[1] is None):
            return True, "`#` has a result for every array"
        return None, ""
    query = step.query
    if query is None:
        return False, "a `#` among other characters matches nothing in an array"
    if not query.every:
        reason = _never(query)
        return (False, reason) if reason else (None, "")
    if step.rest is None and step.pipe is None:
        return True, "`#(...)#` has a result for every array, even an empty one"
    if step.rest is None and step.pipe is not None:
        return _constant_in_array(step.pipe, most, False)
    return None, ""


def _never(query: Query) -> str:
    """Why no value satisfies a query, if that is so."""
    if query.value[:1] == b"~" and query.value not in (b"~true", b"~false", b"~null", b"~*"):
        return f"`{query.value.decode('utf-8', 'replace')}` is none of ~true, ~false, ~null, ~*"
    if query.operator and query.operator not in _OPERATORS:
        return f"`{query.operator.decode('utf-8', 'replace')}` is no operator"
    return ""


_COMPARISON = re.compile(r"[=!<>]=|[<>%=]")
_BOOLEAN = re.compile(r"&&|\|\|")
_SINGLE_QUOTED = re.compile(r"(?:[=<>%]=?|!=|!%)\s*'[^']*'")


def slip_of(text: str) -> str:
    """What makes a condition look like a mistake, or an empty text."""
    queried = "#(" in text or "#[" in text
    if text == "":
        return "an empty condition matches only a document that has an empty key"
    if text != text.strip():
        return "blanks at the ends of a condition belong to its keys"
    if not queried and _COMPARISON.search(text) and text[:1] not in "@!":
        return (
            "comparisons work only inside `#(...)`: for a key of the document itself write"
            ' `[@this].#(key=="value")`'
        )
    if queried and _unclosed(text):
        return "a bracket of `#(...)` is never closed"
    if queried and _BOOLEAN.search(text):
        return "GJSON has no `&&` and `||`: what follows the operator is all one value"
    if queried and _SINGLE_QUOTED.search(text):
        return "single quotes are part of the value: use double quotes, or none"
    return ""


def _unclosed(text: str) -> bool:
    depth = 0
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == '"':
            at += 1
            while at < len(text) and text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        at += 1
    return depth > 0
