"""Go's regular expression grammar (package regexp/syntax with the flags of regexp.Compile).

The result is a tree of `Chars`, `Edge`, `Sequence`, `Choice` and `Repeat`. Captures leave no trace:
only whether a pattern matches is ever asked, so laziness leaves none either.
Source: the syntax page of RE2 and the documentation of Go's regexp/syntax.
"""

import re
from dataclasses import dataclass
from typing import Final

from . import charsets
from .charsets import CharSet

MAX_REPEAT: Final = 1000


class PatternError(ValueError):
    """Go would not compile this pattern."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    chars: CharSet


@dataclass(frozen=True, slots=True)
class Edge:
    """An empty match: `start` and `end` of the text or of a line, a word `boundary` or none."""

    kind: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    options: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """`low` to `high` times; `high` None: any number of times more."""

    part: "Tree"
    low: int
    high: int | None


Tree = Chars | Edge | Sequence | Choice | Repeat


def parse(pattern: str, *, ignore_case: bool = False) -> Tree:
    """Parse a whole pattern; raises PatternError with Go's reason in our words."""
    if any(0xD800 <= ord(char) < 0xE000 for char in pattern):
        raise PatternError("it is not valid UTF-8")
    return _Parser(pattern, "i" if ignore_case else "").whole()


_COUNT = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_GROUP_NAME = re.compile(r"\(\?P?<([A-Za-z0-9_]+)>")
_FLAG_GROUP = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_OCTAL = re.compile(r"[0-7]{1,3}")
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
_UNICODE = re.compile(r"\\([pP])(?:\{(\^?)([^}]*)\}|([^{]))")
_SINGLE: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_EDGES: Final = {"A": "start", "z": "end", "b": "boundary", "B": "no boundary"}


class _Parser:
    """Recursive descent over groups; everything else in loops."""

    def __init__(self, text: str, flags: str) -> None:
        self.text = text
        self.at = 0
        self.flags = frozenset(flags)
        self.names: set[str] = set()
        self.depth = 0

    def whole(self) -> Tree:
        tree = self._choice()
        if self.at < len(self.text):
            raise PatternError("unexpected )")
        return tree

    def _choice(self) -> Tree:
        """Alternatives up to the end or to a closing parenthesis, which is left."""
        options: list[Tree] = []
        parts: list[Tree] = []
        repeated = False  # the last part already carries a repetition
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char == ")":
                break
            if char == "|":
                self.at += 1
                options.append(Sequence(tuple(parts)))
                parts = []
                repeated = False
                continue
            count = self._repetition(char)
            if count is not None:
                if not parts:
                    raise PatternError(f"missing argument to repetition operator {char}")
                if repeated:
                    raise PatternError("repetition operators cannot be stacked")
                parts[-1] = _repeat(parts[-1], *count)
                repeated = True
                continue
            self._atom(char, parts)
            repeated = False
        options.append(Sequence(tuple(parts)))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _repetition(self, char: str) -> tuple[int, int | None] | None:
        """Read a repetition operator, if there is one here."""
        low: int
        high: int | None
        if char in "*+?":
            low, high = (1, None) if char == "+" else (0, None if char == "*" else 1)
            self.at += 1
        elif char == "{" and (found := _COUNT.match(self.text, self.at)):
            low = _bounded(found[1])
            high = low if not found[2] else _bounded(found[3]) if found[3] else None
            if high is not None and high < low:
                raise PatternError(f"invalid repeat count {found[0]}")
            self.at = found.end()
        else:
            return None
        if self.text.startswith("?", self.at):
            self.at += 1
        return low, high

    def _atom(self, char: str, parts: list[Tree]) -> None:
        if char == "(":
            self._group(parts)
        elif char == "[":
            parts.append(Chars(self._fold(self._class())))
        elif char == "\\":
            self._escape(parts)
        else:
            self.at += 1
            if char == ".":
                dots = charsets.EVERY
                parts.append(Chars(dots if "s" in self.flags else dots & ~charsets.NEWLINE))
            elif char in "^$":
                where = "start" if char == "^" else "end"
                parts.append(Edge(where + " of line" if "m" in self.flags else where))
            else:
                parts.append(self._literal(ord(char)))

    def _literal(self, code: int) -> Tree:
        return Chars(self._fold(charsets.of_range(code, code)))

    def _fold(self, chars: CharSet) -> CharSet:
        return charsets.folded(chars) if "i" in self.flags else chars

    # --- groups -----------------------------------------------------------------------------

    def _group(self, parts: list[Tree]) -> None:
        flags = self.flags
        if self.text.startswith("(?", self.at):
            named = _GROUP_NAME.match(self.text, self.at)
            setting = _FLAG_GROUP.match(self.text, self.at)
            if named:
                if named[1] in self.names:
                    raise PatternError(f"duplicate group name {named[1]}")
                self.names.add(named[1])
                self.at = named.end()
            elif setting:
                self.at = setting.end()
                self.flags = (flags | set(setting[1])) - set(setting[2] or "")
                if setting[3] == ")":
                    return
            else:
                unsupported = self.text[self.at : self.at + 4]
                raise PatternError(f"invalid or unsupported Perl syntax: {unsupported}")
        else:
            self.at += 1
        self.depth += 1
        if self.depth > _MAX_GROUPS:
            raise PatternError("groups are nested too deeply")
        tree = self._choice()
        if not self.text.startswith(")", self.at):
            raise PatternError("missing closing )")
        self.at += 1
        self.depth -= 1
        self.flags = flags
        parts.append(tree)

    # --- escapes ----------------------------------------------------------------------------

    def _escape(self, parts: list[Tree]) -> None:
        kind = self.text[self.at + 1 : self.at + 2]
        if kind in _EDGES:
            self.at += 2
            parts.append(Edge(_EDGES[kind]))
        elif kind == "Q":
            end = self.text.find("\\E", self.at + 2)
            literal = self.text[self.at + 2 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self.text)
            parts.extend(self._literal(ord(char)) for char in literal)
        else:
            chars = self._class_escape()
            if chars is not None:
                parts.append(Chars(self._fold(chars)))
            else:
                parts.append(self._literal(self._escaped_code()))

    def _class_escape(self) -> CharSet | None:
        r"""Read `\d`, `\pL` and their like, if one is here."""
        kind = self.text[self.at + 1 : self.at + 2]
        if kind and kind in "dDsSwW":
            self.at += 2
            chars = charsets.PERL[kind.lower()]
            return chars if kind.islower() else charsets.negated(chars)
        if kind not in ("p", "P"):
            return None
        found = _UNICODE.match(self.text, self.at)
        named = None if found is None else charsets.of_unicode(found[3] or found[4] or "")
        if found is None or named is None:
            raise PatternError(f"unknown character class {self.text[self.at : self.at + 12]}")
        self.at = found.end()
        named = self._fold(named)  # before the negation: (?i)\P{Lu} excludes all letters with case
        if (found[1] == "P") != bool(found[2]):
            return charsets.negated(named)
        return named

    def _escaped_code(self) -> int:
        r"""Read the escape at hand as one character."""
        text, at = self.text, self.at + 1
        kind = text[at : at + 1]
        if not kind:
            raise PatternError("trailing backslash at end of expression")
        if kind in _SINGLE:
            self.at = at + 1
            return _SINGLE[kind]
        if kind == "x" and (found := _HEX.match(text, at)):
            code = int(found[1] or found[2], 16)
            if code <= 0x10FFFF:
                self.at = found.end()
                return code
        elif kind == "0" or (kind in "1234567" and text[at + 1 : at + 2] in tuple("01234567")):
            octal = _OCTAL.match(text, at)
            assert octal is not None
            self.at = octal.end()
            return int(octal[0], 8)
        elif kind.isascii() and not kind.isalnum():
            self.at = at + 1
            return ord(kind)
        raise PatternError(f"invalid escape sequence \\{kind}")

    # --- classes ----------------------------------------------------------------------------

    def _class(self) -> CharSet:
        """Read `[...]`."""
        text = self.text
        start = self.at
        self.at += 1
        inverse = text.startswith("^", self.at)
        self.at += inverse
        chars = 0
        first = True
        while first or not text.startswith("]", self.at):
            if self.at >= len(text):
                raise PatternError(f"missing closing ]: {text[start:]}")
            first = False
            found = self._posix()
            if found is None and text.startswith("\\", self.at):
                found = self._class_escape()
            chars |= self._range() if found is None else found
        self.at += 1
        if "i" in self.flags:  # before the negation: [^a] without case excludes A as well
            chars = charsets.folded(chars)
        return charsets.negated(chars) if inverse else chars

    def _posix(self) -> CharSet | None:
        if not self.text.startswith("[:", self.at):
            return None
        end = self.text.find(":]", self.at + 2)
        if end < 0:
            return None
        name = self.text[self.at + 2 : end]
        chars = charsets.POSIX.get(name.removeprefix("^"))
        if chars is None:
            raise PatternError(f"invalid character class range [:{name}:]")
        self.at = end + 2
        return charsets.negated(chars) if name.startswith("^") else chars

    def _range(self) -> CharSet:
        start = self.at
        low = high = self._class_code()
        if self.text.startswith("-", self.at) and self.text[self.at + 1 : self.at + 2] not in (
            "",
            "]",
        ):
            self.at += 1
            high = self._class_code()
            if high < low:
                raise PatternError(f"invalid character class range {self.text[start : self.at]}")
        return charsets.of_range(low, high)

    def _class_code(self) -> int:
        if self.at >= len(self.text):
            raise PatternError("missing closing ]")
        if self.text[self.at] == "\\":
            return self._escaped_code()
        self.at += 1
        return ord(self.text[self.at - 1])


# Each group costs two Python frames; Go stops at a height of 1000 nodes.
_MAX_GROUPS: Final = 200


def _bounded(digits: str) -> int:
    if len(digits) > 4 or int(digits) > MAX_REPEAT:
        raise PatternError(f"invalid repeat count {digits}: more than {MAX_REPEAT}")
    return int(digits)


def _repeat(part: Tree, low: int, high: int | None) -> Tree:
    tree = Repeat(part, low, high)
    if _most(tree) > MAX_REPEAT:
        raise PatternError(f"nested repeat counts come to more than {MAX_REPEAT}")
    return tree


def _most(tree: Tree) -> int:
    """The largest product of nested counts, as Go limits it (`*`, `+` and `?` count as one)."""
    if isinstance(tree, Repeat):
        times = max(tree.low, tree.high or 0, 1)
        return times * _most(tree.part)
    if isinstance(tree, Sequence):
        return max((_most(part) for part in tree.parts), default=1)
    if isinstance(tree, Choice):
        return max((_most(option) for option in tree.options), default=1)
    return 1
