"""`python -m events adapter|sqs|sink`: settings, logging, run, exit code."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from functions.wire import container

from . import settings
from .errors import SpecError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 drained after SIGTERM, 1 failed, 2 bad configuration (every problem on
    stderr)."""
    arguments = _parser().parse_args(argv)
    try:
        return _RUN[arguments.program](arguments)
    except (settings.BadSettings, SpecError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"events {arguments.program}: {line}\n")
        return container.EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m events", description=__doc__)
    programs = parser.add_subparsers(dest="program", required=True)
    programs.add_parser("adapter", help="storage notifications over HTTP -> CloudEvents to K_SINK")
    programs.add_parser("sqs", help="storage notifications from SQS -> CloudEvents to K_SINK")
    sink = programs.add_parser("sink", help="CloudEvents -> graph -> result and reply")
    given = sink.add_mutually_exclusive_group()
    given.add_argument(
        "--spec-file", help="the specification, a JSON file (default: env SINK_SPEC)"
    )
    given.add_argument("--spec-json", help="the specification itself")
    sink.add_argument("--check", action="store_true", help="validate the specification and exit")
    return parser


def _log(unit: str, level: str) -> None:
    container.configure_logging(unit, level=level)
    for name in ("botocore", "urllib3"):  # their INFO is about themselves
        logging.getLogger(name).setLevel(logging.WARNING)


def _run_adapter(arguments: argparse.Namespace) -> int:
    given = settings.AdapterSettings.from_env()
    _log("events-adapter", given.server.log_level)
    from . import adapter_app, server

    return server.run(given.server, lambda: adapter_app.make_front(given), given.max_body_bytes)


def _run_sqs(arguments: argparse.Namespace) -> int:
    given = settings.SqsSettings.from_env()
    _log("events-sqs", given.server.log_level)
    from . import sqs

    return sqs.run(given)


def _run_sink(arguments: argparse.Namespace) -> int:
    text: str | None = arguments.spec_json
    if arguments.spec_file:
        try:
            text = Path(arguments.spec_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise settings.BadSettings(f"--spec-file {arguments.spec_file}: {error}") from error
    given = settings.SinkSettings.from_env(spec_text=text)
    from . import spec

    spec.parse(given.spec)
    if arguments.check:
        return container.EXIT_OK
    _log("events-sink", given.server.log_level)
    from . import server, sink_app

    most = sink_app.most_bytes(given.max_body_bytes)
    return server.run(given.server, lambda: sink_app.make_front(given), most)


_RUN = {"adapter": _run_adapter, "sqs": _run_sqs, "sink": _run_sink}

if __name__ == "__main__":
    sys.exit(main())
