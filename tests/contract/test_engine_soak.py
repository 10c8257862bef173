"""Fifty services cycling zero, one, zero under random load: nothing lost, nothing stuck, no leak.

Short by default; TURNOUT_SOAK_SECONDS=600 runs it for ten minutes.
"""

import http.client
import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.fakes_engine import Engine, alive, running, service, until

SERVICES = 50
SECONDS = float(os.environ.get("TURNOUT_SOAK_SECONDS", "5"))
CLIENTS = 6


class Client(threading.Thread):
    """Sends requests to services of its choice until told to stop."""

    def __init__(self, engine: Engine, seed: int, until_at: float) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.count = 0
        self.pids: set[int] = set()
        self._engine = engine
        self._random = random.Random(seed)
        self._until = until_at

    def run(self) -> None:
        while time.monotonic() < self._until:
            name = f"s{min(int(self._random.expovariate(1 / 15)), SERVICES - 1)}"
            path = self._random.choice(["/echo", "/sleep?s=0.05", "/big?n=100000", "/stream?n=2"])
            try:
                answer = self._engine.call(name, path, timeout_s=60)
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{name}{path}: {error!r}")
                continue
            self.count += 1
            if answer.status != 200:
                self.problems.append(f"{name}{path}: {answer.status} {answer.body[:300]!r}")
            elif path == "/echo":
                self.pids.add(answer.json["pid"])
            time.sleep(self._random.expovariate(20))


def facts(engine: Engine) -> tuple[int, int]:
    """Open files and resident bytes of the engine."""
    proc = Path(f"/proc/{engine.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return len(list((proc / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(SECONDS + 120)
def test_many_services_under_random_load(tmp_path: Path) -> None:
    made = [service(f"s{number}", env={"START_DELAY": "0.05"}) for number in range(SERVICES)]
    with running(tmp_path, *made, arguments=("--window", "6s", "--grace", "0s")) as engine:
        engine.call("s0")
        files_before, memory_before = facts(engine)
        until_at = time.monotonic() + SECONDS
        clients = [Client(engine, seed, until_at) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert [problem for client in clients for problem in client.problems][:10] == []
        assert sum(client.count for client in clients) > SECONDS * 5

        def all_asleep() -> bool:
            services = engine.admin("status")["services"]
            return not any(r["pods"] or r["desired"] for s in services for r in s["revisions"])

        until(all_asleep, 40, 0.2)
        pids = set().union(*(client.pids for client in clients))
        assert not [pid for pid in pids if alive(pid)]
        assert not list((engine.state / "pods").iterdir())
        files, memory = facts(engine)
        assert files <= files_before + 5
        assert memory < memory_before + 40 * 2**20
        assert all(r["concurrency"] == 0 for s in engine.admin("status")["services"]
                   for r in s["revisions"])  # fmt: skip
