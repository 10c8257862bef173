"""Whether a text is JSON, exactly as strictly as Go's encoding/json and GJSON judge it.

Both take any bytes from 0x20 up inside strings (UTF-8 or not) and any four hex digits after `\\u`;
neither takes NaN, leading zeros or trailing commas. encoding/json also refuses more than 10,000
nested containers. One pass over tokens with a stack of brackets: linear, no recursion.

There is a twin in C (`_json.c`; see `functions.wire.native`), which is what judges the bodies of
requests and answers where it was built; `COMPILED` says so.
"""

import re
from typing import TYPE_CHECKING, Final

from functions.wire import native

MAX_DEPTH: Final = 10_000

_WS = rb"[ \t\n\r]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = rb"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_KEY = _STRING + _WS + rb":" + _WS

# Where a value is due: an empty container (group 1), an opening bracket (group 2), or a scalar.
_value = re.compile(
    _WS + rb"(?:(?:\[" + _WS + rb"\]|\{" + _WS + rb"\})()|([\[{])|" + _SCALAR + rb")" + _WS
).match
_key = re.compile(_WS + _KEY).match
# After a value inside an array: whole runs of scalar elements at once, then what comes next.
_in_array = re.compile(rb"(?:," + _WS + _SCALAR + _WS + rb")*+(?:,()|\])").match
_in_object = re.compile(
    rb"(?:," + _WS + _KEY + _SCALAR + _WS + rb")*+(?:," + _WS + _KEY + rb"()|\})"
).match
_blank = re.compile(_WS).match


def is_valid(text: bytes) -> bool:
    """True if the text is one JSON value with nothing but white space around it."""
    stack = bytearray()  # the bracket that closes each open container
    at, end = 0, len(text)
    while True:
        # a value is due at `at`
        value = _value(text, at)
        if value is None:
            return False
        at = value.end()
        if value.lastindex and len(stack) >= MAX_DEPTH:
            return False
        if value.lastindex == 2:
            if text[value.start(2)] == 0x5B:
                stack.append(0x5D)
            else:
                stack.append(0x7D)
                key = _key(text, at)
                if key is None:
                    return False
                at = key.end()
            continue
        # a value has ended at `at`: close what closes, until another value is due
        while True:
            if not stack:
                return at == end
            more = (_in_array if stack[-1] == 0x5D else _in_object)(text, at)
            if more is None:
                return False
            at = more.end()
            if more.lastindex:
                break
            stack.pop()
            blank = _blank(text, at)
            at = blank.end() if blank else at


def is_object_or_null(text: bytes) -> bool:
    """True if the text is a JSON object, or null."""
    blank = _blank(text)
    first = text[blank.end() :][:1] if blank else b""
    return first in (b"{", b"n") and is_valid(text)


COMPILED: bool = False
"""Whether the functions above are C."""
if not TYPE_CHECKING:
    COMPILED = native.take(globals(), "router_fn._json", ("is_valid", "is_object_or_null"))
