"""Placeholders in texts and documents, names computed from answers, and the grammar of a
trigger."""

from typing import Any

import pytest

from events import names, spec, template
from events.errors import Forbidden, Refused, SpecError
from events.spec_check import check

DOCUMENTS: dict[str, Any] = {
    "event": {"id": "1", "subject": "in/a.png"},
    "object": {"key": "in/a.png", "size": 7},
    "data": {"a": {"b": [1, 2.5, {"c": "x"}]}, "odd name": 1, "n": None},
    "answer": {"predictions": [{"classes": 5, "p": 0.25}, {"classes": 6}], "f": 5.0, "big": 1e300},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{$.predictions[0].classes}", 5),
        ("digit-{$.predictions[0].classes}", "digit-5"),
        ("{answer.predictions[1].classes}", 6),
        ("{object.key}.json", "in/a.png.json"),
        ("{ object.size }", 7),
        ("{data.a.b[2].c}", "x"),
        ("{data['odd name']}", 1),
        ("{data.n}", None),
        ("{data.n}!", "null!"),
        ("{$.f}", 5.0),
        ("x{$.f}", "x5"),
        ("{$.predictions}", [{"classes": 5, "p": 0.25}, {"classes": 6}]),
        ("{$.predictions[*].classes}", [5, 6]),
        ("{$..classes}", [5, 6]),
        ("{$.predictions[?(@.classes > 5)].classes}", [6]),
        ("{$.predictions[0]}-", '{"classes":5,"p":0.25}-'),
        ("{{literal}}", "{literal}"),
        ("{{{object.size}}}", "{7}"),
        ("{$}", DOCUMENTS["answer"]),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert template.compile_text(text, "answer").value(DOCUMENTS) == value


@pytest.mark.parametrize("text", ["{", "a}", "{}", "{nothing.x}", "{$.a", "{$[}", "{$..}"])
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(template.TemplateError):
        template.compile_text(text, "answer")


@pytest.mark.parametrize(
    "text", ["{$.missing}", "{$.predictions[7]}", "{$.f.g}", "{object.key[0]}", "{$.predictions.x}"]
)
def test_what_finds_nothing_is_final(text: str) -> None:
    with pytest.raises(template.Unresolved):
        template.compile_text(text, "answer").value(DOCUMENTS)


@pytest.mark.parametrize(
    "text", ["{$.a[?(@.k =~ '(x+)+$')]}", "{$.`sub(/(x+)+$/, y)`}", "{$.a[?(@.b[?(@ =~ 'x')])]}"]
)
def test_regular_expressions_of_unbounded_time_are_refused(text: str) -> None:
    with pytest.raises(template.TemplateError):
        template.compile_text(text, "data")


def test_a_path_that_cannot_be_applied_finds_nothing() -> None:
    text = template.compile_text("{$.a[/n]}", "data")  # sorting numbers and texts
    with pytest.raises(template.Unresolved):
        text.value({"data": {"a": [{"n": 1}, {"n": "x"}]}})


def test_an_absent_document_is_final() -> None:
    with pytest.raises(template.Unresolved, match="no answer"):
        template.compile_text("{answer.x}", "answer").value({"event": {}})


def test_documents() -> None:
    body = template.compile_body({"a": ["{object.size}", 1, None], "{b}": {"c": "{$.f}"}}, "answer")
    assert body.build(DOCUMENTS) == {"a": [7, 1, None], "{b}": {"c": 5.0}}
    assert body.roots == {"object", "answer"}
    assert body.paths == {"object.size", "answer.f"}


@pytest.mark.parametrize("name", ["abc", "digit-5", "a.b-c", "0ab", "x" * 63])
def test_bucket_names(name: str) -> None:
    assert names.bucket(name) == name


@pytest.mark.parametrize(
    "name", ["", "ab", "A-b", "a_b", "-ab", "ab-", "a..b", "x" * 64, "a/b", "a\nb"]
)
def test_what_is_no_bucket_name(name: str) -> None:
    with pytest.raises(Refused):
        names.bucket(name)


@pytest.mark.parametrize("key", ["a", "a/b c+%41.png", "ü€😀", "...", "a/..b/c", "x" * 1024])
def test_keys(key: str) -> None:
    assert names.key(key) == key


@pytest.mark.parametrize(
    "key",
    ["", "/a", "../a", "a/../b", "a//b", "./a", "a\x00b", "a\nb", "é" * 513, "..", "a/..", "a/"],
)
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(Refused):
        names.key(key)


GOOD: dict[str, Any] = {
    "source": {"s3": {"bucket": "mnist"}},
    "target": {"url": "http://graph/base", "path": "/v1/models/m:predict"},
}


def test_defaults_of_a_specification() -> None:
    found = spec.parse(GOOD)
    assert found.target_url == "http://graph/base/v1/models/m:predict"
    assert (found.max_concurrency, found.max_waiting, found.deadline_s) == (8, 32, 300)
    assert found.objects is not None
    assert found.objects.events == ("ObjectCreated:*",)
    assert (found.dedupe.store, found.dedupe.ttl_s) == ("memory", 7 * 86400)
    assert found.request.object == "none"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"target": None}, "target"),
        ({"target": {"url": "graph"}}, "target.url"),
        ({"source": {}}, "source"),
        ({"source": {"s3": {}}}, "source.s3"),
        ({"source": {"s3": {"bucket": "mnist", "buckets": ["mnist"]}}}, "source.s3"),
        ({"source": {"s3": {"bucket": "mnist", "events": ["Put"]}}}, "source.s3.events[0]"),
        ({"source": {"s3": {"bucket": "mnist", "removed": "DeleteResult"}}}, "source.s3.removed"),
        ({"request": {"object": "tensor"}}, "request.object"),
        ({"request": {"template": {"x": ["{"]}}}, "request.template"),
        ({"request": {"headers": {"bad name": "x"}}}, "request.headers.bad name"),
        ({"request": {"maxObjectBytes": 0}}, "request.maxObjectBytes"),
        ({"result": {"move": {}}}, "result.move"),
        ({"result": {"reply": {}}}, "result.reply.type"),
        ({"dedupe": {"store": "sqlite"}}, "dedupe.path"),
        ({"concurrency": {"max": 2000}}, "concurrency.max"),
        ({"deadlineSeconds": True}, "deadlineSeconds"),
        ({"result": {"write": {"key": 5}}}, "result.write.key"),
        ({"resullt": {}}, "resullt"),
        ({"result": {"write": {"bucket": "{$.bucket}"}}}, "result.write.bucket"),
        ({"result": {"move": {"bucket": "{object.key}"}}}, "result.move.bucket"),
        ({"maxHops": 0}, "maxHops"),
        (
            {
                "source": {"s3": {"bucket": "mnist", "removed": "DeleteResult"}},
                "result": {"write": {}, "move": {"key": "x/{object.name}"}},
            },
            "source.s3.removed",
        ),
    ],
)
def test_problems_name_their_place(changes: dict[str, Any], path: str) -> None:
    value = {**GOOD, **changes}
    assert [found for found, _ in check(value)] == [path]
    with pytest.raises(SpecError):
        spec.parse(value)


def test_what_the_inputs_key_has_its_results_may_have() -> None:
    for given in ("a//b.png", "/a.png", "a/../b", "a/.", "a\nb"):
        assert names.key(f"{given}.json", given) == f"{given}.json"
        assert names.key(given, given) == given
        for added in ("/../x", "//x", "/..", "/"):
            with pytest.raises(Refused):
                names.key(given + added, given)
    assert names.key("a/result.json", "a") == "a/result.json"


def test_the_events_own_bucket_opens_no_other() -> None:
    parsed = spec.parse({**GOOD, "result": {"write": {"bucket": "{object.bucket}"}}})
    allowed = parsed.allowed_buckets()
    assert allowed.require("mnist") == "mnist"
    with pytest.raises(Forbidden):
        allowed.require("other")


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_a_specification_is_a_map(value: Any) -> None:
    assert check(value)


def test_random_shapes_never_crash_the_checker() -> None:
    junk: list[Any] = [None, 1, "x", [], {}, [1], {"a": 1}, True, [{}]]
    for name in (
        "source",
        "target",
        "request",
        "result",
        "dedupe",
        "concurrency",
        "asyncTtlSeconds",
    ):
        for value in junk:
            check({**GOOD, name: value})
            for inner in (
                "s3",
                "filters",
                "write",
                "move",
                "reply",
                "tag",
                "template",
                "url",
                "ref",
            ):
                check({**GOOD, name: {inner: value}})
                check({**GOOD, name: {inner: value}}, resolved=False)
