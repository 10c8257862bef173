"""`turnout get`: what Turnout runs in a cluster."""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime

from knative import errors
from knative.cli import cluster_options
from knative.cluster import listing

EPILOG = """\
examples:
  turnout get
  turnout get dog-breed-pipeline -o json
  turnout get --all-namespaces
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Services in a cluster: name, URL, ready, age, replicas, traffic."
    parser.epilog = EPILOG
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("--all", action="store_true", help="also Services other tools made")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    cluster_options.add(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 1 when a named Service does not exist."""
    api = cluster_options.connect(args)
    namespace = "" if args.all_namespaces else api.namespace
    rows = listing.rows(api, namespace, args.names, everything=args.all, now=datetime.now(UTC))
    missing = sorted(set(args.names) - {row.name for row in rows})
    if args.output == "json":
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif rows:
        print(listing.table(rows, namespaces=args.all_namespaces))
    elif not missing:
        print(
            f"nothing of Turnout's in {namespace or 'any namespace'} (--all shows other Services)"
        )
    if missing:
        raise errors.TurnoutError(f"no Service {', '.join(missing)} in namespace {namespace}")
    return 0
