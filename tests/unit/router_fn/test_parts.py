"""The small parts: URLs, proxies, fibers, traces, metrics, settings, explanations."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_fn import explain
from router_fn.fibers import Fiber, FirstOf, Wait, cancel_all
from router_fn.metrics import Metrics
from router_fn.proxies import make_chooser
from router_fn.settings import Settings, SettingsError
from router_fn.tracing import Tracer
from router_fn.urls import parse_url, resolve
from tests.unit.router_fn.script import build, node, step


class TestUrls:
    @pytest.mark.parametrize(
        ("text", "authority", "target"),
        [
            ("http://m.ns.svc:80/a?b=c#d", "m.ns.svc", "/a?b=c"),
            ("http://m", "m", "/"),
            ("http://m?x", "m", "/?x"),
            ("https://m:8443/a%2Fb/é x", "m:8443", "/a%2Fb/%C3%A9%20x"),
            ("http://[::1]:8080/", "[::1]:8080", "/"),
            ("grpc://m:9000/iris", "m:9000", "/iris"),
            ("http://user:pw@m/", "m", "/"),
        ],
    )
    def test_understood(self, text: str, authority: str, target: str) -> None:
        url = parse_url(text)
        assert (url.authority, url.target) == (authority, target)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "m",
            "/a",
            "ftp://m/",
            "http://",
            "http:///a",
            "http://a b/",
            "http://{x}/",
            "http://m:99999/",
            "http://m:x/",
            "http://m\r\nX: y/",
            "http://m:0/",
        ],
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_url(text)

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=40))
    def test_nothing_but_value_errors_and_no_way_to_inject(self, text: str) -> None:
        try:
            url = parse_url("http://m/" + text)
        except ValueError:
            return
        assert re.fullmatch(r"[!-~]+", url.target)

    def test_redirects_resolve_against_where_they_came_from(self) -> None:
        base = parse_url("http://m:81/a/b?c")
        assert str(resolve(base, "../x?y")) == "http://m:81/x?y"
        assert str(resolve(base, "//n/z")) == "http://n/z"


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("http://m.ns.svc.cluster.local/", "", True),
        ("http://127.0.0.1:9/", "", False),
        ("http://localhost/", "", False),
        ("http://[::1]/", "", False),
        ("http://m.example.com/", "example.com", False),
        ("http://m.example.com/", ".example.com", False),
        ("http://example.com/", ".example.com", True),
        ("http://badexample.com/", "example.com", True),
        ("http://m:81/", "m:82", True),
        ("http://m:81/", "other, m:81", False),
        ("http://10.1.2.3/", "10.0.0.0/8", False),
        ("http://m/", "*", False),
        ("https://m/", "", False),
    ],
)
def test_which_upstreams_go_through_the_proxy(url: str, no_proxy: str, proxied: bool) -> None:
    chosen = make_chooser("http://proxy:3128", "", no_proxy)(parse_url(url))
    assert (chosen is not None) is proxied


class TestFibers:
    def test_values_and_errors_arrive_whether_they_are_early_or_late(self) -> None:
        early, late, bad = Wait[int](), Wait[int](), Wait[int]()
        early.resolve(1)

        async def work() -> list[Any]:
            out: list[Any] = [await early, await late]
            try:
                await bad
            except ValueError as error:
                out.append(str(error))
            return out

        fiber = Fiber(work())
        late.resolve(2)
        late.resolve(3)
        assert fiber.pending
        bad.fail(ValueError("boom"))
        assert fiber.result() == [1, 2, "boom"]

    def test_cancelling_reaches_the_innermost_wait_and_runs_finally(self) -> None:
        wait, log = Wait[int](), []

        async def inner() -> None:
            try:
                await wait
            finally:
                log.append("closed")

        async def outer() -> None:
            await inner()

        fiber = Fiber(outer())
        fiber.cancel()
        fiber.cancel()
        wait.resolve(1)
        assert log == ["closed"]

    def test_first_of_tells_who_and_leaves_the_rest_to_be_cancelled(self) -> None:
        waits = [Wait[int](), Wait[int]()]
        first = FirstOf(waits)
        waits[1].fail(ValueError())
        cancel_all(waits)
        assert (first.result(), waits[0].pending) == (1, False)


class TestTraces:
    def test_a_good_parent_is_continued_a_bad_one_is_not(self) -> None:
        tracer = Tracer("s")
        good = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
        assert tracer.server_span([(b"Traceparent", good)]).trace_id == b"a" * 32
        for bad in (
            b"",
            b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01",
            b"ff" + good[2:],
            good[:-3],
            good.upper(),
        ):
            assert tracer.server_span([(b"Traceparent", bad)]).trace_id != b"a" * 32

    def test_batches_are_otlp_json_and_the_queue_is_bounded(self) -> None:
        from router_fn import tracing

        tracer = Tracer("pets")
        for _ in range(tracing.MAX_QUEUED + 5):
            tracer.end(tracer.server_span([]), 200)
        assert tracer.dropped == 5
        batch = json.loads(tracer.take_batch() or b"")
        spans = batch["resourceSpans"][0]["scopeSpans"][0]["spans"]
        assert len(spans) == tracing.MAX_BATCH
        assert re.fullmatch("[0-9a-f]{32}", spans[0]["traceId"])
        assert int(spans[0]["endTimeUnixNano"]) >= int(spans[0]["startTimeUnixNano"])

    def test_what_is_not_sampled_is_not_kept(self) -> None:
        tracer = Tracer("s", sample_ratio=0.0)
        tracer.end(tracer.server_span([]), 200)
        assert tracer.take_batch() is None


def test_metrics_escape_labels_and_count_into_buckets() -> None:
    metrics = Metrics()
    metrics.step_seconds.observe((("step", 'a"\\\n'),), 0.003)
    text = metrics.render().decode()
    assert 'turnout_step_seconds_bucket{step="a\\"\\\\\\n",le="0.0025"} 0' in text
    assert 'turnout_step_seconds_bucket{step="a\\"\\\\\\n",le="0.005"} 1' in text


class TestSettings:
    def test_defaults_are_promises(self) -> None:
        settings = Settings.from_env({"GRAPH_JSON": "{}"})
        promised = {
            "port": 8080,
            "workers": 1,
            "metrics_port": None,
            "grpc_port": None,
            "propagate_headers": None,
            "max_head_bytes": 65536,
            "max_body_bytes": 64 << 20,
            "max_response_bytes": 64 << 20,
            "prewarm_after_s": 5.0,
            "drain_delay_s": 1.0,
            "drain_timeout_s": 30.0,
            "access_log": False,
            "strict": False,
        }
        assert {name: getattr(settings, name) for name in promised} == promised

    def test_grpc_has_the_port_that_both_were_given(self) -> None:
        given = {"GRAPH_JSON": "{}", "PORT": "8080"}
        both = Settings.from_env({**given, "GRPC_PORT": "8080"})
        assert (both.port, both.grpc_port) == (0, 8080)
        apart = Settings.from_env({**given, "GRPC_PORT": "9000"})
        assert (apart.port, apart.grpc_port) == (8080, 9000)

    def test_every_problem_names_variable_value_and_expectation(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings.from_env(
                {"PORT": "70000", "DRAIN_DELAY_SECONDS": "-1", "EVENT_LOOP": "trio", "STRICT": "2"}
            )
        text = "\n".join(caught.value.problems)
        for part in (
            "PORT='70000': must be a whole number",
            "DRAIN_DELAY_SECONDS='-1'",
            "one of auto, uvloop, asyncio",
            "STRICT='2'",
            "no graph",
        ):
            assert part in text

    def test_a_whole_manifest_is_understood_as_its_spec(self) -> None:
        text = json.dumps({"kind": "InferenceGraph", "spec": {"nodes": {}}})
        assert Settings.from_env({"GRAPH_JSON": text}).graph_spec == {"nodes": {}}

    def test_secrets_do_not_show(self) -> None:
        assert "s3cret" not in repr(Settings(graph_spec={}, otlp_headers="x=s3cret"))


class TestExplain:
    DOG = '[@this].#(predictions.0=="dog")'

    def path(self, made: Any, body: bytes = b"{}", **answers: bytes) -> list[tuple[str, str]]:
        return [
            (f"{one.node}/{one.step}", one.certainty) for one in explain.route(made, body, answers)
        ]

    def test_a_sequence_depends_on_answers_until_they_are_assumed(self) -> None:
        made = build(
            node(
                "Sequence",
                step("a", name="a"),
                step("b", name="b", condition=self.DOG),
                step("c", name="c"),
            )
        )
        assert self.path(made) == [("root/a", "sure"), ("root/b", "maybe"), ("root/c", "maybe")]
        dog, cat = b'{"predictions":["dog"]}', b'{"predictions":["cat"]}'
        assert self.path(made, a=dog) == [
            ("root/a", "sure"),
            ("root/b", "sure"),
            ("root/c", "sure"),
        ]
        assert self.path(made, a=cat) == [("root/a", "sure"), ("root/b", "skipped")]

    def test_a_switch_is_decided_by_the_body(self) -> None:
        made = build(
            node(
                "Switch", step("a", name="a", condition="a"), step("node:n", name="n", default=True)
            ),
            n=node("Ensemble", step("x"), step("y")),
        )
        assert self.path(made, b'{"a":1}') == [("root/a", "sure"), ("root/n", "skipped")]
        assert self.path(made) == [
            ("root/a", "skipped"),
            ("root/n", "sure"),
            ("n/0", "sure"),
            ("n/1", "sure"),
        ]

    def test_chance_is_named(self) -> None:
        made = build(node("Splitter", step("a", weight=100), step("b", weight=0)))
        assert self.path(made) == [("root/0", "sure"), ("root/1", "skipped")]
        text = explain.render(
            explain.route(build(node("Splitter", step("a", weight=30), step("b", weight=70))), b"")
        )
        assert "?> root/0" in text
        assert "30 % of requests" in text

    def test_no_match_is_told(self) -> None:
        (_, last) = explain.route(build(node("Switch", step("a", condition="a"))), b"{}")
        assert "404" in last.reason

    def test_mermaid_escapes_what_people_write(self) -> None:
        made = build(
            node(
                "Switch", step("a", condition='[@this].#(a=="<b>")'), step("node:n", default=True)
            ),
            n=node("Sequence"),
        )
        text = explain.mermaid(made.graph)
        assert "#quot;#lt;b#gt;#quot;" in text
        assert text.startswith("flowchart LR\n")
