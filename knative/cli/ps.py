"""`turnout ps`: what a local engine is running."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from knative.cli import engine_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Services of a local engine, their replicas and what they are doing."
    parser.epilog = """examples:
  turnout ps
  turnout ps --pods
  turnout ps --json | jq '.services[].ready'"""
    engine_options.add_engine(parser)
    parser.add_argument("--pods", action="store_true", help="also every pod")
    parser.add_argument("--json", action="store_true", help="everything, for scripts")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when there is no engine."""
    status = engine_options.connect(args).get("status")
    if args.json:
        print(json.dumps(status, indent=2))
        return 0
    for line in table(status, pods=args.pods, now=time.time()):
        print(line)
    return 0


def table(status: Mapping[str, Any], *, pods: bool, now: float) -> list[str]:
    """The lines of `turnout ps`."""
    rows: list[Sequence[str]] = [
        ("SERVICE", "REVISION", "READY", "STATE", "REQUESTS", "COLD", "LAST", "MEMORY")
    ]
    for service in status["services"]:
        for revision in service["revisions"]:
            rows.append(_revision_row(service, revision, now))
            if pods:
                rows.extend(_pod_row(pod) for pod in revision["pods"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _revision_row(
    service: Mapping[str, Any], revision: Mapping[str, Any], now: float
) -> Sequence[str]:
    memory = sum(pod["memory_bytes"] for pod in revision["pods"])
    return (
        f"{service['namespace']}/{service['name']}",
        revision["name"],
        f"{revision['ready']}/{revision['desired']}",
        state_of(revision),
        str(revision["requests"]),
        str(revision["cold_starts"]),
        _ago(revision["last_request"], now),
        f"{memory // 2**20} MiB" if memory else "-",
    )


def _pod_row(pod: Mapping[str, Any]) -> Sequence[str]:
    memory = f"{pod['memory_bytes'] // 2**20} MiB" if pod["memory_bytes"] else "-"
    restarts = f" ({pod['restarts']} restarts)" if pod["restarts"] else ""
    return ("", f"  {pod['name']}", "", pod["state"] + restarts, "", "", "", memory)


def state_of(revision: Mapping[str, Any]) -> str:
    """One phrase: what matters most about a revision."""
    if revision["pending"]:
        return f"Pending ({revision['pending']})"
    if revision["failure"]:
        return f"Failing ({revision['failure']['reason']})"
    if revision["desired"] == 0:
        return "Zero" if not revision["pods"] else "Draining"
    if revision["ready"] < revision["desired"]:
        return "Starting"
    return "Panicking" if revision["panicking"] else "Ready"


def _ago(at: float | None, now: float) -> str:
    if not at:
        return "-"
    seconds = max(0, int(now - at))
    if seconds < 90:
        return f"{seconds}s ago"
    return f"{seconds // 60}m ago" if seconds < 5400 else f"{seconds // 3600}h ago"
