"""Runs a parsed pattern over a text: all possible positions at once, so time is linear.

States are numbers into a program of instructions. The sets of states that occur are remembered with
their successors, which makes repeated use as fast as a table; the memory is bounded and forgotten
when full.
"""

from typing import Final

from .charsets import WORD
from .syntax import Chars, Choice, Edge, PatternError, Repeat, Sequence, Tree

# (1 << c) & WORD tells word characters apart for \b.
MAX_PROGRAM: Final = 20_000
MAX_REMEMBERED: Final = 2_000

_READ, _SPLIT, _CHECK = 0, 1, 2
# (_READ, character set, next), (_SPLIT, (next, ...), 0), (_CHECK, kind, next); -1 is a match.
Instruction = tuple[int, "int | tuple[int, ...] | str", int]
MATCH: Final = -1

States = frozenset[int]


def build(tree: Tree) -> "Automaton":
    """Translate a tree; raises PatternError if its counts unroll into too large a program."""
    program: list[Instruction] = []
    start = _emit(tree, MATCH, program)
    return Automaton(program, start)


def _add(program: list[Instruction], instruction: Instruction) -> int:
    if len(program) >= MAX_PROGRAM:
        raise PatternError("expression is too large")
    program.append(instruction)
    return len(program) - 1


def _emit(tree: Tree, after: int, program: list[Instruction]) -> int:
    """Add the instructions of a tree that continue at `after`; returns where they begin."""
    match tree:
        case Chars(chars):
            return _add(program, (_READ, chars, after))
        case Edge(kind):
            return _add(program, (_CHECK, kind, after))
        case Sequence(parts):
            for part in reversed(parts):
                after = _emit(part, after, program)
            return after
        case Choice(options):
            starts = tuple(_emit(option, after, program) for option in options)
            return _add(program, (_SPLIT, starts, 0))
        case Repeat(part, low, high):
            return _emit_repeat(part, low, high, after, program)


def _emit_repeat(
    part: Tree, low: int, high: int | None, after: int, program: list[Instruction]
) -> int:
    if high is None:
        loop = _add(program, (_SPLIT, (), 0))
        program[loop] = (_SPLIT, (_emit(part, loop, program), after), 0)
        after = loop
    else:
        end = after
        for _ in range(high - low):
            after = _add(program, (_SPLIT, (_emit(part, after, program), end), 0))
    for _ in range(low):
        after = _emit(part, after, program)
    return after


class Automaton:
    """A program and the transitions it has been seen to make."""

    def __init__(self, program: list[Instruction], start: int) -> None:
        self._program = program
        self._start = start
        # (states, character before, character after) -> states after it, None once matched
        self._steps: dict[tuple[States, int, int], States | None] = {}

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in the text (codes below 256)."""
        states: States = frozenset()
        before = -1
        codes = [ord(char) & 0xFF for char in text]
        for code in (*codes, -1):
            key = (states, before, code)
            if key in self._steps:
                following = self._steps[key]
            else:
                following = self._step(states, before, code)
                if len(self._steps) >= MAX_REMEMBERED:
                    self._steps.clear()
                self._steps[key] = following
            if following is None:
                return True
            states = following
            before = code
        return False

    def _step(self, states: States, before: int, code: int) -> States | None:
        """From all states, and from the start, over one character (-1: the end of the text)."""
        pending = [*states, self._start]
        seen = set(pending)
        following: set[int] = set()
        while pending:
            state = pending.pop()
            if state == MATCH:
                return None
            kind, what, after = self._program[state]
            if kind == _READ:
                assert isinstance(what, int)
                if code >= 0 and what >> code & 1:
                    following.add(after)
                continue
            if kind == _SPLIT:
                assert isinstance(what, tuple)
                targets = what
            else:
                targets = (after,) if _holds(str(what), before, code) else ()
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    pending.append(target)
        return frozenset(following)


def _holds(kind: str, before: int, after: int) -> bool:
    match kind:
        case "start":
            return before < 0
        case "end":
            return after < 0
        case "start of line":
            return before < 0 or before == 0x0A
        case "end of line":
            return after < 0 or after == 0x0A
        case _:
            boundary = _is_word(before) != _is_word(after)
            return boundary == (kind == "boundary")


def _is_word(code: int) -> bool:
    return code >= 0 and bool(WORD >> code & 1)
