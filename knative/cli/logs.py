"""`turnout logs`: what a local service's pods wrote."""

import argparse
import time
from pathlib import Path
from typing import Any

from knative.cli import cluster_invoke, engine_options
from knative.local import client


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = "Logs of a service's newest pod (they stay after the pod has gone)."
    parser.epilog = """examples:
  turnout logs dog-breed-classifier
  turnout logs -f dog-breed-pipeline
  turnout logs dog-breed-classifier --container storage-initializer
  turnout logs dog-breed-classifier --previous"""
    engine_options.add_engine(parser)
    parser.add_argument("name", metavar="NAME", help="service, or NAMESPACE/NAME")
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
        namespace, _, name = args.name.rpartition("/")
        return cluster_invoke.logs(args, name, namespace)
    engine = engine_options.connect(args)
    files = fetch(engine, args)
    for file in files:
        if len(files) > 1:
            print(f"==> {Path(file['path']).stem} <==")
        for line in file["lines"]:
            print(line)
    if args.follow:
        _follow(engine, args, {Path(file["path"]) for file in files})
    return 0


def fetch(engine: client.Client, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Files and their last lines, from the engine."""
    answer = engine.get(
        "logs",
        service=args.name,
        pod=args.pod,
        container=args.container,
        tail=args.tail,
        previous="1" if args.previous else "",
    )
    found: list[dict[str, Any]] = answer["files"]
    return found


def _follow(engine: client.Client, args: argparse.Namespace, shown: set[Path]) -> None:
    """Print what is appended; new pods are picked up as they come."""
    positions = {path: path.stat().st_size for path in shown if path.exists()}
    while True:
        time.sleep(0.3)
        for path in list(positions):
            positions[path] = _print_new(path, positions[path])
        for file in fetch(engine, args):
            positions.setdefault(Path(file["path"]), 0)


def _print_new(path: Path, position: int) -> int:
    try:
        with path.open("rb") as handle:
            if handle.seek(0, 2) < position:
                position = 0  # the file was rotated
            handle.seek(position)
            data = handle.read()
    except OSError:
        return position
    if data:
        print(data.decode(errors="replace"), end="", flush=True)
    return position + len(data)
