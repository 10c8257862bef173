"""`turnout diff`: what an apply would change."""

import argparse

from knative import compiler
from knative.cli import cluster_options, compile_options
from knative.cluster import apply, diff

EPILOG = """\
examples:
  turnout diff examples/dog-breed/

exit codes: 0 nothing would change, 1 something would
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Compare compiled manifests with the cluster (the server's own dry run)."
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML or JSON file, directory, or -"
    )
    parser.add_argument("--set", default="", metavar="NAME", help="the set they were applied as")
    cluster_options.add(parser, namespace=False)
    compile_options.add(parser, namespace="")


def run(args: argparse.Namespace) -> int:
    """Print a unified diff."""
    api = cluster_options.connect(args)
    args.namespace = args.namespace or api.namespace
    result = compiler.compile_files(args.files, compile_options.read(args))
    changed = False
    wanted = [apply.labelled(item, args.set) for item in result.objects]
    for line in diff.diff(api, wanted):
        changed = True
        print(line)
    return 1 if changed else 0
