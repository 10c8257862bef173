"""`turnout logs`: what a local service's pods wrote."""

import argparse
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from knative import errors
from knative.cli import cluster_invoke, engine_options
from knative.local import client

FOLLOW_S = 0.3


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Logs of a service's newest pod (they stay after the pod has gone)."
    parser.epilog = """examples:
  turnout logs dog-breed-classifier
  turnout logs -f
  turnout logs dog-breed-classifier --container storage-initializer
  turnout logs dog-breed-classifier --previous"""
    engine_options.add_engine(parser)
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="service, or NAMESPACE/NAME (default: all)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on as lines arrive")
    parser.add_argument(
        "-n", "--tail", type=int, default=200, metavar="N", help="lines (default 200)"
    )
    parser.add_argument("-c", "--container", default="", metavar="NAME", help="only this container")
    parser.add_argument("--pod", default="", metavar="NAME", help="a pod, or the end of its name")
    parser.add_argument("-p", "--previous", action="store_true", help="the pod before the newest")
    cluster_invoke.add(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 1 when there is no engine or no such service."""
    if args.cluster:
        if args.name is None:
            raise errors.UsageError("--cluster needs the NAME of a service")
        namespace, _, name = args.name.rpartition("/")
        return cluster_invoke.logs(args, name, namespace)
    engine = engine_options.connect(args)
    view = _View(args.name is None)
    for file in fetch(engine, args):
        view.show(file)
    while args.follow:
        time.sleep(FOLLOW_S)
        view.show_new()
        for file in fetch(engine, args):
            view.notice(file)
    return 0


def fetch(engine: client.Client, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Files with their last lines, of one service or of all."""
    names = [args.name] if args.name else _all_services(engine)
    found: list[dict[str, Any]] = []
    for name in names:
        answer = engine.get(
            "logs",
            service=name,
            pod=args.pod,
            container=args.container,
            tail=args.tail,
            previous="1" if args.previous else "",
        )
        found += [{**file, "service": name} for file in answer["files"]]
    return found


def _all_services(engine: client.Client) -> list[str]:
    services = engine.get("status")["services"]
    return [f"{service['namespace']}/{service['name']}" for service in services]


class _View:
    """Prints files and what is appended; lines carry their service when there are several."""

    def __init__(self, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._positions: dict[Path, int] = {}
        self._prefixes: dict[Path, str] = {}
        self._last: Path | None = None

    def show(self, file: Mapping[str, Any]) -> None:
        """The last lines of a file."""
        path = self.notice(file)
        self._positions[path] = int(file["size"])
        self._print(path, file["lines"])

    def notice(self, file: Mapping[str, Any]) -> Path:
        """Remember a file; a new one is shown from its beginning."""
        path = Path(file["path"])
        self._positions.setdefault(path, 0)
        self._prefixes[path] = f"[{file['service']}] " if self._prefixed else ""
        return path

    def show_new(self) -> None:
        """Lines that have been appended since the last look."""
        for path, position in list(self._positions.items()):
            try:
                with path.open("rb") as handle:
                    if handle.seek(0, 2) < position:
                        position = 0  # the file was rotated
                    handle.seek(position)
                    data = handle.read()
            except OSError:
                continue
            complete = data[: data.rfind(b"\n") + 1]
            self._positions[path] = position + len(complete)
            self._print(path, complete.decode(errors="replace").splitlines())

    def _print(self, path: Path, lines: Iterable[str]) -> None:
        for line in lines:
            if self._last not in (None, path) and not self._prefixed:
                print(f"==> {path.parent.name} {path.stem} <==", flush=True)
            self._last = path
            print(self._prefixes[path] + line, flush=True)
