"""What a served model finds: memory that its last call freed, a collector that leaves it alone, and
a master that knows nothing of models."""

import platform
from pathlib import Path

import pytest

from tests.fakes_functions import serving, write_model

ALLOCATING = """
import gc, resource, sys
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
class Allocating:
    def __init__(self):
        self.while_loading = gc.get_threshold()[0]
    def predict(self, payload, headers=None):
        before = faults()
        blocks = [bytearray(8 << 20) for _ in range(4)]
        del blocks
        return {
            "faults": faults() - before, "frozen": gc.get_freeze_count(),
            "loading": self.while_loading, "serving": gc.get_threshold()[0],
        }
"""
BODY = {"instances": [1]}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_a_call_gets_the_memory_that_the_one_before_freed(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", ALLOCATING)
    faults = []
    for megabytes in ("64", "0"):
        with serving("--model-dir", str(directory), "--keep-freed-mb", megabytes) as server:
            path = "/v1/models/model:predict"
            found = [server.post(path, BODY).json()["faults"] for _ in range(8)]
            faults.append(sorted(found[3:])[2])
    kept, given_back = faults
    assert kept < given_back / 4, faults  # 32 MB are 8,192 pages, 16 if they are huge


def test_the_collector_hardly_runs_while_loading_and_as_usual_afterwards(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", ALLOCATING)
    with serving("--model-dir", str(directory)) as server:
        found = server.post("/v1/models/model:predict", BODY).json()
    assert found["loading"] == 250_000
    assert found["serving"] == 700
    assert found["frozen"] > 10_000


def test_the_master_maps_nothing_that_only_workers_need(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", ALLOCATING)
    with serving("--model-dir", str(directory)) as server:
        (worker,) = server.children()
        master = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "uvloop" in Path(f"/proc/{worker}/maps").read_text()
    assert "uvloop" not in master
    assert "orjson" not in master
