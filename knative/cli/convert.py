"""`turnout convert`: SeldonDeployments to KServe's InferenceServices and InferenceGraphs."""

import argparse
import sys

from knative import compiler, emit, errors
from knative.api.problems import Level, Problem, listing
from knative.cli import compile_options
from knative.translate import seldon

EPILOG = """\
examples:
  turnout convert seldon.yaml > kserve.yaml            what has no equivalent is said on stderr
  turnout convert seldon.yaml --fail-on warning        for continuous integration
  turnout convert seldon.yaml | turnout compile -      the result compiles like any manifest

Nothing has to be converted: `turnout compile` takes SeldonDeployments as they are, and their
clients keep Seldon's API. Convert to leave that API.
exit codes: 0 converted, 1 findings at --fail-on, 65 errors in a manifest or nothing left of one
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Translate SeldonDeployments to InferenceServices and InferenceGraphs."
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML or JSON file, directory, or -"
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning"),
        default="error",
        help="lowest level of finding that makes the command fail (default: error)",
    )
    compile_options.add(parser)


def run(args: argparse.Namespace) -> int:
    """Print the converted manifests; the report goes to stderr."""
    options = compile_options.read(args)
    checked = compiler.compile_files(args.files, options)
    deployments = [r for r in checked.resources if r.kind == "SeldonDeployment"]
    if not deployments:
        raise errors.ManifestError("there is no SeldonDeployment in the input")
    objects = []
    found: list[Problem] = []
    for deployment in deployments:
        converted = seldon.convert(deployment, options)
        objects += converted.objects
        found += converted.problems
    if any(p.level is Level.ERROR for p in found):
        raise errors.ManifestError(found)
    if found:
        print(listing(found), file=sys.stderr)
    others = len(checked.resources) - len(deployments)
    print(
        f"{len(deployments)} SeldonDeployments: {len(objects)} manifests, {len(found)} findings"
        + (f"; {others} other manifests are not repeated" if others else ""),
        file=sys.stderr,
    )
    sys.stdout.write(emit.to_yaml(objects))
    return 1 if found and args.fail_on == "warning" else 0
