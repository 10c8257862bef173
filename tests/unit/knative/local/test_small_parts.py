"""Capacity, traffic, wire, state, logs, ports, memory: small pure parts."""

import asyncio
import json
import os
import random
from pathlib import Path

import pytest

from knative.local import capacity, logs, logview, memory, ports, spec, state, traffic, wire
from knative.local.errors import PortInUse

GIB = 2**30


def template(cpu: int = 0, memory_request: int = 0) -> spec.Template:
    resources = spec.Resources(cpu_request_m=cpu, memory_request=memory_request)
    return spec.Template(containers=(spec.Container(name="c", port=1, resources=resources),))


def admit(made: spec.Template, own: int, running: int, starting: int = 0) -> str:
    machine = capacity.Machine(cpus=2, memory_available=4 * GIB)
    return capacity.admit(
        made,
        machine,
        own_pods=own,
        running=[made] * running,
        starting=[made] * starting,
        cpu_overcommit=2,
        memory_reserve=GIB,
    )


def test_first_pod_ignores_cpu_but_not_memory() -> None:
    assert admit(template(cpu=9000), 0, 0) == ""
    assert admit(template(memory_request=4 * GIB), 0, 0).startswith("Insufficient memory")


def test_further_pods_share_the_overcommitted_cpus() -> None:
    assert admit(template(cpu=1000), 1, 3) == ""
    refused = admit(template(cpu=1000), 1, 4)
    assert refused == "Insufficient cpu: 5000m of 4000m (2 CPUs x 2)"


def test_memory_of_starting_pods_is_set_aside() -> None:
    assert admit(template(memory_request=GIB), 1, 2, starting=2) == ""
    assert "2048 MiB" in admit(template(memory_request=2 * GIB), 1, 1, starting=1)


def test_this_machine_has_cpus_and_memory() -> None:
    machine = capacity.read_machine()
    assert machine.cpus >= 1
    assert machine.memory_available > 2**20


def test_split_follows_percentages() -> None:
    split = traffic.make_split([("a", 25), ("b", 0), ("c", 75)])
    assert split.revisions == ("a", "c")
    assert [split.choose(roll) for roll in (0, 24.9, 25, 99.9)] == ["a", "a", "c", "c"]
    chooser = random.Random(1)
    route = traffic.Route("s", split, {"t": "a"})
    chosen = [route.choose("", chooser) for _ in range(1000)]
    assert 200 < chosen.count("a") < 300
    assert route.choose("t", chooser) == "a"
    assert route.choose("unknown", chooser) in ("a", "c")


def test_the_same_revision_twice_is_one() -> None:
    assert traffic.make_split([("a", 40), ("a", 60)]).revisions == ("a",)


def test_hosts_of_a_tag() -> None:
    assert traffic.hosts("svc", "ns", "new")[:3] == [
        "new-svc.ns.svc.cluster.local",
        "new-svc.ns.svc",
        "new-svc.ns",
    ]


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"A.B:8080", ("a.b", 8080)),
        (b"a.b.", ("a.b", 80)),
        (b"[::1]:9", ("::1", 9)),
        (b"", ("", 80)),
    ],
)
def test_authorities(authority: bytes, expected: tuple[str, int]) -> None:
    assert wire.split_authority(authority) == expected


@pytest.mark.parametrize("authority", [b"a:b", b"a:99999", b"\xff", b"a:-1"])
def test_bad_authorities(authority: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        wire.split_authority(authority)


def request(*headers: tuple[bytes, bytes], peer: str = "10.0.0.1") -> wire.Request:
    return wire.Request(b"GET", b"/", "h", list(headers), b"h", peer=peer)


def test_forwarded_headers() -> None:
    made = dict(
        wire.forwarded_headers(
            request((b"connection", b"close, X-Drop"), (b"x-drop", b"1"), (b"x-keep", b"2")),
            activator=True,
        )
    )
    assert made == {
        b"x-keep": b"2",
        b"x-forwarded-for": b"10.0.0.1",
        b"x-forwarded-proto": b"http",
        b"forwarded": b"for=10.0.0.1;proto=http",
        b"k-proxy-request": b"activator",
    }


def test_forwarded_of_the_client_stays_and_ipv6_is_quoted() -> None:
    kept = dict(wire.forwarded_headers(request((b"forwarded", b"for=x")), activator=False))
    assert kept[b"forwarded"] == b"for=x"
    made = dict(wire.forwarded_headers(request(peer="::1"), activator=False))
    assert made[b"forwarded"] == b'for="[::1]";proto=http'


@pytest.mark.parametrize(
    ("header", "probe"),
    [
        ((b"user-agent", b"kube-probe/1.30"), True),
        ((b"user-agent", b"Knative-Activator-Probe"), True),
        ((b"k-network-probe", b"queue"), True),
        ((b"user-agent", b"curl/8"), False),
    ],
)
def test_probe_traffic(header: tuple[bytes, bytes], probe: bool) -> None:
    assert wire.is_probe(request(header)) is probe


def test_trace_ids() -> None:
    parent = wire.new_traceparent()
    assert wire.trace_id(request((b"traceparent", parent))) == parent[3:35]
    assert wire.trace_id(request((b"traceparent", b"junk"))) == b""


def test_ports_are_leased_once() -> None:
    leases = [ports.lease() for _ in range(20)]
    try:
        assert len({lease.port for lease in leases}) == 20
        assert all(ports.FIRST <= lease.port <= ports.LAST for lease in leases)
        again = random.Random(0)
        first = ports.lease(again)
        second = ports.lease(random.Random(0))
        assert first.port != second.port
        leases += [first, second]
    finally:
        for lease in leases:
            lease.release()


def test_state_directory_is_locked_and_recovers(tmp_path: Path) -> None:
    first = state.StateDir(tmp_path / "s")
    first.open()
    (first.pods / "left-over").mkdir()
    first.publish(1234)
    with pytest.raises(PortInUse, match=r"port 1234"):
        state.StateDir(tmp_path / "s").open()
    first.save_revisions({"ns/a": [{"name": "a-00001", "generation": 1}]})
    os.close(first._lock)  # as if killed
    second = state.StateDir(tmp_path / "s")
    second.open()
    assert list(second.pods.iterdir()) == []
    assert second.load_revisions() == {"ns/a": [{"name": "a-00001", "generation": 1}]}
    second.close()
    assert state.read_engine(tmp_path / "s") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 5}', '{"a": [1, {"x": 2}]}', "\x00"])
def test_damaged_revisions_are_done_without(tmp_path: Path, content: str) -> None:
    made = state.StateDir(tmp_path)
    (tmp_path / "revisions.json").write_text(content)
    assert not any(made.load_revisions().values())


def test_logs_of_ended_pods_are_pruned(tmp_path: Path) -> None:
    made = state.StateDir(tmp_path)
    for number in range(14):
        folder = made.logs / "ns" / "svc" / f"pod-{number:02}"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    made.prune_logs("ns", "svc", {"pod-00"})
    left = sorted(path.name for path in (made.logs / "ns" / "svc").iterdir())
    assert left == ["pod-00", *(f"pod-{number:02}" for number in range(4, 14))]


def test_log_file_rotates_and_keeps_a_tail(tmp_path: Path) -> None:
    async def run() -> logs.LogFile:
        log = logs.LogFile(tmp_path / "c.log", max_bytes=1000)
        for number in range(100):
            log.data_received(f"line {number} {'x' * 20}\n".encode())
        log.data_received(b"unfinished")
        log.connection_lost(None)
        return log

    log = asyncio.run(run())
    assert log.tail(2).splitlines()[0].startswith("line 99")
    assert log.tail(2).splitlines()[1] == "unfinished"
    assert (tmp_path / "c.log").stat().st_size <= 1000
    assert (tmp_path / "c.log.1").stat().st_size <= 1000


def test_full_disk_loses_lines_but_the_tail_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> logs.LogFile:
        (tmp_path / "c.log").symlink_to("/dev/full")
        log = logs.LogFile(tmp_path / "c.log")
        for _ in range(3):
            log.data_received(b"said\n")
        log.connection_lost(None)
        return log

    log = asyncio.run(run())
    assert log.lost_bytes == 15
    assert log.tail(1) == "said"
    assert caplog.text.count("log lines are being lost") == 1


def test_long_lines_are_cut_in_the_tail(tmp_path: Path) -> None:
    async def run() -> str:
        log = logs.LogFile(tmp_path / "c.log")
        log.data_received(b"y" * 1_000_000 + b"\n")
        log.connection_lost(None)
        return log.tail()

    assert len(asyncio.run(run())) == logs.TAIL_LINE_BYTES


def test_log_view(tmp_path: Path) -> None:
    for pod in ("a", "b"):
        (tmp_path / pod).mkdir()
        (tmp_path / pod / "main.log").write_text("\n".join(f"{pod}{n}" for n in range(1000)) + "\n")
        (tmp_path / pod / "init.log").write_text("")
    assert {file.parent.name for file in logview.find(tmp_path)} == {"b"}
    assert {file.parent.name for file in logview.find(tmp_path, previous=True)} == {"a"}
    assert [file.name for file in logview.find(tmp_path, container="main")] == ["main.log"]
    assert logview.find(tmp_path / "nothing") == []
    assert logview.tail(tmp_path / "a" / "main.log", 2) == ["a998", "a999"]
    assert logview.tail(tmp_path / "a" / "main.log", 0) == []


def test_memory_of_processes_is_read() -> None:
    me = [os.getpid()]
    assert os.getpid() in memory.descendants(me)
    resident = memory.resident_bytes(me)
    assert resident > 2**20
    assert memory.proportional_bytes(me) <= resident * 1.1
    assert memory.resident_bytes([2**30]) == 0


def test_error_bodies_are_one_json_line() -> None:
    body = wire.error_body(503, "no\nroom")
    assert body.count(b"\n") == 1
    assert json.loads(body)["error"] == "no\nroom"


def test_decisions_never_read_the_wall_clock() -> None:
    """Only what is shown to people, and queues that outlive the engine, may."""
    folder = Path(state.__file__).parent
    allowed = {"clock.py", "state.py", "admin.py", "eventing.py", "broker.py", "background.py"}
    users = {
        file.name
        for file in folder.glob("*.py")
        if "time.time()" in file.read_text() and file.name not in allowed
    }
    assert users == set()
