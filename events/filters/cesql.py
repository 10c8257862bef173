"""CESQL: the SQL-like filter dialect over CloudEvents attributes, compiled to closures.

Theory of operation. Every expression yields a value *and* maybe an error, and never raises:
* an operand that failed makes the operation yield the zero of its result type and that error;
* a value that the operator itself cannot cast counts as the zero of the wanted type, plus `cast`;
* AND and OR stop at the first operand that decides, so errors after it do not exist.
A filter passes only if the value is true and there was no error.

Binding, tightest first: functions and NOT / unary minus; LIKE, IN, EXISTS; * / %; + -; comparisons;
AND; OR and XOR (the logical ones lean right). Keywords and attribute names ignore case.
Source: CloudEvents SQL expression language 1.0; the test kit of that specification passes.
"""

import re
from typing import NamedTuple

from . import cesql_operators as ops
from .cesql_functions import MAX_INT, MIN_INT, Outcome, cast
from .cesql_operators import Attributes, Expression

MAX_LENGTH = 8192
MAX_TOKENS = 400
MAX_DEPTH = 64
"""Longer or deeper expressions are refused when a trigger is created, so evaluation cannot
overflow."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<integer>[0-9]+)(?![A-Za-z_])
    | (?P<word>[A-Za-z][A-Za-z0-9_]*)
    | (?P<symbol><=|>=|!=|<>|[-+*/%=<>(),])
    )""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset({"AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "FALSE"})
_COMPARISONS = frozenset({"=", "!=", "<>", "<", "<=", ">", ">="})


class ParseError(ValueError):
    """The expression is not CESQL; the message shows where."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> Expression:
    """The compiled expression. Raises `ParseError`."""
    if len(text) > MAX_LENGTH:
        raise ParseError(f"CESQL expression is longer than {MAX_LENGTH} characters")
    parser = _Parser(text)
    expression = parser.expression()
    parser.expect_end()
    return expression


def evaluate(expression: Expression, attributes: Attributes) -> Outcome:
    """Value and error kind (None: no error) for one event's attributes."""
    return expression(attributes)


def is_true(expression: Expression, attributes: Attributes) -> bool:
    """Whether a filter with this expression lets the event through."""
    value, error = expression(attributes)
    return error is None and cast(value, bool)[0] is True


class _Parser:
    """Recursive descent, one method per binding strength."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokenize(text)
        self._next = 0
        self._depth = 0

    # --- tokens -----------------------------------------------------------------------------------
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, kind: str, *texts: str) -> _Token | None:
        token = self._peek()
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self._next += 1
        return token

    def _need(self, kind: str, text: str, what: str) -> None:
        if self._take(kind, text) is None:
            raise self._error(f"expected {what}")

    def _error(self, message: str) -> ParseError:
        token = self._peek()
        found = "the end" if token.kind == "end" else repr(token.text)
        return ParseError(f"CESQL: {message}, found {found} at character {token.at + 1}")

    def expect_end(self) -> None:
        if self._peek().kind != "end":
            raise self._error("expected an operator or the end")

    # --- grammar ----------------------------------------------------------------------------------
    def expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ParseError(f"CESQL: nested deeper than {MAX_DEPTH}")
        operands = [self._conjunction()]
        operators: list[str] = []
        while (operator := self._take("keyword", "OR", "XOR")) is not None:
            operators.append(operator.text)
            operands.append(self._conjunction())
        left = operands.pop()
        while operators:  # leaning right: the last operator binds first
            make = ops.or_ if operators.pop() == "OR" else ops.xor
            left = make(operands.pop(), left)
        self._depth -= 1
        return left

    def _conjunction(self) -> Expression:
        operands = [self._comparison()]
        while self._take("keyword", "AND"):
            operands.append(self._comparison())
        return operands[0] if len(operands) == 1 else ops.and_(operands)

    def _comparison(self) -> Expression:
        left = self._sum()
        while (token := self._take("symbol", *_COMPARISONS)) is not None:
            left = ops.compare(token.text, left, self._sum())
        return left

    def _sum(self) -> Expression:
        left = self._product()
        while (token := self._take("symbol", "+", "-")) is not None:
            left = ops.arithmetic(token.text, left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._postfix()
        while (token := self._take("symbol", "*", "/", "%")) is not None:
            left = ops.arithmetic(token.text, left, self._postfix())
        return left

    def _postfix(self) -> Expression:
        left = self._unary()
        while True:
            start = self._next
            negated = self._take("keyword", "NOT") is not None
            if self._take("keyword", "LIKE"):
                pattern = self._take("string")
                if pattern is None:
                    raise self._error("LIKE needs a string literal")
                left = ops.like(left, _like_pattern(pattern.text), negated)
            elif self._take("keyword", "IN"):
                self._need("symbol", "(", "'(' after IN")
                left = ops.in_(left, self._arguments("IN"), negated)
            else:
                self._next = start
                return left

    def _unary(self) -> Expression:
        signs: list[str] = []
        while True:
            if self._take("keyword", "NOT"):
                signs.append("NOT")
            elif self._take("symbol", "-"):
                signs.append("-")
            else:
                break
        if signs and signs[-1] == "-" and self._peek().text == str(-MIN_INT):
            self._next += 1  # the one integer that exists only with its sign
            operand: Expression = ops.literal(MIN_INT)
            signs.pop()
        else:
            operand = self._atom()
        for sign in reversed(signs):
            operand = ops.not_(operand) if sign == "NOT" else ops.negate(operand)
        return operand

    def _atom(self) -> Expression:
        token = self._peek()
        self._next += 1
        if token.kind == "string":
            return ops.literal(_unquote(token.text))
        if token.kind == "integer":
            if len(token.text) > 12 or int(token.text) > MAX_INT:
                raise ParseError(f"CESQL: integer {token.text} is outside 32 bits")
            return ops.literal(int(token.text))
        if token.kind == "keyword" and token.text in ("TRUE", "FALSE"):
            return ops.literal(token.text == "TRUE")
        if token.kind == "keyword" and token.text == "EXISTS":
            name = self._take("word")
            if name is None:
                raise self._error("EXISTS needs an attribute name")
            attribute = name.text.lower()
            return lambda event: (attribute in event, None)
        if token.kind == "word":
            if self._take("symbol", "("):
                return ops.call(token.text.upper(), self._arguments(token.text, empty=True))
            if "_" in token.text:
                raise ParseError(f"CESQL: {token.text!r} is not an attribute name")
            return ops.attribute(token.text.lower())
        if token == ("symbol", "(", token.at):
            inner = self.expression()
            self._need("symbol", ")", "')'")
            return inner
        self._next -= 1
        raise self._error("expected a value")

    def _arguments(self, name: str, *, empty: bool = False) -> list[Expression]:
        if empty and self._take("symbol", ")"):
            return []
        arguments = [self.expression()]
        while self._take("symbol", ","):
            arguments.append(self.expression())
        self._need("symbol", ")", f"',' or ')' in the list of {name}")
        return arguments


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise ParseError(f"CESQL: cannot read {text[position : position + 20]!r}")
        kind, value = found.lastgroup, found.group(found.lastgroup)
        if kind == "word" and value.upper() in _KEYWORDS:
            kind, value = "keyword", value.upper()
        tokens.append(_Token(kind, value, found.start(found.lastgroup)))
        position = found.end()
        if len(tokens) > MAX_TOKENS:
            raise ParseError(f"CESQL expression has more than {MAX_TOKENS} parts")
    tokens.append(_Token("end", "", len(text)))
    return tokens


def _unquote(text: str) -> str:
    """A literal's text: only its own quote can be escaped, every other backslash is a backslash."""
    return text[1:-1].replace("\\" + text[0], text[0])


def _like_pattern(text: str) -> re.Pattern[str]:
    parts: list[str] = []
    for piece in re.findall(r"\\[%_]|.", _unquote(text), re.DOTALL):
        if piece == "%":
            if not parts or parts[-1] != ".*":  # %% is %: no pile of stars to backtrack over
                parts.append(".*")
        elif piece == "_":
            parts.append(".")
        else:
            parts.append(re.escape(piece[-1] if len(piece) == 2 else piece))
    return re.compile("".join(parts), re.DOTALL)
