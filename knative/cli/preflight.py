"""`turnout preflight`: is this cluster fit for these manifests?"""

import argparse

from knative import compiler
from knative.cli import cluster_options, compile_options
from knative.cluster import preflight

EPILOG = """\
examples:
  turnout preflight
  turnout preflight examples/dog-breed/

exit codes: 0 fit, 1 something is missing
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = (
        "Check a cluster: Knative, its version and flags, permissions, what pods refer to."
    )
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="manifests to check the cluster for"
    )
    parser.add_argument(
        "--check-images", action="store_true", help="also ask the registries for every image"
    )
    cluster_options.add(parser, namespace=False)
    compile_options.add(parser, namespace="")


def run(args: argparse.Namespace) -> int:
    """Print one line per check, misses with their remedy."""
    api = cluster_options.connect(args)
    args.namespace = args.namespace or api.namespace
    needs = preflight.Needs()
    if args.files:
        result = compiler.compile_files(args.files, compile_options.read(args))
        needs = preflight.Needs(objects=result.objects, flags=result.flags)
    checks = preflight.run(api, needs)
    if args.check_images:
        checks += preflight.pullable(needs)
    for check in checks:
        mark = {True: "ok  ", False: "MISS", None: "note"}[check.good]
        print(f"{mark}  {check.text}")
        if check.remedy and check.good is not True:
            print(f"      {check.remedy}")
    return 1 if any(check.good is False for check in checks) else 0
