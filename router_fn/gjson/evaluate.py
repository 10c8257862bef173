"""Looking a path up in a document.

`find` answers with a span of the document, or of a text derived from it by a modifier, a multipath
or a query for all matches. Scanning goes forward only and enters just the containers on the path;
a key that occurs again is tried again if the path did not lead on below its first occurrence.

Nothing recurses on the depth of the document, except through nested queries, where the path bounds
it; `Work` bounds both that nesting and the sum of all text looked at, so that no combination of
path and document can run away. A lookup that exceeds a bound raises `Exhausted`.
"""

from typing import Final

from . import modifiers
from .heads import Lines, Literal, Modifier, Multi, Plain
from .paths import ArrayStep, ObjectStep, Path, Query
from .plain import find_plain
from .values import (
    ARRAY,
    END_ARRAY,
    OBJECT,
    Span,
    find_container,
    next_member,
    parse,
    skip_to_element,
    unescape,
    value_end,
)

# A lookup may look at its document (16 + length of the path) times: each part of a path looks at
# most once at each part of a document. Only `@dig` into deep documents and multipaths that double
# their document come to more. Half a mebibyte is granted in any case.
WORK_FACTOR: Final = 16
MAX_WORK_FACTOR: Final = 256
WORK_FLOOR: Final = 1 << 19
# Queries within queries, multipaths within multipaths, `#.` after `#.`: each level is a recursion.
MAX_NESTING: Final = 64


class Exhausted(Exception):
    """The lookup was given up: too much work or too deep a nesting."""


class Work:
    """What a lookup may still spend."""

    __slots__ = ("left", "nesting")

    def __init__(self, size: int, path: Path) -> None:
        self.left = WORK_FLOOR + min(WORK_FACTOR + len(path.text), MAX_WORK_FACTOR) * size
        self.nesting = 0

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Exhausted


def find(document: bytes, path: Path, work: Work | None = None) -> Span | None:
    """The value at `path`, None if there is none. `document` need not be valid JSON."""
    return _get(work or Work(len(document), path), document, 0, len(document), path)


def _get(work: Work, buffer: bytes, start: int, end: int, path: Path) -> Span | None:
    work.spend(end - start + 16)
    if path.plain:
        at = find_plain(buffer, start, end, path.plain)
        stop = value_end(buffer, at, end) if at >= 0 else -1
        return (buffer, at, min(stop, end)) if stop >= 0 else None
    work.nesting += 1
    if work.nesting > MAX_NESTING:
        raise Exhausted
    found = _get_special(work, buffer, start, end, path)
    work.nesting -= 1  # an exhausted lookup never goes on, so no `finally`
    return found


def _get_special(work: Work, buffer: bytes, start: int, end: int, path: Path) -> Span | None:
    """Bars chain lookups: each goes on in what the one before has found, or in nothing."""
    while True:
        head = path.head
        if isinstance(head, Plain | Lines):
            walk = _Walk(work, buffer, end)
            if isinstance(head, Plain):
                walk.top(start, head.path)
            else:
                walk.array(start, head.path)
            if walk.pipe is None:
                return walk.found
            path = walk.pipe
            buffer, start, end = walk.found or (b"", 0, 0)
        else:
            text = _derive(work, buffer, start, end, head)
            work.spend(len(text))
            if head.rest is None:
                return (text, 0, len(text)) if isinstance(head, Multi) else parse(text)
            path = head.rest
            buffer, start, end = text, 0, len(text)
        work.spend(end - start + 16)


def _derive(
    work: Work, buffer: bytes, start: int, end: int, head: Modifier | Literal | Multi
) -> bytes:
    if isinstance(head, Literal):
        return head.text
    if isinstance(head, Modifier):
        text = buffer if start == 0 and end == len(buffer) else buffer[start:end]
        if head.name == b"dig":
            assert head.each is not None
            return _dig(work, text, head.each)
        return modifiers.FUNCTIONS[head.name](text, head.argument)
    members: list[bytes] = []
    keyed = head.opener == b"{"
    for key, path in head.members:
        found = _get(work, buffer, start, end, path)
        if found is not None:
            value = modifiers.raw(found)
            work.spend(len(value))
            members.append(key + b":" + value if keyed else value)
    return head.opener + b",".join(members) + (b"}" if keyed else b"]")


def _dig(work: Work, text: bytes, path: Path) -> bytes:
    """What `path` finds in the document and in each value below it, parents first."""
    out: list[bytes] = []
    span = parse(text)
    if span is None:
        # GJSON still asks the empty document, which only a path that needs no document answers
        empty = _get(work, b"", 0, 0, path)
        return b"[" + (modifiers.raw(empty) if empty else b"") + b"]"
    stack = [iter([(None, span)])]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        value = entry[1]
        work.spend(value[2] - value[1])  # for finding its members
        found = _get(work, *value, path)
        if found is not None:
            out.append(modifiers.raw(found))
            work.spend(len(out[-1]))
        if modifiers.is_array(value) or modifiers.is_object(value):
            stack.append(modifiers.items(value))  # type: ignore[arg-type]
    return b"[" + b",".join(out) + b"]"


class _Walk:
    """One pass over a text along the steps of a path."""

    __slots__ = ("buffer", "end", "found", "pipe", "work")

    def __init__(self, work: Work, buffer: bytes, end: int) -> None:
        self.work = work
        self.buffer = buffer
        self.end = end
        self.found: Span | None = None
        self.pipe: Path | None = None  # set as soon as the walk reaches the step before a bar

    def top(self, start: int, path: Path) -> None:
        container = find_container(self.buffer, start, self.end)
        if container is None:
            return
        at = container.start()
        if self.buffer[at] == OBJECT:
            self._descend(at + 1, path.object_step)
        else:
            self.array(at + 1, path)

    def array(self, at: int, path: Path) -> None:
        self._descend(at, path.array_step)

    def _descend(self, at: int, step: ObjectStep | ArrayStep) -> None:
        """Walk containers from the inside; `outer` holds those to come back to."""
        outer: list[tuple[ObjectStep | ArrayStep, int]] = []
        number = 0  # of the next element, if the container is an array
        while True:
            if step.rest is None and step.pipe is not None:
                self.pipe = step.pipe
            while True:
                if isinstance(step, ObjectStep):
                    at, inner = self._members(at, step)
                elif step.hashed:
                    at, hit = self._hashed(at, step)
                    if hit:
                        return
                    inner = None
                else:
                    at, inner, number = self._elements(at, step, number)
                if inner is not None or at < 0:
                    break
                if not outer:
                    return
                step, number = outer.pop()
            if inner is None:
                return
            outer.append((step, number))
            step, number = inner, 0

    def _members(self, at: int, step: ObjectStep) -> tuple[int, ObjectStep | ArrayStep | None]:
        """Go through members from `at`: (-1, None) when done with the whole walk, (after, None)
        at the end of the object, (inside, step) to enter a container."""
        buffer, end, key, glob = self.buffer, self.end, step.key, step.glob
        while True:
            member = next_member(buffer, at, end)
            if member is None:
                return -1, None
            at = member.end()
            if member.lastindex == 1:
                return at, None
            if at >= end:
                return -1, None
            name = member[2]
            if member.end(3) > member.start(3):
                name = unescape(name + member[3])
            if name == key if glob is None else glob(name):
                if step.rest is None:
                    self._take(at)
                    return -1, None
                first = buffer[at]
                if first == OBJECT:
                    return at + 1, step.rest.object_step
                if first == ARRAY:
                    return at + 1, step.rest.array_step
            at = value_end(buffer, at, end)
            if at < 0:
                return -1, None

    def _elements(
        self, at: int, step: ArrayStep, number: int
    ) -> tuple[int, ObjectStep | ArrayStep | None, int]:
        """As `_members`, for an index."""
        buffer, end = self.buffer, self.end
        while True:
            gap = skip_to_element(buffer, at, end)
            at = gap.end() if gap else end
            if at >= end:
                return at, None, number
            first = buffer[at]
            if first == END_ARRAY:
                return at + 1, None, number
            number += 1
            if number - 1 == step.position:
                if step.rest is None:
                    self._take(at)
                    return -1, None, number
                if first == OBJECT:
                    return at + 1, step.rest.object_step, number
                if first == ARRAY:
                    return at + 1, step.rest.array_step, number
            at = value_end(buffer, at, end)
            if at < 0:
                return -1, None, number

    def _take(self, at: int) -> None:
        stop = value_end(self.buffer, at, self.end)
        if stop >= 0:
            self.found = (self.buffer, at, min(stop, self.end))

    # --- arrays met with a hash -------------------------------------------------------------------

    def _hashed(self, at: int, step: ArrayStep) -> tuple[int, bool]:
        """Where the array ends, and whether the walk is over."""
        buffer, end = self.buffer, self.end
        query = step.query
        spans: list[Span] = []
        answers: list[bytes] = []
        count = 0
        rest = step.rest
        while True:
            if at > end:
                return -1, False
            gap = skip_to_element(buffer, at, end)
            at = gap.end() if gap else end
            if at >= end or buffer[at] == END_ARRAY:
                break  # an array may lack its closing bracket at the end of the text
            stop = value_end(buffer, at, end)
            if stop < 0:
                return -1, False
            element = (buffer, at, min(stop, end))
            at = stop
            count += 1
            if query is not None:
                if not self._satisfies(query, element):
                    continue
                found: Span | None = element
                if rest is not None:
                    rest, pipe = rest.split_at_pipe
                    if pipe is not None:
                        self.pipe = pipe
                    found = _get(self.work, *element, rest)
                if not query.every:
                    self.found = found
                    return at, True
                if found is not None:
                    answers.append(modifiers.raw(found))
            elif step.each is not None:
                spans.append(element)
        at += 1
        if step.counts:
            text = str(count).encode() if step.each is None else self._each(step.each, spans)
            self.found = (text, 0, len(text))
            return at, True
        if query is not None and query.every and self.found is None:
            text = b"[" + b",".join(answers) + b"]"
            self.work.spend(len(text))
            self.found = (text, 0, len(text))
        return at, False

    def _each(self, path: Path, spans: list[Span]) -> bytes:
        path, pipe = path.split_at_pipe
        if pipe is not None:
            self.pipe = pipe
        answers: list[bytes] = []
        for span in spans:
            found = _get(self.work, *span, path)
            if found is not None:
                answers.append(modifiers.raw(found))
        text = b"[" + b",".join(answers) + b"]"
        self.work.spend(len(text))
        return text

    def _satisfies(self, query: Query, element: Span) -> bool:
        buffer, start, _ = element
        if buffer[start] == OBJECT or buffer[start] == ARRAY:
            return query.test(_get(self.work, *element, query.path))
        return not query.path.text and query.test(element)


find_in = _get
"""As `find`, in a range of a text and with given means."""

__all__ = ["Exhausted", "Path", "Work", "find", "find_in"]
