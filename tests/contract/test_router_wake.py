"""Wake-ahead: services that sleep are woken together (a fake activator stands for Knative's)."""

import threading
import time
from typing import Any

import pytest

from tests import fakes_router as fakes
from tests.fakes_router import FakeUpstream, graph, node, router, sequence, upstream

COLD_START_S = 1.0


class Sleeper:
    """A service behind an activator: the first request of any kind starts it, everybody waits until
    it is up."""

    def __init__(self, cold_start_s: float = COLD_START_S) -> None:
        self._cold_start_s = cold_start_s
        self._woken_at: float | None = None
        self._lock = threading.Lock()
        self.upstream = FakeUpstream(default=self._answer)

    @property
    def url(self) -> str:
        return self.upstream.url

    @property
    def woken_by(self) -> str:
        return self.upstream.paths()[0]

    def _answer(self, talk: fakes.Conversation) -> None:
        with self._lock:
            if self._woken_at is None:
                self._woken_at = time.monotonic()
        time.sleep(max(0.0, self._woken_at + self._cold_start_s - time.monotonic()))
        talk.answer(talk.seen.body or b"{}")


@pytest.fixture
def sleepers() -> Any:
    made: list[Sleeper] = []

    def make(count: int, cold_start_s: float = COLD_START_S) -> list[Sleeper]:
        made.extend(Sleeper(cold_start_s) for _ in range(count))
        return made

    yield make
    for sleeper in made:
        sleeper.upstream.stop()


def took(served: fakes.RouterProcess, body: bytes = b"{}") -> float:
    began = time.monotonic()
    assert served.request(body=body).status == 200
    return time.monotonic() - began


def chain(services: list[Sleeper]) -> list[dict[str, Any]]:
    return [
        {"serviceUrl": f"{one.url}/v1/models/m:predict", "data": "$response"} for one in services
    ]


def test_a_cold_chain_costs_about_one_cold_start(sleepers: Any) -> None:
    services = sleepers(4)
    with router(sequence(*chain(services))) as served:
        assert took(served) < 2 * COLD_START_S
        assert [one.woken_by for one in services] == [
            "/v1/models/m:predict",
            "/readyz",
            "/readyz",
            "/readyz",
        ]


def test_without_prewarm_cold_starts_add_up(sleepers: Any) -> None:
    services = sleepers(3, 0.4)
    with router(sequence(*chain(services)) | {"prewarm": "none"}) as served:
        assert took(served) > 3 * 0.4


def test_warm_services_are_not_woken_again(sleepers: Any) -> None:
    services = sleepers(2, 0.1)
    with router(sequence(*chain(services))) as served:
        for _ in range(5):
            took(served)
    assert services[1].upstream.paths().count("/readyz") == 1


def test_only_what_is_sure_is_woken(sleepers: Any) -> None:
    first, conditional, behind, a, b = services = sleepers(5, 0.05)
    spec = graph(
        node(
            "Sequence",
            {"serviceUrl": first.url},
            {"nodeName": "both"},
            {"serviceUrl": conditional.url, "condition": "never"},
            {"serviceUrl": behind.url},
        ),
        both=node("Ensemble", {"serviceUrl": a.url + "/v2/models/m/infer"}, {"serviceUrl": b.url}),
    )
    with router(spec) as served:
        took(served)
    assert conditional.upstream.paths() == behind.upstream.paths() == []
    assert a.woken_by == "/v2/health/ready"
    assert b.woken_by == "/readyz"
    del services


def test_prewarm_all_includes_what_conditions_may_need(sleepers: Any) -> None:
    first, conditional, left, right = sleepers(4, 0.05)
    spec = graph(
        node(
            "Sequence",
            {"serviceUrl": first.url},
            {"serviceUrl": conditional.url, "condition": "never"},
            {"nodeName": "either"},
        ),
        {"prewarm": "all"},
        either=node(
            "Switch",
            {"serviceUrl": left.url, "condition": "a"},
            {"serviceUrl": right.url, "default": True},
        ),
    )
    with router(spec) as served:
        took(served)
        for one in (conditional, left, right):
            fakes.wait_until(one.upstream.paths, "a wake-up call")


def test_a_branch_chosen_by_the_request_is_woken_along(sleepers: Any) -> None:
    first, second, other = sleepers(3, 0.3)
    spec = graph(
        node(
            "Switch",
            {"nodeName": "long", "condition": "long"},
            {"serviceUrl": other.url, "default": True},
        ),
        long=node("Sequence", {"serviceUrl": first.url}, {"serviceUrl": second.url}),
    )
    with router(spec) as served:
        assert took(served, b'{"long":1}') < 0.55
    assert other.upstream.paths() == []


def test_a_service_that_cannot_be_woken_disturbs_nobody(sleepers: Any) -> None:
    (first,) = sleepers(1, 0.05)
    dead = f"http://127.0.0.1:{fakes.free_port()}"
    spec = sequence(
        {"serviceUrl": first.url},
        {"serviceUrl": dead, "dependency": "Soft", "tolerate": "Errors"},
        {"serviceUrl": first.url},
    )
    with router(spec) as served:
        took(served)


def test_sigterm_during_a_cold_prewarm_does_not_hang() -> None:
    with upstream({"/readyz": fakes.after(60, fakes.echo)}) as asleep, upstream() as awake:
        spec = sequence(
            {"serviceUrl": awake.url},
            {"serviceUrl": awake.url, "condition": "go", "unmet": "Skip"},
            {"serviceUrl": asleep.url + "/x"},
            {"serviceUrl": asleep.url + "/y", "condition": "never"},
        )
        asleep.routes["/x"] = fakes.echo
        served = fakes.RouterProcess(spec)
        try:
            served.wait_ready()
            took(served)
            began = time.monotonic()
            assert served.stop() == 0
            assert time.monotonic() - began < 5
        finally:
            served.stop()


def test_a_branch_that_the_request_decides_is_woken_before_its_turn(sleepers: Any) -> None:
    first, chosen, other, unknown = sleepers(4, 0.4)
    spec = graph(
        node(
            "Sequence",
            {"serviceUrl": first.url},
            {"nodeName": "by-request"},
            {"nodeName": "by-answer"},
        ),
        **{
            "by-request": node(
                "Switch",
                {"serviceUrl": chosen.url, "condition": "a"},
                {"serviceUrl": other.url, "condition": "b"},
            ),
            "by-answer": node(
                "Switch",
                {"serviceUrl": unknown.url, "condition": "never"},
                {"serviceUrl": first.url, "default": True},
                judge="$response",
            ),
        },
    )
    with router(spec) as served:
        assert took(served, b'{"a":1}') < 0.7
    assert chosen.woken_by == "/readyz"
    assert other.upstream.paths() == unknown.upstream.paths() == []
