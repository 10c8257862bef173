"""`turnout up`: run manifests on this machine, from zero, until Ctrl-C."""

import argparse
import contextlib
import sys
from pathlib import Path

from knative import errors
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
    add = parser.add_argument
    add("-n", "--namespace", default="default", help="for manifests that name none")
    add("-d", "--detach", action="store_true", help="return when ready; stop with `turnout down`")
    add("--watch", action="store_true", help="recompile and roll when manifests or code change")
    add("-q", "--quiet", action="store_true", help="only services and `ready`")


def run(args: argparse.Namespace) -> int:
    """0 stopped on request; 65 bad manifests; 75 port or state directory in use."""
    from knative.local import foreground
    from knative.options import CompileOptions

    settings = engine_options.up_settings(args)
    given = foreground.Input(paths=args.files, options=CompileOptions(namespace=args.namespace))
    if args.detach:
        return _detach(args, settings.state_dir / "up.log")
    ready = False

    def say(line: str) -> None:
        nonlocal ready
        if not (ready and args.quiet):
            with contextlib.suppress(BrokenPipeError):  # `up | head`: the reader may go, we stay
                print(line, flush=True)
        ready = ready or line == "ready"

    def warn(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return foreground.run(given, settings, say, warn, watch=args.watch)


def _detach(args: argparse.Namespace, log: Path) -> int:
    """Start the same command without -d in the background."""
    from knative.local import background

    if args.port == 0 and args.state_dir is None:
        raise errors.UsageError(
            "--detach with --port 0 needs --state-dir, to find the engine again"
        )
    words = [word for word in sys.argv[1:] if word not in ("-d", "--detach")]
    for line in background.start(words, log):
        print(line)
    return 0
