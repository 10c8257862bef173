"""`turnout lint`: everything compile checks, plus what Knative accepts in silence and people
suffer from."""

import argparse

from knative import compiler, features, lint
from knative.api.problems import Level, Problem, listing
from knative.cli import compile_options

EPILOG = """\
examples:
  turnout lint examples/dog-breed/
  turnout lint pets.yaml --fail-on warning     for continuous integration

exit codes: 0 nothing to complain about, 1 findings at or above --fail-on, 65 errors in a manifest
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Check manifests, and what Knative would accept in silence."
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML or JSON file, directory, or -"
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning", "note"),
        default="error",
        help="lowest level that makes the command fail (default: error)",
    )
    parser.add_argument("--notes", action="store_true", help="also show notes, not only warnings")
    compile_options.add(parser)


def run(args: argparse.Namespace) -> int:
    """Compile, run the lint rules on source and output, print the findings."""
    result = compiler.compile_files(args.files, compile_options.read(args))
    found = [*result.problems, *lint.check(result)]
    shown = found if args.notes else [p for p in found if p.level is not Level.NOTE]
    if shown:
        print(listing(shown))
    if advice := features.advice(result.flags):
        print(advice)
    order = [Level.ERROR, Level.WARNING, Level.NOTE]
    failing = order[: order.index(Level(args.fail_on)) + 1]
    print(_summary(found, len(result.resources), args.notes))
    return 1 if any(p.level in failing for p in found) else 0


def _summary(found: list[Problem], manifests: int, notes_shown: bool) -> str:
    counts = [f"{sum(p.level is level for p in found)} {level.value}s" for level in Level]
    hint = "" if notes_shown or counts[-1].startswith("0 ") else " (--notes shows them)"
    return f"{manifests} manifests: {', '.join(counts)}{hint}"
