"""`turnout events`: what went through the brokers of a local engine."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from knative import errors
from knative.cli import engine_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Events of a local engine: recent, pending and dead ones; replay."
    parser.epilog = """examples:
  turnout events
  turnout events dead
  turnout events replay 17
  turnout events replay --all"""
    engine_options.add_engine(parser)
    what = ("recent", "pending", "dead", "replay")
    parser.add_argument("what", nargs="?", default="recent", choices=what, help="default: recent")
    parser.add_argument("id", nargs="?", type=int, help="which dead letter to replay")
    parser.add_argument("--all", action="store_true", help="replay every dead letter")
    parser.add_argument("--json", action="store_true", help="everything, for scripts")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when there is no engine."""
    engine = engine_options.connect(args)
    if args.what == "replay":
        if (args.id is None) == (not args.all):
            raise errors.UsageError("say which dead letter to replay: a number, or --all")
        print(f"{engine.post('replay', id=args.id)['replayed']} events go out again")
        return 0
    answer = engine.get("events")
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    for line in lines(answer, args.what):
        print(line)
    return 0


def lines(answer: Mapping[str, Any], what: str) -> Sequence[str]:
    """One line per event, newest first."""
    found = [_line(item, what) for item in answer[what]]
    if what == "recent":
        waiting, dead = sum(answer["depth"].values()), len(answer["dead"])
        found.append(f"{waiting} deliveries pending, {dead} dead letters")
    return found or [f"no {what} events"]


def _line(item: Mapping[str, Any], what: str) -> str:
    event = item.get("event") or item.get("attributes") or item
    head = f"{event.get('type', '?')}  {event.get('source', '')}  {event.get('id', '')}"
    if what == "dead":
        failure = item.get("failure") or {}
        return f"#{item['id']}  {head}  {item.get('trigger')}  {json.dumps(failure)}"
    if what == "pending":
        return f"{head}  {item.get('trigger')}  attempt {item.get('attempt')}"
    return head
