"""`turnout compile`: source manifests in, Knative manifests out."""

import argparse
import sys
from pathlib import Path
from typing import Any

from knative import compiler, emit, errors, features
from knative.cli import compile_options

EPILOG = """\
examples:
  turnout compile examples/dog-breed/*.yaml | kubectl apply -f -
  turnout compile examples/dog-breed/ -o build/      one file per Service, for kn service create -f
  turnout compile pets.yaml --profile stock          for a Knative without the init-container flag
  turnout compile pets.yaml --image-prefix registry.example.com/ml
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Compile KServe and Seldon manifests to plain Knative manifests."
    parser.epilog = EPILOG
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML or JSON file, directory, or -"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="write one file per object into DIR")
    parser.add_argument(
        "--format",
        choices=("yaml", "json", "kn", "kustomize"),
        default="yaml",
        help="output format (default: yaml)",
    )
    compile_options.add(parser)


def run(args: argparse.Namespace) -> int:
    """Compile and print or write; warnings go to stderr."""
    result = compiler.compile_files(args.files, compile_options.read(args))
    say(result)
    if args.output:
        for name, text in _files(args.format, result.objects).items():
            _write(Path(args.output) / name, text)
        return 0
    sys.stdout.write(_text(args.format, result.objects))
    return 0


def _files(format_: str, objects: list[dict[str, Any]]) -> dict[str, str]:
    """What goes into a directory, by format."""
    if format_ == "kustomize":
        from knative import kustomize

        return kustomize.base(objects)
    if format_ == "kn":
        return {**emit.to_files(objects), "kn.sh": _text("kn", objects)}
    if format_ == "json":
        return {
            name.removesuffix("yaml") + "json": emit.to_json([item])
            for name, item in zip(emit.to_files(objects), objects, strict=True)
        }
    return emit.to_files(objects)


def _text(format_: str, objects: list[dict[str, Any]]) -> str:
    """What goes to standard output, by format."""
    if format_ == "kustomize":
        raise errors.UsageError("--format kustomize writes several files: say where with -o DIR")
    if format_ == "kn":
        from knative import kn

        return kn.commands(objects)
    return emit.to_json(objects) if format_ == "json" else emit.to_yaml(objects)


def say(result: compiler.CompileResult) -> None:
    """Warnings and needed feature flags, to stderr."""
    for problem in result.warnings:
        print(problem, file=sys.stderr)
    if advice := features.advice(result.flags):
        print(advice, file=sys.stderr)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise errors.TurnoutError(f"cannot write {path}: {error.strerror}") from error
