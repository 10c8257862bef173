"""`turnout invoke`: send a request to a graph or service of a local engine."""

import argparse
import base64
import json
import sys
import time
from pathlib import Path

from knative import errors
from knative.cli import cluster_invoke, engine_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = (
        "Send a request to a graph or service and print status, latency and answer. "
        "Waits for a cold start."
    )
    parser.epilog = """examples:
  turnout invoke dog-breed-pipeline --image cat.jpg
  turnout invoke digits --json '{"instances": [[0, 1, 2]]}'
  turnout invoke digits -d @body.json --path /v1/models/digits:predict"""
    engine_options.add_engine(parser)
    parser.add_argument("name", metavar="NAME", help="service or graph: NAME, NAME.NS or NS/NAME")
    body = parser.add_mutually_exclusive_group()
    body.add_argument(
        "--image",
        action="append",
        type=Path,
        metavar="FILE",
        help='a picture; becomes {"instances": [{"data": base64}]}',
    )
    body.add_argument("--json", metavar="TEXT", help="a JSON body")
    body.add_argument("-d", "--data", metavar="TEXT", help="a body as it is; @FILE reads a file")
    parser.add_argument(
        "--path", metavar="PATH", help="default: / for a graph, /v1/models/NAME:predict for a model"
    )
    parser.add_argument("-H", "--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("-X", "--method", default=None, metavar="METHOD")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("-o", "--raw", action="store_true", help="only the body, as it came")
    cluster_invoke.add(parser)
    cluster_invoke.add_ways(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the answer was 2xx; 1 otherwise."""
    if args.cluster:
        return _in_cluster(args)
    engine = engine_options.connect(args)
    name, namespace = split_name(args.name)
    body = make_body(args)
    headers = {"Host": f"{name}.{namespace}.svc.cluster.local"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    for line in args.header:
        key, separator, value = line.partition(":")
        if not separator:
            raise errors.UsageError(f"--header {line!r}: write it as 'Name: value'")
        headers[key.strip()] = value.strip()
    path = args.path or default_path(engine.get("status"), name, namespace, body is not None)
    started = time.monotonic()
    method = args.method or ("POST" if body is not None else "GET")
    answer = engine.request(method, path, headers, body, timeout_s=args.timeout)
    took_ms = (time.monotonic() - started) * 1000
    if args.raw:
        sys.stdout.buffer.write(answer.body)
        return 0 if answer.status < 300 else 1
    print(f"HTTP {answer.status}  {took_ms:.0f} ms  {method} {path}", file=sys.stderr)
    print(pretty(answer.body))
    return 0 if answer.status < 300 else 1


def _in_cluster(args: argparse.Namespace) -> int:
    """The same request to a Service of a cluster."""
    name, namespace = split_name(args.name)
    given = namespace if set("/.") & set(args.name) else ""
    body = make_body(args)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    for line in args.header:
        key, separator, value = line.partition(":")
        if not separator:
            raise errors.UsageError(f"--header {line!r}: write it as 'Name: value'")
        headers[key.strip()] = value.strip()
    answer, what, took_ms = cluster_invoke.request(args, name, given, body, headers)
    if args.raw:
        sys.stdout.buffer.write(answer.body)
    else:
        print(f"HTTP {answer.status}  {took_ms:.0f} ms  {what}", file=sys.stderr)
        print(pretty(answer.body))
    return 0 if answer.status < 300 else 1


def split_name(text: str) -> tuple[str, str]:
    """`NAME`, `NAME.NS` or `NS/NAME` -> (name, namespace)."""
    if "/" in text:
        namespace, _, name = text.partition("/")
        return name, namespace
    name, _, namespace = text.partition(".")
    return name, namespace.partition(".")[0] or "default"


def make_body(args: argparse.Namespace) -> bytes | None:
    """The request body the options ask for; None for a GET."""
    if args.image:
        instances = [{"data": base64.b64encode(_read(file)).decode()} for file in args.image]
        return json.dumps({"instances": instances}).encode()
    if args.json is not None:
        try:
            json.loads(args.json)
        except ValueError as error:
            raise errors.UsageError(f"--json: {error}") from None
        return str(args.json).encode()
    if args.data is None:
        return None
    if args.data == "@-":
        return sys.stdin.buffer.read()
    if args.data.startswith("@"):
        return _read(Path(args.data[1:]))
    return str(args.data).encode()


def default_path(status: object, name: str, namespace: str, has_body: bool) -> str:
    """Where requests of a service usually go: a model server has a V1 predict path, a graph has
    /."""
    if isinstance(status, dict) and has_body:
        for service in status["services"]:
            if (service["name"], service["namespace"]) == (name, namespace):
                labels = service["labels"]
                if "serving.kserve.io/inferenceservice" in labels and not service["graph"]:
                    return f"/v1/models/{labels['serving.kserve.io/inferenceservice']}:predict"
    return "/"


def pretty(body: bytes) -> str:
    """JSON indented, anything else as text."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body.decode(errors="replace").rstrip("\n")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise errors.UsageError(f"cannot read {file}: {error.strerror}") from None
