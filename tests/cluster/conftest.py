"""Tests on a real cluster. They run when KUBECONFIG and TURNOUT_TEST_IMAGE_PREFIX are set.

KUBECONFIG                 a cluster with Knative Serving 1.2x whose admission has init containers
enabled
TURNOUT_TEST_IMAGE_PREFIX  where the four images are, e.g. registry.example.com/turnout
TURNOUT_TEST_INGRESS       address of the ingress (HOST or HOST:PORT); without it calls go through a
                           port-forward to the ingress gateway
TURNOUT_TEST_TAG           tag of the images (default: this version)
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from knative.options import VERSION

REQUIRED = ("KUBECONFIG", "TURNOUT_TEST_IMAGE_PREFIX")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Opt-in by environment; a cold start takes its time."""
    missing = [name for name in REQUIRED if not os.environ.get(name)]
    for item in items:
        if "tests/cluster" not in str(item.path):
            continue
        item.add_marker(pytest.mark.timeout(900))
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{' and '.join(missing)} not set"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """A namespace of our own and the command line."""

    namespace: str

    def turnout(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the real command line; its output is shown when a test fails."""
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from knative.cli.main import run; raise SystemExit(run())",
                *words,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        print("$ turnout", *words, "\n", done.stdout, done.stderr)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def options(self) -> list[str]:
        """Namespace and images."""
        tag = os.environ.get("TURNOUT_TEST_TAG", VERSION)
        prefix = os.environ["TURNOUT_TEST_IMAGE_PREFIX"].rstrip("/")
        units = ("functions", "router-fn", "storage-initializer", "events")
        images = [word for u in units for word in ("--image", f"{u}={prefix}/{u}:{tag}")]
        return ["--namespace", self.namespace, *images]

    def apply(self, file: Path, *more: str) -> str:
        """Apply and wait."""
        done = self.turnout("apply", str(file), "--wait", "--set", "t", *self.options(), *more)
        return done.stdout

    def get(self, name: str) -> dict[str, Any]:
        """One row of `turnout get`."""
        done = self.turnout("get", name, "--namespace", self.namespace, "-o", "json")
        (row,) = json.loads(done.stdout)
        return dict(row)

    def invoke(
        self, name: str, body: object, *headers: str, path: str = "/", timeout_s: float = 300
    ) -> tuple[int, Any]:
        """Call a service through the ingress; (status, parsed answer)."""
        from knative.cluster import client, forward, reach

        api = client.connect(namespace=self.namespace)
        item = api.get("Service", self.namespace, name)
        given = dict(line.split(": ", 1) for line in headers)
        sent = json.dumps(body).encode()
        given.setdefault("Content-Type", "application/json")
        ingress = os.environ.get("TURNOUT_TEST_INGRESS")
        if ingress:
            target = reach.through(item, ingress)
            answer = reach.call(target, "POST", path, given, sent, timeout_s=timeout_s)
        else:
            host = reach.host_of(item)
            local = reach.is_cluster_local(host)
            where, pod, port = reach.gateway_pod(api, cluster_local=local)
            connection = forward.ForwardedConnection(api, where, pod, port, timeout_s=timeout_s)
            answer = reach.exchange(connection, host, "POST", path, given, sent)
        try:
            return answer.status, json.loads(answer.body)
        except ValueError:
            return answer.status, answer.body.decode(errors="replace")

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Pods of a Service that are not on their way out."""
        from knative.cluster import client

        api = client.connect(namespace=self.namespace)
        found = api.items("Pod", self.namespace, f"serving.knative.dev/service={name}")
        return [p for p in found if not p["metadata"].get("deletionTimestamp")]

    def until(self, what: str, true: Callable[[], bool], *, within_s: float) -> None:
        """Wait with a deadline."""
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
            time.sleep(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, gone afterwards."""
    from knative.cluster import client

    api = client.connect()
    name = f"turnout-test-{uuid.uuid4().hex[:8]}"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    api.request("POST", "api/v1/namespaces", body=namespace)
    try:
        yield Cluster(name)
    finally:
        api.request("DELETE", f"api/v1/namespaces/{name}")
