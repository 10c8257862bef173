"""Retries, hedging, time limits, cache and mirror: with time and chance by hand."""

import pytest

from router_fn.errors import UpstreamError
from router_fn.graph import Cache
from router_fn.policies import ReplyCache
from router_fn.replies import Reply
from tests.unit.router_fn.script import Script, build, node, outcome, refused, run, step


def one(**policy: object) -> object:
    return build(node("Sequence", step("a", **policy)))


class TestRetries:
    def test_pauses_double_with_full_jitter_up_to_the_longest(self) -> None:
        script = Script(
            {"a": [(503, b"1"), (502, b"2"), (504, b"3"), (503, b"4"), b"ok"]},
            draws=[1.0, 1.0, 0.5, 1.0],
        )
        fiber = run(one(retries={"attempts": 4, "initialMs": 100, "maxMs": 300}), script)  # type: ignore[arg-type]
        pauses = []
        while fiber.pending:
            ((due, _),) = script.timers
            pauses.append(round(due - script.time, 6))
            script.pass_time(due - script.time)
        assert pauses == [0.1, 0.2, 0.15, 0.3]
        assert fiber.result().body == b"ok"
        assert script.counted == [("retries", "root/0")] * 4

    def test_only_what_may_help_is_repeated(self) -> None:
        for answer in ((500, b"x"), (429, b"x"), (404, b"x")):
            script = Script({"a": answer})
            assert outcome(one(retries=3), script) == answer  # type: ignore[arg-type]
            assert len(script.calls) == 1
        closed = UpstreamError("closed", kind="closed")
        with pytest.raises(UpstreamError):
            outcome(one(retries=3), Script({"a": closed}))  # type: ignore[arg-type]

    def test_the_last_failure_is_reported_as_it_was(self) -> None:
        script = Script({"a": [refused(), (503, b"x")]})
        fiber = run(one(retries=1), script)  # type: ignore[arg-type]
        script.pass_time(1)
        assert fiber.result().status == 503
        script = Script({"a": refused()})
        fiber = run(one(retries=1), script)  # type: ignore[arg-type]
        script.pass_time(1)
        with pytest.raises(UpstreamError):
            fiber.result()

    def test_no_pause_beyond_the_deadline(self) -> None:
        script = Script({"a": (503, b"x")}, draws=[1.0])
        script.deadline = 0.05
        assert outcome(one(retries=3), script) == (503, b"x")  # type: ignore[arg-type]


class TestHedging:
    def test_a_quick_answer_is_asked_for_once(self) -> None:
        script = Script({"a": None})
        fiber = run(one(hedgeAfterMs=50), script)  # type: ignore[arg-type]
        script.answer("a", b"1")
        assert fiber.result().body == b"1"
        assert len(script.calls) == 1

    def test_the_quicker_of_two_wins_and_the_other_is_cancelled(self) -> None:
        script = Script({"a": None})
        fiber = run(one(hedgeAfterMs=50), script)  # type: ignore[arg-type]
        script.pass_time(0.05)
        first = script.waiting["a"].pop(0)
        script.answer("a", b"second")
        assert fiber.result().body == b"second"
        assert not first.pending

    def test_a_bad_quick_answer_does_not_beat_a_good_slow_one(self) -> None:
        script = Script({"a": None})
        fiber = run(one(hedgeAfterMs=50), script)  # type: ignore[arg-type]
        script.pass_time(0.05)
        script.answer("a", (503, b"no"))
        assert fiber.pending
        script.answer("a", b"yes")
        assert fiber.result().body == b"yes"

    def test_two_failures_are_a_failure(self) -> None:
        script = Script({"a": None})
        fiber = run(one(hedgeAfterMs=50), script)  # type: ignore[arg-type]
        script.pass_time(0.05)
        script.answer("a", refused())
        script.answer("a", refused())
        with pytest.raises(UpstreamError):
            fiber.result()


def test_a_nested_node_may_have_a_time_limit() -> None:
    script = Script({"b": None})
    fiber = run(
        build(node("Sequence", step("node:n", timeoutSeconds=2)), n=node("Sequence", step("b"))),
        script,
    )
    script.pass_time(2)
    with pytest.raises(UpstreamError, match="2 s"):
        fiber.result()
    assert script.cancelled == ["b"]


def test_a_mirror_gets_its_share_of_copies() -> None:
    made = one(mirror={"serviceUrl": "http://m.test/shadow", "percent": 25})
    script = Script({}, draws=[0.24, 0.26, 0.9, 0.0])
    for _ in range(4):
        outcome(made, script)  # type: ignore[arg-type]
    assert script.mirrored == [("http://m.test/shadow", b"{}")] * 2


class TestCache:
    def test_good_answers_live_as_long_as_they_may(self) -> None:
        made = one(cache={"ttlSeconds": 10})
        script = Script({"a": [b"1", (500, b"2"), b"3"]})
        assert [outcome(made, script)[1], outcome(made, script)[1]] == [b"1", b"1"]  # type: ignore[arg-type]
        script.time = 10.0
        assert [outcome(made, script)[1], outcome(made, script)[1]] == [b"2", b"3"]  # type: ignore[arg-type]

    def test_it_is_bounded_in_entries_and_bytes_and_forgets_the_least_used(self) -> None:
        cache = ReplyCache(Cache(ttl_s=10, max_entries=2, max_bytes=10))
        cache.put(b"a", Reply(200, b"1"), 0)
        cache.put(b"b", Reply(200, b"2"), 0)
        assert cache.get(b"a", 1)
        cache.put(b"c", Reply(200, b"3"), 1)
        assert [bool(cache.get(key, 1)) for key in (b"a", b"b", b"c")] == [True, False, True]
        cache.put(b"d", Reply(200, b"x" * 9), 1)
        assert [bool(cache.get(key, 1)) for key in (b"a", b"c", b"d")] == [False, True, True]
        cache.put(b"e", Reply(200, b"x" * 11), 1)
        assert cache.get(b"e", 1) is None


def test_the_deepest_graph_that_is_allowed_runs_with_every_policy() -> None:
    from router_fn.graph_checks import MAX_DEPTH

    last = MAX_DEPTH - 2
    policies = {"tolerate": "Errors", "timeoutSeconds": 3, "retries": 1, "hedgeAfterMs": 100}
    nodes = {f"n{i}": node("Sequence", step(f"node:n{i + 1}", **policies)) for i in range(last)}
    made = build(
        node("Sequence", step("node:n0")), **nodes, **{f"n{last}": node("Ensemble", step("a"))}
    )
    script = Script({"a": None})
    fiber = run(made, script)
    script.answer("a", b"{}")
    assert fiber.result().body == b'{"0":{}}'
