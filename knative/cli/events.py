"""`turnout events`: what went through the brokers of a local engine."""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from knative import errors
from knative.cli import engine_options

COUNTED = (
    "received",
    "delivered",
    "replied",
    "retried",
    "failed",
    "dead",
    "invalid",
    "rejected",
)
"""Counters since the engine's start. Delivered without and with a reply event; failed: on the way
to a dead letter sink."""

FOLLOW_S = 0.5

ALWAYS = frozenset({"received", "delivered", "retried", "dead"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = (
        "Events of a local engine: recent, pending and dead ones; how many were received,"
        " delivered, retried and given up; replay."
    )
    parser.epilog = """examples:
  turnout events
  turnout events -f
  turnout events dead
  turnout events replay 17
  turnout events replay --all"""
    engine_options.add_engine(parser)
    what = ("recent", "pending", "dead", "replay")
    parser.add_argument("what", nargs="?", default="recent", choices=what, help="default: recent")
    parser.add_argument("id", nargs="?", type=int, help="which dead letter to replay")
    parser.add_argument("--all", action="store_true", help="replay every dead letter")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on: a line whenever something happens"
    )
    parser.add_argument("--json", action="store_true", help="everything, for scripts")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when there is no engine."""
    engine = engine_options.connect(args)
    if args.what == "replay":
        if (args.id is None) == (not args.all):
            raise errors.UsageError("say which dead letter to replay: a number, or --all")
        print(f"{engine.post('replay', id=args.id)['replayed']} events go out again")
        return 0
    if args.follow:
        if args.json:
            raise errors.UsageError("--follow prints lines; leave out --json")
        seen: set[str] = set()
        while True:
            for line in news(engine.get("events"), args.what, seen):
                print(line, flush=True)
            time.sleep(FOLLOW_S)
    answer = engine.get("events")
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    for line in lines(answer, args.what):
        print(line)
    return 0


def news(answer: Mapping[str, Any], what: str, seen: set[str]) -> Sequence[str]:
    """Lines, oldest first, that were not among those `seen`, which then has today's."""
    now = [_SHAPES[what](item) for item in reversed(answer[what])]
    fresh = [line for line in dict.fromkeys(now) if line not in seen]
    seen.clear()
    seen.update(now)
    return fresh


def lines(answer: Mapping[str, Any], what: str) -> Sequence[str]:
    """One line per event, newest first; recent ones end with what was counted since the start."""
    found = [_SHAPES[what](item) for item in answer[what]]
    if what == "recent":
        waiting, dead = sum(answer["depth"].values()), len(answer["dead"])
        counted = answer["stats"]
        shown = [name for name in COUNTED if name in ALWAYS or counted.get(name)]
        found.append(", ".join(f"{counted.get(name, 0)} {name}" for name in shown))
        found.append(f"{waiting} deliveries pending, {dead} dead letters")
    return found or [f"no {what} events"]


def _recent(item: Mapping[str, Any]) -> str:
    """What became of the event, by trigger."""
    triggers = item.get("triggers") or {}
    fate = ", ".join(f"{name} {state}" for name, state in triggers.items())
    return f"{_head(item)}  {fate or 'no trigger wants it'}"


def _pending(item: Mapping[str, Any]) -> str:
    towards = "its dead letter sink" if item.get("deadLetter") else item.get("trigger")
    return f"{_head(item)}  {towards}  attempt {item.get('attempt', 0) + 1}"


def _dead(item: Mapping[str, Any]) -> str:
    failure = item.get("failure") or {}
    code = failure.get("code") or "no answer"
    why = failure.get("reason") or failure.get("body") or ""
    text = " ".join(str(why).split())[:300]
    # Written by whoever answered: nothing that a terminal would take for an order.
    reason = f": {''.join(c if c.isprintable() else '?' for c in text)}" if why else ""
    where = failure.get("destination", "?")
    return f"#{item['id']}  {_head(item)}  {item.get('trigger')}  {code} from {where}{reason}"


def _head(item: Mapping[str, Any]) -> str:
    event = item.get("event") or {}
    named = (event.get(name) for name in ("type", "source", "id", "subject"))
    return "  ".join(str(value) for value in named if value)


_SHAPES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "recent": _recent,
    "pending": _pending,
    "dead": _dead,
}
