"""`turnout route`: the path that a request takes through a graph, without calling anything."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from knative import errors


def configure(parser: argparse.ArgumentParser) -> None:
    """Options and examples."""
    parser.description = (
        "Explain which path a request takes through an InferenceGraph: which steps run for "
        "sure, which may (it depends on "
        "an answer, or on chance), which do not, and why. Nothing is called."
    )
    parser.epilog = """examples:
  turnout route graph.yaml --body request.json
  turnout route graph.yaml --json '{"tier": "vip"}' --answer 'root/classify={"predictions": '
  '["dog"]}'
  turnout compile *.yaml | turnout route - --json '{}'       a compiled router Service works, too
  turnout route graph.yaml --mermaid                         the graph itself, as a flowchart

marks:  -> runs    ?> may run    x does not run"""
    parser.add_argument(
        "graph",
        metavar="FILE",
        help="InferenceGraph or compiled Service (YAML or JSON); - reads stdin",
    )
    parser.add_argument(
        "--graph", dest="name", metavar="NAME", help="which graph, when the file has several"
    )
    body = parser.add_mutually_exclusive_group()
    body.add_argument("--body", metavar="FILE", help="the request's body")
    body.add_argument("--json", metavar="TEXT", help="the request's body, given here")
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="STEP=TEXT",
        help="assume that a step (NODE/STEP, or a step's name) answers TEXT; @FILE reads a file",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--mermaid", action="store_true", help="draw the graph instead")


def run(args: argparse.Namespace) -> int:
    """0 when a path was found, 65 for a file without a usable graph."""
    from router_fn import explain, graph, plan

    spec = _select(_documents(args.graph), args.name, args.graph)
    parsed, problems = graph.read_and_check(spec, resolved=True)
    refused = [f"{path}: {message}" for level, path, message in problems if level == "error"]
    if refused:
        raise errors.ManifestError("\n".join(refused))
    if args.mermaid:
        print(explain.mermaid(parsed), end="")
        return 0
    answers = dict(_answer(text) for text in args.answer)
    path = explain.route(plan.build(parsed, lambda url, step: url), _body(args), answers)
    if args.output == "json":
        print(json.dumps([taken.to_json() for taken in path], indent=2, ensure_ascii=False))
    else:
        print(explain.render(path))
    return 0


def _documents(source: str) -> list[Any]:
    import yaml

    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageError(f"{source} cannot be read: {error}") from error
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise errors.ManifestError(f"{source}: {error}") from error


def _select(documents: list[Any], name: str | None, source: str) -> Any:
    """The spec of the one graph that is meant."""
    found: dict[str, Any] = {}
    for document in documents:
        if not isinstance(document, dict):
            continue
        label = str((document.get("metadata") or {}).get("name") or "graph")
        if document.get("kind") == "InferenceGraph":
            found[label] = document.get("spec")
        elif "nodes" in document:
            found["graph"] = document
        elif (text := _graph_json(document)) is not None:
            found[label] = json.loads(text)
    if name is not None:
        if name not in found:
            raise errors.UsageError(
                f"{source} has no graph {name!r}; it has {', '.join(found) or 'none'}"
            )
        return found[name]
    if len(found) != 1:
        hint = (
            f"several graphs ({', '.join(found)}): choose one with --graph NAME"
            if found
            else "no InferenceGraph"
        )
        raise errors.ManifestError(f"{source} has {hint}")
    return next(iter(found.values()))


def _graph_json(document: dict[str, Any]) -> str | None:
    """The GRAPH_JSON of a compiled router Service."""
    try:
        containers = document["spec"]["template"]["spec"]["containers"]
        env = [entry for container in containers for entry in container.get("env") or ()]
    except (KeyError, TypeError):
        return None
    return next((entry["value"] for entry in env if entry.get("name") == "GRAPH_JSON"), None)


def _answer(text: str) -> tuple[str, bytes]:
    step, separator, answer = text.partition("=")
    if not separator:
        raise errors.UsageError(f"--answer {text!r}: write it as STEP=TEXT")
    return step, _read(answer[1:]) if answer.startswith("@") else answer.encode()


def _body(args: argparse.Namespace) -> bytes:
    if args.body is not None:
        return _read(args.body)
    return str(args.json).encode() if args.json is not None else b""


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise errors.UsageError(f"{path} cannot be read: {error.strerror}") from error
