"""`turnout`: the command line. Parses, dispatches to one verb's module, turns errors into exit
codes.

Verbs live one per file in this package, each with `configure(parser)` and `run(args) -> int`; only
the
verb that is called gets imported, so `turnout --help` stays instant.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from knative import errors

VERBS: dict[str, tuple[str, str]] = {
    "compile": ("knative.cli.compile", "KServe / Seldon YAML in, Knative manifests out"),
    "lint": ("knative.cli.lint", "check manifests and what Knative would accept in silence"),
    "convert": ("knative.cli.convert", "SeldonDeployments to InferenceServices and graphs"),
    "apply": (
        "knative.cli.apply",
        "apply the compiled manifests to a cluster and watch them come up",
    ),
    "diff": ("knative.cli.diff", "what an apply would change"),
    "get": ("knative.cli.get", "what runs in a cluster"),
    "delete": ("knative.cli.delete", "remove from a cluster what was applied"),
    "rollout": ("knative.cli.rollout", "move a canary's traffic in a cluster, or take it back"),
    "preflight": ("knative.cli.preflight", "is a cluster fit for these manifests?"),
    "images": ("knative.cli.images", "build the container images with docker, podman or buildah"),
    "up": ("knative.cli.up", "run the compiled manifests on this machine"),
    "ps": ("knative.cli.ps", "what a local engine is running"),
    "logs": ("knative.cli.logs", "what a local service's pods wrote"),
    "events": ("knative.cli.events", "events of a local engine: recent, pending, dead; replay"),
    "scale": ("knative.cli.scale", "fix the number of replicas of a local service"),
    "restart": ("knative.cli.restart", "replace the pods of a local service"),
    "status": ("knative.cli.status", "whether a local engine and its services are well"),
    "down": ("knative.cli.down", "stop a local engine"),
    "invoke": ("knative.cli.invoke", "send a request to a graph or service"),
    "route": ("knative.cli.route", "explain which path a request takes, without calling anything"),
    "package": ("knative.cli.package", "pack a PyTorch model and its handler into a .mar archive"),
    "demo": ("knative.cli.demo", "run the example pipelines on real photographs, from zero"),
}
"""Verb -> (module, one-line help), in the order `--help` shows them."""


def make_parser() -> argparse.ArgumentParser:
    """The top-level parser; a verb's own options are added only when that verb is called."""
    parser = argparse.ArgumentParser(
        prog="turnout",
        description="Machine-learning inference graphs as plain Knative Services.",
        epilog="`turnout VERB --help` explains a verb with examples.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, text) in VERBS.items():
        verbs.add_parser(name, help=text, add_help=False)
    return parser


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 ok, 1 failed, 2 usage, 65 manifest, 75 try
    again)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in VERBS:
        make_parser().parse_args(arguments or ["--help"])
        return 2
    module = importlib.import_module(VERBS[arguments[0]][0])
    parser = argparse.ArgumentParser(
        prog=f"turnout {arguments[0]}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.configure(parser)
    try:
        return int(module.run(parser.parse_args(arguments[1:])))
    except errors.TurnoutError as error:
        print(f"turnout: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `turnout compile ... | head` is not a failure
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
