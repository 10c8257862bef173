"""`turnout rollout`: move a canary's traffic, step by step or back."""

import argparse

from knative.cli import cluster_options
from knative.cluster import traffic
from knative.cluster.client import Api

EPILOG = """\
examples:
  turnout rollout pets                    shows the split
  turnout rollout pets --step             10 -> 50 -> 100 %
  turnout rollout pets --to 25
  turnout rollout pets --revision pets-00001 --to 10     begins a canary against that revision
  turnout rollout pets --back             everything to the revision before
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = (
        "Show or move the traffic split between the latest revision and the one before."
    )
    parser.epilog = EPILOG
    parser.add_argument("name", metavar="NAME")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", action="store_true", help="the next of 10, 50, 100 %%")
    which.add_argument("--to", type=int, metavar="PERCENT", choices=range(101), help="0 to 100")
    which.add_argument("--back", action="store_true", help="all traffic to the revision before")
    parser.add_argument(
        "--revision", default="", metavar="NAME", help="the other revision, with --to"
    )
    cluster_options.add(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the split is stored."""
    api = cluster_options.connect(args)
    live = api.get("Service", api.namespace, args.name)
    if args.back:
        live = _store(api, args.name, traffic.rolled_back(live))
    elif args.to is not None and args.revision:
        live = _store(api, args.name, traffic.split(args.revision, args.to))
    elif args.step or args.to is not None:
        percent = args.to if args.to is not None else traffic.next_step(live)
        live = _store(api, args.name, traffic.rolled(live, percent))
    for target in live["spec"].get("traffic") or [{"latestRevision": True, "percent": 100}]:
        who = target.get("revisionName") or "latest revision"
        tag = f"  (tag {target['tag']})" if target.get("tag") else ""
        print(f"{target.get('percent') or 0:>4} %  {who}{tag}")
    return 0


def _store(api: Api, name: str, targets: list[dict[str, object]]) -> dict[str, object]:
    return api.merge("Service", api.namespace, name, {"spec": {"traffic": targets}})
