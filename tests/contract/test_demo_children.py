"""A child of the demo ends with everything it started, whether it wants to or not."""

import sys
import time
from pathlib import Path

import pytest

from knative.demo.children import Child, free_ports
from knative.demo.settings import Settings
from tests.e2e import local

FAMILY = """
import signal, subprocess, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(grandchild.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_stopping_ends_the_whole_family(kind: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child(
        [sys.executable, "-c", FAMILY, kind],
        log=log,
        environ=Settings.from_env().environ,
        cwd=tmp_path,
        patience_s=0.3,
    )
    with child:
        local.wait_for(lambda: log.read_text().strip(), 20)
        family = {child.pid, int(log.read_text())}
        assert child.exit_code() is None
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert child.exit_code() is not None
    local.wait_gone({pid for pid in family if pid != child.pid})


def test_the_tail_of_its_output_is_kept_for_the_error_message(tmp_path: Path) -> None:
    code = "print('\\n'.join(map(str, range(100)))); raise SystemExit(3)"
    with Child(
        [sys.executable, "-c", code],
        log=tmp_path / "log",
        environ=Settings.from_env().environ,
        cwd=tmp_path,
        patience_s=1,
    ) as child:
        local.wait_for(lambda: child.exit_code() is not None, 20)
        assert child.tail(2) == "  98\n  99"
    assert child.exit_code() == 3


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20
