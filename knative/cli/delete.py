"""`turnout delete`: remove from a cluster what was applied."""

import argparse
from typing import Any

from knative import compiler, errors
from knative.cli import cluster_options, compile_options
from knative.cluster import apply, remove

EPILOG = """\
examples:
  turnout delete examples/dog-breed/ --wait
  turnout delete --set pets
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Delete the compiled objects of manifests, or everything of a set."
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="YAML or JSON file, directory, or -"
    )
    parser.add_argument("--set", default="", metavar="NAME", help="everything of this set")
    parser.add_argument("--dry-run", choices=("server", "none"), default="none")
    parser.add_argument("--wait", action="store_true", help="until objects and pods are gone")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="of --wait")
    cluster_options.add(parser, namespace=False)
    compile_options.add(parser, namespace="")


def run(args: argparse.Namespace) -> int:
    """0, also when there was nothing to delete."""
    if bool(args.files) == bool(args.set):
        raise errors.UsageError("say what to delete: files, or --set NAME")
    api = cluster_options.connect(args)
    args.namespace = args.namespace or api.namespace
    if args.set:
        objects = list(reversed(apply.of_set(api, args.namespace, args.set)))
    else:
        objects = compiler.compile_files(args.files, compile_options.read(args)).objects
    dry = args.dry_run == "server"
    suffix = " (server dry run)" if dry else ""

    def say(item: dict[str, Any], found: bool) -> None:
        outcome = "deleted" if found else "was not there"
        print(f"{item['kind'].lower()}/{item['metadata']['name']} {outcome}{suffix}")

    gone = remove.delete(api, objects, dry_run=dry, say=say)
    if args.wait and not dry:
        remove.wait_gone(api, gone, timeout_s=args.timeout)
    return 0
