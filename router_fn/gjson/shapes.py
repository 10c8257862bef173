"""The shapes that nearly all conditions have, judged in a few microseconds.

    a.0.b                              a plain path
    [@this].#(a.0.b>1)                 a query of the whole document
    [@this].#(a>1)#|#(b=="x")          several of them, all of which must hold
    a.#(b=="x")                        a query of the rows of a top-level array

`specialise` gives a function that knows the verdict for most valid JSON documents, and says None
for the others (repeated or escaped keys, texts that native decoders refuse): then `evaluate` has
the word. What it says must be what `evaluate` would say; property tests compare the two.
"""

from collections.abc import Callable
from typing import Any

from .evaluate import Exhausted, Work, find_in
from .heads import Multi, Plain
from .paths import Path, Query
from .plain import Place, is_scalar, locator
from .values import find_value, value_end

Verdict = Callable[[bytes], bool | None]


def specialise(path: Path) -> Verdict | None:
    """A fast judge for a path of one of the shapes, None for other paths."""
    if path.plain:
        return _presence(locator(path.plain))
    queries = _whole_document_queries(path)
    if queries is not None:
        judges = [_document_judge(query) for query in queries]
        if len(judges) == 1:
            return judges[0]
        return lambda body: all(judge(body) for judge in judges)
    return _rows_judge(path)


def _presence(locate: Callable[[bytes], Place]) -> Verdict:
    def verdict(body: bytes) -> bool | None:
        # GJSON looks for brackets in a document that is a string, too
        return locate(body)[1] >= 0 or (None if is_scalar(body) else False)

    return verdict


def _whole_document_queries(path: Path) -> list[Query] | None:
    """The queries of `[@this].#(…)`, or of `[@this].#(…)#|#(…)`."""
    head = path.head
    if not isinstance(head, Multi) or head.opener != b"[" or len(head.members) != 1:
        return None
    rest = head.rest
    if head.members[0][1].text != b"@this":
        return None
    queries: list[Query] = []
    while rest is not None and isinstance(rest.head, Plain) and rest.head.path is rest:
        step = rest.array_step
        if step.query is None or step.rest is not None:
            return None
        queries.append(step.query)
        if not step.query.every:
            return queries if step.pipe is None else None
        rest = step.pipe
    return None


def _document_judge(query: Query) -> Callable[[bytes], bool]:
    test = query.test
    if query.path.plain:
        locate = locator(query.path.plain)

        def judge_plain(body: bytes) -> bool:
            buffer, at, end = locate(body)
            if at < 0:
                # a document that is no container is compared itself, but only without a path
                return not is_scalar(body) and test(None)
            return test((buffer, at, value_end(buffer, at, end)))

        return judge_plain
    path, empty = query.path, not query.path.text

    def judge(body: bytes) -> bool:
        if not is_scalar(body):
            try:
                return test(find_in(Work(len(body), path), body, 0, len(body), path))
            except Exhausted:
                return False
        start = find_value(body)
        return empty and start is not None and test((body, start.start(), len(body.rstrip())))

    return judge


# --- rows ----------------------------------------------------------------------------------------


def _rows_judge(path: Path) -> Verdict | None:
    """For `a.#(b op value)` with plain keys a and b."""
    head = path.head
    if not isinstance(head, Plain) or head.path is not path:
        return None
    step = path.object_step
    if step.glob is not None or step.rest is None or len(Path(step.key).plain) != 1:
        return None
    rows = step.rest.array_step
    query = rows.query
    if query is None or query.every or rows.rest is not None or rows.pipe is not None:
        return None
    test = query.value_test
    if test is None or len(query.path.plain) != 1 or b"." in step.key:
        return None
    return _rows_verdict(step.key, query.path.plain[0].key, test)


def _rows_verdict(array: bytes, key: bytes, test: Callable[[Any], bool]) -> Verdict:
    decode: Callable[[bytes], Any] | None = None
    refused: tuple[type[Exception], ...] = ()
    array_quoted, key_quoted = b'"' + array + b'"', b'"' + key + b'"'

    def verdict(body: bytes) -> bool | None:
        nonlocal decode, refused
        if b"\\" in body:
            return None
        occurrences = body.count(array_quoted)
        if occurrences != 1:
            return None if occurrences else False
        if decode is None:
            decode, refused = _rows_decoder(array, key)
        try:
            rows = decode(body).value
        except refused:
            return None
        if rows is None:
            return None
        absent = _ABSENT
        values = [value for row in rows if (value := row.value) is not absent]
        if len(values) != body.count(key_quoted):
            return None  # the key occurs twice in a row, or elsewhere
        return any(map(test, values))

    return verdict


_ABSENT: Any = object()


def _rows_decoder(
    array: bytes, key: bytes
) -> tuple[Callable[[bytes], Any], tuple[type[Exception], ...]]:
    """A native decoder that makes just the values at `key` in the rows of `array`."""
    global _ABSENT
    try:
        import msgspec

        array_name, key_name = array.decode(), key.decode()
    except (ImportError, UnicodeDecodeError):
        return _refuse, (ValueError,)
    _ABSENT = msgspec.UNSET
    row = msgspec.defstruct(
        "Row", [("value", Any, msgspec.field(name=key_name, default=msgspec.UNSET))], gc=False
    )
    table = msgspec.defstruct(
        "Table",
        [("value", list[row] | None, msgspec.field(name=array_name, default=None))],  # type: ignore[valid-type]
    )
    return msgspec.json.Decoder(table).decode, (msgspec.MsgspecError, RecursionError)


def _refuse(_: bytes) -> None:
    raise ValueError
