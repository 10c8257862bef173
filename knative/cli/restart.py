"""`turnout restart`: replace the pods of a local service."""

import argparse

from knative.cli import engine_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Replace a service's pods by new ones; requests wait or go on meanwhile."
    parser.epilog = """examples:
  turnout restart dog-breed-classifier"""
    engine_options.add_engine(parser)
    parser.add_argument("names", nargs="+", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when there is no such service."""
    engine = engine_options.connect(args)
    for name in args.names:
        answer = engine.post("restart", service=name)
        print(f"{answer['service']}: {answer['pods']} pods restarted")
    return 0
