"""`turnout apply`: compile, check the cluster, apply, and watch it come up."""

import argparse
import sys
from collections.abc import Mapping

from knative import compiler, errors
from knative.api.problems import Level
from knative.cli import cluster_options, compile_options
from knative.cluster import apply, preflight, wait
from knative.cluster.client import Api
from knative.resources import canary

EPILOG = """\
examples:
  turnout apply examples/dog-breed/ --wait
  turnout apply pets/ --dry-run server          admission says what it thinks, nothing is stored
  turnout apply pets/ --set pets --prune        also deletes what the set has no more
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Compile manifests and apply them to a cluster (server-side apply)."
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML or JSON file, directory, or -"
    )
    parser.add_argument("--dry-run", choices=("server", "none"), default="none")
    parser.add_argument("--wait", action="store_true", help="wait until every Service is ready")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="of --wait")
    parser.add_argument("--set", default="", metavar="NAME", help="label everything as this set")
    parser.add_argument("--prune", action="store_true", help="delete what else is in the set")
    parser.add_argument(
        "--force-conflicts", action="store_true", help="take over fields other tools own"
    )
    parser.add_argument(
        "--skip-preflight", action="store_true", help="do not look at the cluster first"
    )
    cluster_options.add(parser, namespace=False)
    compile_options.add(parser, namespace="")


def run(args: argparse.Namespace) -> int:
    """0 applied (and ready); 1 refused or failed; 75 not ready in time."""
    if args.prune and not args.set:
        raise errors.UsageError(
            "--prune needs --set NAME: it deletes what is in the set and not in the input"
        )
    api = cluster_options.connect(args)
    args.namespace = args.namespace or api.namespace
    result = compiler.compile_files(args.files, compile_options.read(args))
    for problem in result.problems:
        if problem.level is Level.WARNING and problem.rule != canary.NEEDS_CLUSTER:
            print(problem, file=sys.stderr)
    if not args.skip_preflight:
        _preflight(api, result)
    options = apply.ApplyOptions(
        dry_run=args.dry_run == "server",
        force=args.force_conflicts,
        set_name=args.set,
        prune=args.prune,
    )
    suffix = " (server dry run)" if options.dry_run else ""
    apply.apply(
        api,
        result.objects,
        options,
        lambda kind, item, outcome: print(
            f"{kind.lower()}/{item['metadata']['name']} {outcome.value}{suffix}"
        ),
    )
    if not args.wait or options.dry_run:
        return 0
    services = [
        (o["metadata"]["namespace"], o["metadata"]["name"])
        for o in result.objects
        if o["kind"] == "Service"
    ]
    return _wait(api, services, args.timeout)


def _preflight(api: Api, result: compiler.CompileResult) -> None:
    """Misses stop the apply; remarks are printed."""
    needs = preflight.Needs(objects=result.objects, flags=result.flags)
    misses = [check for check in preflight.run(api, needs) if check.good is False]
    if misses:
        lines = "\n".join(f"  {c.text}\n    {c.remedy}" for c in misses)
        raise errors.TurnoutError(f"this cluster is not ready for these manifests:\n{lines}")


def _wait(api: Api, services: list[wait.Key], timeout_s: float) -> int:
    show = _Live() if sys.stderr.isatty() else _Lines()
    done = wait.wait(api, services, timeout_s=timeout_s, show=show)
    failed = [p for p in done.values() if p.failed]
    for progress in failed:
        print(f"{progress.name} failed: {progress.failed}", file=sys.stderr)
        for line in progress.log:
            print(f"    {line}", file=sys.stderr)
    for progress in done.values():
        if progress.ready:
            print(f"{progress.name} ready  {progress.text}")
    return 1 if failed else 0


class _Lines:
    """A line whenever something changes."""

    def __init__(self) -> None:
        self._said: dict[wait.Key, str] = {}

    def __call__(self, progress: Mapping[wait.Key, wait.Progress]) -> None:
        for key, one in progress.items():
            text = "ready" if one.ready else one.text
            if self._said.get(key) != text:
                self._said[key] = text
                print(f"{one.name}: {text}", file=sys.stderr)


class _Live:
    """One line per Service, rewritten in place."""

    def __init__(self) -> None:
        self._height = 0

    def __call__(self, progress: Mapping[wait.Key, wait.Progress]) -> None:
        sys.stderr.write(f"\x1b[{self._height}A" if self._height else "")
        for one in progress.values():
            mark = "+" if one.ready else "x" if one.failed else "."
            text = (one.failed or one.text).replace("\n", " ")[:100]
            sys.stderr.write(f"\x1b[2K{mark} {one.name}: {text}\n")
        sys.stderr.flush()
        self._height = len(progress)
