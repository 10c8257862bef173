"""`turnout status`: whether a local engine and its services are well, in one look or for
scripts."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from knative.cli import engine_options
from knative.cli.ps import state_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Whether an engine is up and none of its services is failing or pending."
    parser.epilog = """examples:
  turnout status
  turnout status --json | jq .engine.port"""
    engine_options.add_engine(parser)
    parser.add_argument("--json", action="store_true", help="everything, for scripts")


def run(args: argparse.Namespace) -> int:
    """0 all well; 1 no engine, or a service is failing or pending."""
    status = engine_options.connect(args).get("status")
    bad = troubles(status)
    if args.json:
        print(json.dumps({**status, "troubles": bad}, indent=2))
    else:
        engine = status["engine"]
        print(f"engine on port {engine['port']} (pid {engine['pid']}), state {engine['state_dir']}")
        awake = sum(service["desired"] > 0 for service in status["services"])
        print(f"{len(status['services'])} services, {awake} awake")
        for line in bad:
            print(line)
    return 1 if bad else 0


def troubles(status: Mapping[str, Any]) -> list[str]:
    """One line per service that is not well."""
    lines: list[str] = []
    for service in status["services"]:
        name = f"{service['namespace']}/{service['name']}"
        if service["problem"]:
            lines.append(f"{name}: {service['problem']}")
        for revision in service["revisions"]:
            if revision["failure"]:
                lines.append(f"{name}: {state_of(revision)}: {revision['failure']['message']}")
            elif revision["pending"]:
                lines.append(f"{name}: {state_of(revision)}")
    return lines
