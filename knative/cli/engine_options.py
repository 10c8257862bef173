"""Options that the local engine's verbs share: which engine, and what `up` may be told."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from knative import errors
from knative.local import client, images, launch, quantities, scaling, settings

_T = TypeVar("_T")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--port and --state-dir: which engine."""
    parser.add_argument("--port", type=int, metavar="N", help="the engine's port (default 8080)")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="the engine's state directory"
    )


def connect(args: argparse.Namespace) -> client.Client:
    """The engine that the options name."""
    return client.Client(args.port, args.state_dir)


def add_up(parser: argparse.ArgumentParser) -> None:
    """Everything `up` takes apart from files."""
    add = parser.add_argument
    add("--port", type=int, default=8080, metavar="N", help="port of the gateway (0: any free one)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address of the gateway")
    add("--state-dir", type=Path, metavar="DIR", help="logs, volumes, events (.turnout/PORT)")
    add(
        "--mirror",
        action="append",
        default=[],
        metavar="FROM=TO",
        help="fetch models whose URI begins with FROM from TO instead (a URI prefix or directory)",
    )
    add(
        "--map",
        action="append",
        default=[],
        metavar="IMAGE=COMMAND",
        help="how to run an image that has no command in its manifest",
    )
    add(
        "--claim",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="directory behind a persistent volume claim",
    )
    add(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="variable for every container",
    )
    add("--root", type=Path, default=Path(), metavar="DIR", help="working directory of containers")
    add(
        "--window",
        metavar="TIME",
        help="autoscaler window for all services, at least 6s (default: the manifest's, else 60s)",
    )
    add(
        "--grace",
        metavar="TIME",
        help="scale-to-zero grace period (default 30s, or the window if that is shorter)",
    )
    add("--prove", action="store_true", help="start every service once, as Knative does on deploy")
    add(
        "--container-engine",
        choices=images.ENGINES,
        default="",
        help="run images that have no local command with docker or podman",
    )
    add("--stop-grace", default="10s", metavar="TIME", help="patience at Ctrl-C (default 10s)")


def up_settings(args: argparse.Namespace) -> settings.EngineSettings:
    """Raises UsageError naming the option that makes no sense."""
    window = _duration("--window", args.window) if args.window else None
    if window is not None and not 6 <= window <= 3600:
        raise errors.UsageError("--window must be between 6s and 1h, as Knative's")
    grace = _duration("--grace", args.grace) if args.grace else min(30.0, window or 30.0)
    pairs = {name: _pairs(f"--{name}", getattr(args, name)) for name in ("map", "claim", "env")}
    for item in args.mirror:
        _pair("--mirror", item)
    return settings.EngineSettings(
        port=args.port,
        host=args.host,
        state_dir=args.state_dir or Path(".turnout") / str(args.port),
        root=args.root,
        mirrors=tuple(absolute_mirror(item) for item in args.mirror),
        claims={name: Path(value) for name, value in pairs["claim"].items()},
        commands={
            name: _checked("--map", functools.partial(launch.split_command, value))
            for name, value in pairs["map"].items()
        },
        extra_env=pairs["env"],
        defaults=scaling.Defaults(
            override_window_s=window,
            scale_to_zero_grace_s=grace,
            initial_scale=1 if args.prove else 0,
        ),
        environ=settings.process_environ(),
        container_engine=args.container_engine,
        stop_grace_s=_duration("--stop-grace", args.stop_grace),
    )


def absolute_mirror(item: str) -> str:
    """`FROM=./dir` -> `FROM=file:///abs/dir/`; a TO with a scheme stays as it is."""
    source, target = _pair("--mirror", item)
    if "://" in target:
        return item
    directory = Path(target).resolve()
    if not directory.is_dir():
        raise errors.UsageError(f"--mirror {item}: {directory} is not a directory")
    slash = "/" if source.endswith("/") else ""
    return f"{source}=file://{directory}{slash}"


def _pair(option: str, item: str) -> tuple[str, str]:
    name, separator, value = item.partition("=")
    if not separator or not name or not value:
        raise errors.UsageError(f"{option} {item}: write it as NAME=VALUE")
    return name, value


def _pairs(option: str, items: list[str]) -> dict[str, str]:
    return dict(_pair(option, item) for item in items)


def _duration(option: str, text: str) -> float:
    return _checked(option, lambda: quantities.parse_duration(text))


def _checked(option: str, parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except ValueError as error:
        raise errors.UsageError(f"{option}: {error}") from None
