"""`turnout up`: run manifests on this machine, from zero, until Ctrl-C."""

import argparse
import sys

from knative.cli import engine_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = (
        "Compile manifests and run them here: every service is a host name on one port, starts "
        "with its first request, and stops when it has been idle for its window."
    )
    parser.epilog = """examples:
  turnout up examples/dog-breed/*.yaml --mirror s3://turnout-examples/=.demo/models/
  turnout up graph.yaml --port 9000 --window 6s
  turnout up compiled.yaml --map my/model:v1='python -m my_model'
  curl -H 'Host: NAME.default.example.com' http://127.0.0.1:8080/ -d @request.json"""
    parser.add_argument("files", nargs="+", metavar="FILE", help="manifests, or - for stdin")
    engine_options.add_up(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only services and `ready`")


def run(args: argparse.Namespace) -> int:
    """0 stopped on request; 65 bad manifests; 75 port or state directory in use."""
    from knative.local import foreground
    from knative.options import CompileOptions

    settings = engine_options.up_settings(args)
    given = foreground.Input(paths=args.files, options=CompileOptions())

    def say(line: str) -> None:
        print(line, flush=True)

    def warn(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return foreground.run(given, settings, say, warn)
