"""What the router adds to KServe's semantics, over HTTP with the router as a process."""

import json
import socket
import time

import pytest

from tests import fakes_router as fakes
from tests.fakes_router import (
    after,
    echo,
    graph,
    in_turn,
    inspect,
    node,
    router,
    says,
    sequence,
    upstream,
)


def refused() -> str:
    """A URL that nobody listens on."""
    return f"http://127.0.0.1:{fakes.free_port()}"


class TestSequence:
    def test_unmet_skip_goes_on_and_judges_the_last_executed_step(self) -> None:
        condition = '[@this].#(predictions.0=="{}")'
        with upstream({"/first": says(b'{"predictions":["plant"]}')}) as up:
            spec = sequence(
                {"serviceUrl": up.url + "/first"},
                {"serviceUrl": up.url + "/animal", "condition": condition.format("animal")},
                {"serviceUrl": up.url + "/plant", "condition": condition.format("plant")},
                unmet="Skip",
            )
            with router(spec) as served:
                answer = served.request(body=b'{"photo":1}')
        assert answer.json == {"photo": 1}
        assert up.paths() == ["/first", "/plant"]

    def test_skipping_everything_leaves_the_last_answer_with_its_status(self) -> None:
        with upstream({"/first": says(b'{"a":1}', status=418)}) as up:
            spec = sequence(
                {"serviceUrl": up.url + "/first"},
                {"serviceUrl": up.url + "/x", "condition": "zz", "unmet": "Skip"},
            )
            with router(spec) as served:
                answer = served.request()
        assert (answer.status, answer.body) == (418, b'{"a":1}')

    def test_collect_returns_every_executed_step(self) -> None:
        with upstream({"/a": says(b'{"x": 1.0}'), "/b": says(b"[2]")}) as up:
            spec = sequence(
                {"name": "a", "serviceUrl": up.url + "/a"},
                {"serviceUrl": up.url + "/b"},
                collect=True,
            )
            with router(spec) as served:
                assert served.request().body == b'{"a":{"x": 1.0},"1":[2]}'

    @pytest.mark.parametrize(
        ("fields", "sent"),
        [
            ({"data": "$response", "pick": "predictions"}, [{"label": "dog", "n": 1.50}]),
            ({"data": "$response", "pick": "$.predictions[0].label"}, "dog"),
            (
                {"data": "$response", "mapPredictionsToInstances": True},
                {"instances": [{"label": "dog", "n": 1.5}]},
            ),
        ],
    )
    def test_parts_of_an_answer_go_on(self, fields: dict[str, object], sent: object) -> None:
        first = says(b'{"predictions":[{"label":"dog","n":1.50}],"id":"7"}')
        with upstream({"/a": first}) as up:
            spec = sequence({"serviceUrl": up.url + "/a"}, {"serviceUrl": up.url + "/b", **fields})
            with router(spec) as served:
                assert served.request().json == sent

    def test_data_paths_work_when_the_graph_asks_for_them(self) -> None:
        with upstream({"/a": says(b'{"predictions":[1.0, 2]}')}) as up:
            step = {"serviceUrl": up.url + "/b", "data": "$response.predictions"}
            spec = sequence({"serviceUrl": up.url + "/a"}, step) | {"pickData": True}
            with router(spec) as served:
                assert served.request().body == b"[1.0, 2]"

    def test_v2_outputs_become_inputs(self) -> None:
        outputs = (
            b'{"model_name":"m","outputs":[{"name":"o","shape":[1],"datatype":"FP32",'
            b'"data":[1.0]}]}'
        )
        with upstream({"/a": says(outputs)}) as up:
            spec = sequence(
                {"serviceUrl": up.url + "/a"},
                {"serviceUrl": up.url + "/b", "data": "$response", "mapOutputsToInputs": True},
            )
            with router(spec) as served:
                assert served.request().json["inputs"][0]["data"] == [1.0]


class TestSwitch:
    def test_default_takes_what_no_condition_does_even_what_is_not_json(self) -> None:
        with upstream() as up:
            spec = graph(
                node(
                    "Switch",
                    {"serviceUrl": up.url + "/default", "default": True},
                    {"serviceUrl": up.url + "/a", "condition": "a"},
                )
            )
            with router(spec) as served:
                for body in (b'{"a":1}', b'{"b":1}', b"text", b""):
                    served.request(body=body)
        assert up.paths() == ["/a", "/default", "/default", "/default"]

    def test_a_switch_may_judge_the_answer_before_it_while_forwarding_the_request(self) -> None:
        switch = "[@this].#(kind=={})"
        with upstream({"/classify": says(b'{"kind":"cat"}')}) as up:
            spec = graph(
                node("Sequence", {"serviceUrl": up.url + "/classify"}, {"nodeName": "by-kind"}),
                **{
                    "by-kind": node(
                        "Switch",
                        {"serviceUrl": up.url + "/dog", "condition": switch.format("dog")},
                        {"serviceUrl": up.url + "/cat", "condition": switch.format("cat")},
                        judge="$response",
                    )
                },
            )
            with router(spec) as served:
                assert served.request(body=b'{"photo":7}').json == {"photo": 7}
        assert up.paths() == ["/classify", "/cat"]


class TestEnsemble:
    def test_a_vote_is_one_answer(self) -> None:
        routes = {
            f"/{i}": says(b'{"predictions":["%s"]}' % word)
            for i, word in enumerate((b"cat", b"dog", b"dog"))
        }
        with upstream(routes) as up:
            spec = graph(
                node(
                    "Ensemble",
                    *({"serviceUrl": f"{up.url}/{i}"} for i in range(3)),
                    combiner="vote",
                )
            )
            with router(spec) as served:
                assert served.request().json["predictions"] == ["dog"]

    def test_the_first_good_answer_wins_and_the_rest_is_cancelled(self) -> None:
        gone: list[bool] = []
        routes = {
            "/bad": says(b'{"e":1}', status=500),
            "/quick": after(0.05, says(b'{"quick":1}')),
            "/slow": lambda talk: gone.append(talk.client_gone()),
        }
        with upstream(routes) as up:
            spec = graph(
                node(
                    "Ensemble",
                    *({"serviceUrl": up.url + path} for path in routes),
                    combiner="first",
                )
            )
            with router(spec) as served:
                assert served.request().json == {"quick": 1}
                fakes.wait_until(lambda: gone, "the slow member's connection is closed")
        assert gone == [True]

    def test_a_hard_failure_cancels_members_that_no_longer_matter(self) -> None:
        gone: list[bool] = []
        routes = {
            "/hard": says(b'{"e":1}', status=410),
            "/slow": lambda talk: gone.append(talk.client_gone()),
        }
        with upstream(routes) as up:
            spec = graph(
                node(
                    "Ensemble",
                    {"serviceUrl": up.url + "/hard", "dependency": "Hard"},
                    {"serviceUrl": up.url + "/slow"},
                )
            )
            with router(spec) as served:
                assert served.request().status == 410
                fakes.wait_until(lambda: gone, "the slow member's connection is closed")


class TestPolicies:
    def test_retries_on_503_and_on_refused_connections(self) -> None:
        with upstream({"/a": in_turn(says(status=503), says(status=502), says(b'{"ok":1}'))}) as up:
            step = {"serviceUrl": up.url + "/a", "retries": {"attempts": 2, "initialMs": 5}}
            with router(sequence(step)) as served:
                assert served.request().json == {"ok": 1}
                assert len(up.seen) == 3

    def test_retries_end_and_other_statuses_are_not_retried(self) -> None:
        with upstream(
            {"/a": says(b'{"e":1}', status=503), "/b": says(b'{"e":2}', status=500)}
        ) as up:
            policy = {"retries": {"attempts": 2, "initialMs": 1}}
            with router(sequence({"serviceUrl": up.url + "/a", **policy})) as served:
                assert served.request().status == 503
            assert len(up.seen) == 3
            with router(sequence({"serviceUrl": up.url + "/b", **policy})) as served:
                assert served.request().status == 500
            assert len(up.seen) == 4

    def test_a_step_timeout_is_an_error_of_that_step(self) -> None:
        with upstream({"/slow": after(1.0, echo)}) as up:
            step = {"serviceUrl": up.url + "/slow", "timeoutSeconds": 0.1, "name": "slow"}
            with router(sequence(step)) as served:
                began = time.monotonic()
                answer = served.request()
                assert time.monotonic() - began < 0.9
        assert answer.status == 500
        assert "root/slow" in answer.json["cause"]
        assert "0.1 s" in answer.json["cause"]

    @pytest.mark.parametrize("kind", ["Sequence", "Switch"])
    def test_service_client_limits_one_step_graphs_on_pooled_connections_too(
        self, kind: str
    ) -> None:
        with upstream({"/a": in_turn(echo, after(2.5, echo))}) as up:
            spec = graph(
                node(
                    kind,
                    {"serviceUrl": up.url + "/a", "condition": "" if kind == "Sequence" else "a"},
                )
            )
            with router(spec | {"routerTimeouts": {"serviceClient": 1}}) as served:
                assert [served.request(body=b'{"a":1}').status for _ in range(2)] == [200, 500]

    def test_the_graphs_deadline_is_504(self) -> None:
        with upstream({"/slow": after(1.0, echo)}) as up:
            spec = sequence({"serviceUrl": up.url + "/slow"}) | {"timeoutSeconds": 0.1}
            with router(spec) as served:
                assert served.request().status == 504

    def test_hedging_asks_twice_and_takes_the_quicker(self) -> None:
        with upstream({"/a": in_turn(after(2.0, says(b'{"slow":1}')), says(b'{"quick":1}'))}) as up:
            with router(sequence({"serviceUrl": up.url + "/a", "hedgeAfterMs": 50})) as served:
                began = time.monotonic()
                assert served.request().json == {"quick": 1}
                assert time.monotonic() - began < 1.5
            assert len(up.seen) == 2

    def test_a_mirror_sees_the_request_and_cannot_disturb(self) -> None:
        with upstream({"/shadow": after(0.5, lambda talk: talk.close())}) as up:
            steps = {"serviceUrl": up.url + "/a", "mirror": {"serviceUrl": up.url + "/shadow"}}
            dead = {"serviceUrl": up.url + "/b", "mirror": {"serviceUrl": refused()}}
            with router(sequence(steps, dead)) as served:
                began = time.monotonic()
                assert served.request(body=b'{"m":1}').json == {"m": 1}
                assert time.monotonic() - began < 0.4
                fakes.wait_until(lambda: "/shadow" in up.paths(), "the mirrored request")

    def test_a_cached_answer_spares_the_call_until_it_is_too_old(self) -> None:
        with upstream() as up:
            step = {"serviceUrl": up.url + "/a", "cache": {"ttlSeconds": 0.3}}
            with router(sequence(step)) as served:
                for _ in range(3):
                    assert served.request(body=b'{"q":1}').body == b'{"q":1}'
                served.request(body=b'{"q":2}')
                assert len(up.seen) == 2
                fakes.wait_until(
                    lambda: served.request(body=b'{"q":1}') and len(up.seen) == 3, "expiry"
                )

    def test_errors_are_not_cached(self) -> None:
        with upstream({"/a": in_turn(says(b'{"e":1}', status=500), says(b'{"ok":1}'))}) as up:
            with router(
                sequence({"serviceUrl": up.url + "/a", "cache": {"ttlSeconds": 60}})
            ) as served:
                assert [served.request().status for _ in range(3)] == [500, 200, 200]
            assert len(up.seen) == 2

    @pytest.mark.parametrize("by", [{"header": "X-User"}, {"cookie": "user"}])
    def test_a_sticky_splitter_sends_a_client_to_the_same_branch(self, by: dict[str, str]) -> None:
        with upstream({"/a": says(b'{"to":"a"}'), "/b": says(b'{"to":"b"}')}) as up:
            branches = ({"serviceUrl": f"{up.url}/{name}", "weight": 50} for name in "ab")
            with router(graph(node("Splitter", *branches, stickyBy=by))) as served:
                taken: dict[str, set[str]] = {}
                for user in (f"user-{i}" for i in range(24)):
                    headers = (
                        {"X_User": user} if "header" in by else {"Cookie": f"x=1; user={user}"}
                    )
                    taken[user] = {served.request(**headers).json["to"] for _ in range(3)}
        assert all(len(branches) == 1 for branches in taken.values())
        assert set.union(*taken.values()) == {"a", "b"}

    def test_tolerated_errors_of_a_nested_node_become_502_for_the_hard_rule(self) -> None:
        with upstream() as up:
            spec = graph(
                node(
                    "Sequence",
                    {"nodeName": "broken", "dependency": "Hard", "tolerate": "Errors"},
                    {"serviceUrl": up.url + "/never"},
                ),
                broken=node("Sequence", {"serviceUrl": refused()}),
            )
            with router(spec) as served:
                assert served.request().status == 502
        assert up.seen == []


class TestGraphSettings:
    def test_headers_of_the_graph_replace_the_environments(self) -> None:
        with upstream(default=inspect) as up:
            patterns = {"patterns": ["^x-tenant$"], "ignoreCase": True}
            spec = sequence({"serviceUrl": up.url}) | {"propagateHeaders": patterns}
            with router(spec, PROPAGATE_HEADERS="X-Other") as served:
                seen = served.request(X_Tenant="t", X_Other="o").json["headers"]
        assert seen["x-tenant"] == "t"
        assert "x-other" not in seen

    def test_named_response_headers_come_back(self) -> None:
        with upstream({"/a": says(b"{}", X_Model_Version="7", X_Secret="s")}) as up:
            spec = sequence({"serviceUrl": up.url + "/a"}) | {"returnHeaders": ["x-model-version"]}
            with router(spec) as served:
                headers = served.request().headers
        assert headers["x-model-version"] == "7"
        assert "x-secret" not in headers

    def test_server_timing_names_every_step(self) -> None:
        with upstream() as up:
            spec = sequence({"name": "a", "serviceUrl": up.url}, {"serviceUrl": up.url}) | {
                "serverTiming": True
            }
            with router(spec) as served:
                timing = served.request().headers["server-timing"]
        assert [entry.partition(";")[0] for entry in timing.split(", ")] == [
            "root-a",
            "root-1",
            "total",
        ]

    def test_too_many_requests_at_once_are_turned_away_with_a_hint(self) -> None:
        with upstream({"/slow": after(0.6, echo)}) as up:
            spec = sequence({"serviceUrl": up.url + "/slow"}) | {"maxConcurrency": 1}
            with router(spec) as served, served.connect() as first:
                first.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                fakes.wait_until(lambda: up.seen, "the first request is under way")
                answer = served.request()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert first.recv(100).startswith(b"HTTP/1.1 200")

    def test_the_graphs_body_limit(self) -> None:
        with upstream() as up:  # noqa: SIM117
            with router(sequence({"serviceUrl": up.url}) | {"maxBodyBytes": 10}) as served:
                assert served.request(body=b'"12345678"').status == 200
                assert served.request(body=b'"123456789"').status == 413


class TestStreaming:
    def test_events_reach_the_client_before_the_next_one_is_made(self) -> None:
        def stream(talk: fakes.Conversation) -> None:
            talk.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
                b"chunked\r\n\r\n"
            )
            for index in range(3):
                data = b"data: %d\n\n" % index
                talk.raw(b"%x\r\n%s\r\n" % (len(data), data))
                arrived[index].wait(5)
            talk.raw(b"0\r\n\r\n")

        import threading

        arrived = [threading.Event() for _ in range(3)]
        with upstream({"/llm": stream}) as up:
            spec = graph(
                node("Sequence", {"serviceUrl": up.url + "/pre"}, {"nodeName": "last"}),
                last=node("Switch", {"serviceUrl": up.url + "/llm", "default": True}),
            )
            with router(spec) as served, served.connect() as client:
                client.settimeout(5)
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                got = b""
                for index in range(3):
                    while b"data: %d" % index not in got:
                        piece = client.recv(4096)
                        assert piece, got
                        got += piece
                    arrived[index].set()
                while not got.endswith(b"0\r\n\r\n"):
                    got += client.recv(4096)
        assert b"Content-Type: text/event-stream" in got
        assert b"Transfer-Encoding: chunked" in got

    def test_the_graphs_own_fields_are_in_a_streamed_head(self) -> None:
        def stream(talk: fakes.Conversation) -> None:
            talk.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Model: m1\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n8\r\ndata: 0\n\r\n"
            )
            arrived.wait(5)
            talk.raw(b"0\r\n\r\n")

        import threading

        arrived = threading.Event()
        with upstream({"/llm": stream}) as up:
            spec = graph(
                node(
                    "Sequence",
                    {"name": "pre", "serviceUrl": up.url + "/pre"},
                    {"serviceUrl": up.url + "/llm"},
                ),
            )
            spec |= {"serverTiming": True, "returnHeaders": ["x-model"]}
            with router(spec) as served, served.connect() as client:
                client.settimeout(5)
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                got = b""
                while b"data: 0" not in got:  # arrives while the upstream still holds back its end
                    piece = client.recv(4096)
                    assert piece, got
                    got += piece
                arrived.set()
        head = got.partition(b"\r\n\r\n")[0]
        assert b"X-Model: m1" in head
        assert b"Server-Timing: " in head
        assert b"pre;dur=" in head
        assert b"total;dur=" in head

    def test_a_stream_that_breaks_off_is_seen_to_break_off(self) -> None:
        def broken(talk: fakes.Conversation) -> None:
            talk.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
                b"chunked\r\n\r\n"
            )
            talk.raw(b"8\r\ndata: 0\n\r\n")
            talk.close()

        with (
            upstream({"/llm": broken}) as up,
            router(sequence({"serviceUrl": up.url + "/llm"})) as served,
            served.connect() as client,
        ):
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            got = fakes.recv_all(client)
        assert b"data: 0" in got
        assert not got.endswith(b"0\r\n\r\n")

    def test_a_slow_reader_slows_the_upstream_down_instead_of_filling_memory(self) -> None:
        sent = 0

        def flood(talk: fakes.Conversation) -> None:
            nonlocal sent
            talk.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
                b"chunked\r\n\r\n"
            )
            block = b"%x\r\n%s\r\n" % (1 << 16, b"x" * (1 << 16))
            talk.sock.settimeout(0.7)
            try:
                for _ in range(2000):
                    talk.raw(block)
                    sent += 1
            except TimeoutError:
                pass
            talk.close()

        with (
            upstream({"/llm": flood}) as up,
            router(sequence({"serviceUrl": up.url + "/llm"})) as served,
            socket.socket() as client,
        ):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.connect(("127.0.0.1", served.port))
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            fakes.wait_until(lambda: not up.open, "the upstream gives up", 15)
        assert sent < 1000

    @pytest.mark.parametrize(("accept", "early"), [("text/event-stream", True), ("*/*", False)])
    def test_chunked_json_is_streamed_only_for_clients_that_ask(
        self, accept: str, early: bool
    ) -> None:
        def two_chunks(talk: fakes.Conversation) -> None:
            talk.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                b"chunked\r\n\r\n"
            )
            talk.raw(b'5\r\n{"a":\r\n')
            time.sleep(0.3)
            talk.raw(b"2\r\n1}\r\n0\r\n\r\n")

        with (
            upstream({"/a": two_chunks}) as up,
            router(sequence({"serviceUrl": up.url + "/a"})) as served,
            served.connect() as client,
        ):
            client.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nAccept: %b\r\nContent-Length: 2\r\n\r\n{}"
                % accept.encode()
            )
            first = client.recv(4096)
        assert (b"Content-Length: 7" in first) is not early
        assert (b"chunked" in first) is early


class TestClients:
    def test_a_client_that_leaves_cancels_its_work(self) -> None:
        gone: list[bool] = []
        routes = {"/slow": lambda talk: gone.append(talk.client_gone())}
        for steps in (1, 2):  # the one-step path and the engine's
            gone.clear()
            with upstream(routes) as up:
                spec = sequence(*[{"serviceUrl": up.url + "/slow"}] * steps)
                with router(spec) as served:
                    with served.connect() as client:
                        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
                        fakes.wait_until(lambda: up.seen, "the request is under way")
                    fakes.wait_until(lambda: gone, "the upstream call is dropped")
                    assert served.request("GET", "/readyz").status == 200
            assert gone == [True]

    def test_a_half_closed_client_still_gets_its_answer(self) -> None:
        with (
            upstream({"/a": after(0.5, echo)}) as up,
            router(sequence({"serviceUrl": up.url + "/a"})) as served,
            served.connect() as client,
        ):
            client.sendall(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{"a":1}')
            client.shutdown(socket.SHUT_WR)
            got = fakes.recv_all(client)
        assert b"HTTP/1.1 200 OK" in got
        assert got.endswith(b'{"a":1}')


def test_gzip_from_upstream_is_undone_but_passed_on_when_the_client_asked() -> None:
    import gzip

    packed = gzip.compress(json.dumps({"zipped": "x" * 1000}).encode())
    with upstream(
        {"/a": says(packed, Content_Encoding="gzip", Content_Type="application/json")}
    ) as up:
        with router(sequence({"serviceUrl": up.url + "/a"})) as served:
            assert served.request().json == {"zipped": "x" * 1000}
        with router(
            sequence({"serviceUrl": up.url + "/a"}), PROPAGATE_HEADERS="Accept-Encoding"
        ) as served:
            assert served.request(Accept_Encoding="gzip").body == packed


def test_upstreams_are_called_through_the_proxy_in_absolute_form() -> None:
    with upstream(default=inspect) as proxy:
        spec = sequence({"serviceUrl": "http://model.ns.svc.cluster.local/v1/models/m:predict?x=1"})
        with router(spec, http_proxy=proxy.url, no_proxy="127.0.0.1") as served:
            seen = served.request().json
    assert seen["path"] == "http://model.ns.svc.cluster.local/v1/models/m:predict?x=1"
    assert seen["headers"]["host"] == "model.ns.svc.cluster.local"
