"""Signals that stop a worker are not lost between its fork and its own handlers."""

import subprocess
import sys

SCRIPT = """
import asyncio, os, signal
from functions.wire import forked

async def serve():
    stop = asyncio.Event()
    print("the worker is ready", flush=True)
    forked.listen(asyncio.get_running_loop(), stop.set)
    await stop.wait()
    print("the worker's handler", flush=True)

signal.signal(signal.SIGTERM, lambda *_: print("the master's handler", flush=True))
forked.hold_signals()
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGTERM)  # before the worker has a handler of its own
    asyncio.run(serve())
    if not os.fork():  # what a worker forks holds nothing back
        print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
        os._exit(0)
    os.wait()
    os._exit(0)
os.waitpid(pid, 0)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_waits_until_the_worker_can_take_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == [
        "the worker is ready",
        "the worker's handler",
        "False",
        "the master's handler",
    ], done.stderr
