"""Eventing through a running engine: brokers, triggers, dead letters, PingSource, SinkBinding."""

import json
import signal
from pathlib import Path
from typing import Any

from tests.fakes_engine import Engine, running, service, turnout, until

INGRESS = "broker-ingress.knative-eventing.svc.cluster.local"

RECEIVER = """
import http.server, os, sys
LOG = sys.argv[1]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fail = os.path.exists(LOG + ".fail")
        with open(LOG, "a") as file:
            file.write(self.headers.get("ce-type", "?") + " " + self.headers.get("ce-id", "?") + " "
                       + self.path + " " + body.decode() + "\\n")
        self.send_response(500 if fail else 202)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def broker(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": spec,
    }


def trigger(name: str, kind: str, **spec: Any) -> dict[str, Any]:
    reference = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "receiver"}
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "broker": "default",
            "filters": [{"exact": {"type": kind}}],
            "subscriber": {"ref": reference, "uri": "/events"},
            **spec,
        },
    }


def receiver(folder: Path) -> dict[str, Any]:
    (folder / "receiver.py").write_text(RECEIVER)
    return service("receiver", command=["python", str(folder / "receiver.py"), str(log(folder))])


def log(folder: Path) -> Path:
    return folder / "received.txt"


def received(folder: Path) -> list[str]:
    return log(folder).read_text().splitlines() if log(folder).exists() else []


def send(engine: Engine, kind: str, number: str, path: str = "/default/default") -> int:
    headers = {
        "ce-specversion": "1.0",
        "ce-type": kind,
        "ce-source": "/test",
        "ce-id": number,
        "content-type": "text/plain",
    }
    body = f"data {number}".encode()
    return engine.call("", path, method="POST", body=body, headers=headers, host=INGRESS).status


def test_events_reach_a_sleeping_subscriber_through_filters(tmp_path: Path) -> None:
    objects = (receiver(tmp_path), broker(), trigger("wanted", "wanted"))
    with running(tmp_path, *objects) as engine:
        assert send(engine, "wanted", "1") == 202
        assert send(engine, "unwanted", "2") == 202
        assert send(engine, "wanted", "3", "/default/nope") == 404
        until(lambda: received(tmp_path) == ["wanted 1 /events data 1"], 20)
        assert engine.service("receiver")["revisions"][0]["cold_starts"] == 1
        until(lambda: engine.admin("events")["stats"].get("delivered") == 1)
        shown = turnout("events", "--port", str(engine.port)).stdout
        lines = shown.splitlines()
        assert lines[-1] == "0 deliveries pending, 0 dead letters"
        assert lines[-2] == "2 received, 1 delivered, 0 retried, 0 dead, 1 rejected"
        assert lines[0] == "unwanted  /test  2  no trigger wants it"
        assert lines[1] == "wanted  /test  1  default/wanted delivered"


def test_failed_events_become_dead_letters_and_can_be_replayed(tmp_path: Path) -> None:
    delivery = {"retry": 1, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}
    objects = (receiver(tmp_path), broker(), trigger("wanted", "wanted", delivery=delivery))
    (tmp_path / "received.txt.fail").touch()
    with running(tmp_path, *objects) as engine:
        assert send(engine, "wanted", "1") == 202
        until(lambda: len(engine.admin("events")["dead"]) == 1, 20)
        assert len(received(tmp_path)) == 2
        dead = turnout("events", "dead", "--port", str(engine.port)).stdout
        assert "#1  wanted  /test  1  default/wanted  500 from http://receiver.default" in dead
        counted = turnout("events", "--port", str(engine.port)).stdout
        assert "1 received, 0 delivered, 1 retried, 1 dead\n" in counted
        assert "default/wanted dead" in counted
        (tmp_path / "received.txt.fail").unlink()
        assert "1 events" in turnout("events", "replay", "1", "--port", str(engine.port)).stdout
        until(lambda: len(received(tmp_path)) == 3, 10)


def test_accepted_events_survive_kill_9(tmp_path: Path) -> None:
    never = service("receiver", env={"NEVER_LISTEN": "1"})
    wanted = trigger("wanted", "wanted")
    with running(tmp_path, never, broker(), wanted) as engine:
        assert [send(engine, "wanted", str(number)) for number in range(5)] == [202] * 5
        engine.stop(signal.SIGKILL)
    with running(tmp_path, receiver(tmp_path), broker(), wanted) as engine:
        until(lambda: {line.split()[1] for line in received(tmp_path)} == set("01234"), 30)


def test_sink_binding_injects_the_sink(tmp_path: Path) -> None:
    binding = {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "SinkBinding",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {
            "subject": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "echo"},
            "sink": {"ref": {"kind": "Broker", "name": "default", "apiVersion": "x"}},
            "ceOverrides": {"extensions": {"team": "a"}},
        },
    }
    with running(tmp_path, service("echo"), service("other"), broker(), binding) as engine:
        env = engine.call("echo").json["env"]
        assert env["K_SINK"] == f"http://{INGRESS}/default/default"
        assert json.loads(env["K_CE_OVERRIDES"]) == {"extensions": {"team": "a"}}
        assert "K_SINK" not in engine.call("other").json["env"]


def test_trigger_of_an_unknown_broker_is_reported(tmp_path: Path) -> None:
    bad = trigger("lost", "x", subscriber={})
    with running(tmp_path, service("echo"), broker(), bad, wait=False) as engine:
        assert engine.process.wait(20) == 65
        assert "Traceback" not in engine.output
        assert "lost" in engine.output
