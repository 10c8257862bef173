"""`turnout down`: stop a local engine."""

import argparse
import os
import time

from knative import errors
from knative.cli import engine_options
from knative.local.errors import EngineError


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Stop a local engine and everything it runs; logs and queued events stay."
    parser.epilog = """examples:
  turnout down
  turnout down --port 9000"""
    engine_options.add_engine(parser)
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")


def run(args: argparse.Namespace) -> int:
    """0 stopped, or not running; 1 when it does not stop."""
    engine = engine_options.connect(args)
    try:
        pid = int(engine.get("status")["engine"]["pid"])
    except EngineError as error:
        print(error)
        return 0
    engine.post("stop")
    deadline = time.monotonic() + args.timeout
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            print("stopped")
            return 0
        time.sleep(0.05)
    raise errors.TryAgain(f"the engine (pid {pid}) is still stopping after {args.timeout:g} s")
