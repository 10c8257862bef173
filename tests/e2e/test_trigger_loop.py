"""Triggers that write what others watch, on a real S3 server and the local engine: the circle ends
with a dead letter that says why, and what is refused for another reason says so too."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from knative.demo import s3, settings
from tests.e2e import local
from tests.fakes_engine import service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GRAPH = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        found = b'"../x"' if b"escape" in body else b"5"
        answer = b'{"predictions": [{"classes": ' + found + b"}]}"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def trigger(name: str, prefix: str, result: dict[str, Any], **more: Any) -> dict[str, Any]:
    source = {"s3": {"bucket": "ring", "prefix": prefix, **more.pop("s3", {})}}
    return {
        "apiVersion": "turnout.dev/v1alpha1",
        "kind": "InferenceTrigger",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "source": source,
            "target": {"ref": {"kind": "Service", "name": "graph"}, "path": "/"},
            "request": {"object": "text"},
            "result": result,
            "maxHops": 3,
            **more,
        },
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[s3.Server, local.Up]]:
    folder = tmp_path_factory.mktemp("loop")
    (folder / "graph.py").write_text(GRAPH)
    port = local.free_port()
    webhook = s3.Webhook(
        buckets=("ring",),
        url="http://one-adapter.default.svc.cluster.local/",
        proxy=f"http://127.0.0.1:{port}",
    )
    environ = settings.Settings.from_env().environ
    with s3.running(folder / "s3", environ, webhook) as running:
        s3.make_buckets(running, ("ring",))
        endpoint = {"endpoint": running.endpoint}
        shared = {"notify": "None", **endpoint}
        joined = {"broker": {"name": "one"}, "s3": shared}
        objects = [
            service("graph", command=["python", str(folder / "graph.py")]),
            trigger("one", "a/", {"write": {"key": "b/{object.name}.json"}}, s3=endpoint),
            trigger("two", "b/", {"copy": {"key": "a/{object.name}"}}, **joined),
            trigger("away", "c/", {"move": {"key": "d/{$.predictions[0].classes}"}}, **joined),
        ]
        manifest = folder / "objects.yaml"
        manifest.write_text(yaml.safe_dump_all(objects))
        with local.up(manifest, folder=folder / "up", port=port, **running.environ) as up:
            yield running, up


def dead(up: local.Up, subject: str) -> dict[str, Any]:
    """The dead letter about an object, as soon as there is one."""
    deadline = time.monotonic() + 60
    while True:
        found = json.loads(local.turnout("events", "--json", "--port", str(up.port)).stdout)
        for letter in found["dead"]:
            if letter["event"]["subject"] == subject:
                return dict(letter)
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def upload(server: s3.Server, folder: Path, key: str, text: str) -> None:
    path = folder / "object"
    path.write_text(text)
    s3.upload(server, "ring", {key: path})


def test_a_circle_ends_with_a_reason(server: tuple[s3.Server, local.Up], tmp_path: Path) -> None:
    storage, up = server
    upload(storage, tmp_path, "a/x", "hello")
    letter = dead(up, "b/x.json.json")
    reason = json.loads(letter["failure"]["body"])["error"]
    assert letter["failure"]["code"] == 422
    assert "the work of 3 triggers one after the other, the last one default/one" in reason
    assert s3.download(storage, "ring", "a/x.json") is not None
    assert s3.download(storage, "ring", "a/x.json.json") is None


def test_a_key_that_leaves_its_place_is_refused(
    server: tuple[s3.Server, local.Up], tmp_path: Path
) -> None:
    storage, up = server
    upload(storage, tmp_path, "c/y", "escape")
    assert "segments" in str(dead(up, "c/y")["failure"])
    assert s3.download(storage, "ring", "c/y") == b"escape"
