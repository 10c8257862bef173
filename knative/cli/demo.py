"""`turnout demo`: the example pipelines on real photographs, from zero."""

import argparse
import signal
import types
from pathlib import Path

EPILOG = """\
examples:
  turnout demo
  turnout demo --image my-dog.jpg        a picture of your own, after the others
  NO_COLOR=1 turnout demo > demo.txt     plain text
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Packs the example models, starts a real S3 server and the local engine on ports of the"
        " system's choice, classifies photographs, waits until everything is back at zero and"
        " stops what it started. Needs a checkout and the `demo` extra (`make demo` does it all)."
    )
    parser.epilog = EPILOG
    parser.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="send this picture to both graphs too (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    from knative.demo import screen, settings, story

    for number in _SIGNALS:
        signal.signal(number, _stop)
    chosen = settings.Settings.from_env()
    story.tell(chosen, screen.Screen(colour=chosen.colour), args.image)
    return 0


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, frame: types.FrameType | None) -> None:
    """Unwind once and stop what was started; an impatient second Ctrl-C changes nothing."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
