"""`turnout scale`: fix the number of replicas of a local service."""

import argparse

from knative import errors
from knative.cli import engine_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Fix a service's replicas, or give them back to the autoscaler."
    parser.epilog = """examples:
  turnout scale dog-breed-classifier=2
  turnout scale dog-breed-classifier=0
  turnout scale dog-breed-classifier=auto"""
    engine_options.add_engine(parser)
    parser.add_argument("services", nargs="+", metavar="NAME=N", help="N is a number, or auto")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when there is no such service."""
    wanted = [parse(item) for item in args.services]
    engine = engine_options.connect(args)
    for name, replicas in wanted:
        answer = engine.post("scale", service=name, replicas=replicas)
        how = "automatic" if replicas is None else f"{answer['desired']} replicas"
        print(f"{answer['service']}: {how}")
    return 0


def parse(item: str) -> tuple[str, int | None]:
    """`NAME=2` -> (NAME, 2); `NAME=auto` -> (NAME, None)."""
    name, separator, text = item.partition("=")
    if separator and name and text == "auto":
        return name, None
    if not (separator and name and text.isdigit()):
        raise errors.UsageError(f"{item}: write NAME=N with a number, or NAME=auto")
    return name, int(text)
