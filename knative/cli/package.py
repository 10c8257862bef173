"""`turnout package`: PyTorch models and their handlers into `.mar` archives."""

import argparse
import time
from pathlib import Path

from knative import errors, model_archive

EPILOG = """\
examples:
  turnout package examples/dog-breed --output .demo/models/dog-breed
      every model.toml below the folder; unchanged archives are left alone
  turnout package --name flowers --handler handler.py --model-file net.py --weights net.pth
      one archive from the command line
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Pack models into .mar archives with torch-model-archiver, from model.toml descriptions or"
        " from the options. Archives whose parts have not changed are not made again."
    )
    parser.epilog = EPILOG
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="model.toml files, or folders of them"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("."), metavar="DIR", help="default: here"
    )
    parser.add_argument("-f", "--force", action="store_true", help="make them again in any case")
    one = parser.add_argument_group("one archive, without a model.toml")
    one.add_argument("--name", help="the archive's and the model's name")
    one.add_argument("--version", default="1.0", help="default: 1.0")
    one.add_argument("--handler", help="a .py file, or the name of one of TorchServe's handlers")
    one.add_argument("--model-file", type=Path, metavar="FILE", help="the architecture, one class")
    one.add_argument("--weights", type=Path, metavar="FILE", help="state dict or TorchScript file")
    one.add_argument(
        "--resave-weights",
        action="store_true",
        help="save the state dict again in torch's current format, which can be memory-mapped",
    )
    one.add_argument(
        "--extra-file", type=Path, action="append", default=[], metavar="FILE", help="repeatable"
    )
    one.add_argument("--requirements", type=Path, metavar="FILE", help="requirements.txt")


def run(args: argparse.Namespace) -> int:
    archives = _from_options(args) if args.name or args.handler else _from_files(args.paths)
    started = time.monotonic()
    for built in model_archive.build(archives, args.output, force=args.force):
        size = built.path.stat().st_size / 1e6
        state = f"{time.monotonic() - started:.1f} s" if built.fresh else "unchanged"
        print(f"{built.path}  {size:.1f} MB  {state}", flush=True)
        started = time.monotonic()
    return 0


def _from_files(paths: list[Path]) -> list[model_archive.Archive]:
    if not paths:
        raise errors.UsageError("nothing to pack: give a model.toml or a folder (or --name, ...)")
    archives, problems = [], []
    for path in model_archive.find(paths):
        try:
            archives.append(model_archive.read(path))
        except errors.ManifestError as error:
            problems.append(str(error))
    if problems:
        raise errors.ManifestError("\n".join(problems))
    seen: set[str] = set()
    for archive in archives:
        if archive.name in seen:
            raise errors.ManifestError(f"two descriptions are named {archive.name!r}")
        seen.add(archive.name)
    return archives


def _from_options(args: argparse.Namespace) -> list[model_archive.Archive]:
    if args.paths:
        raise errors.UsageError("give either descriptions or --name and --handler, not both")
    if not (args.name and args.handler):
        raise errors.UsageError("--name and --handler go together")
    return [
        model_archive.check(
            model_archive.Archive(
                name=args.name,
                version=args.version,
                handler=args.handler,
                model_file=args.model_file,
                weights=args.weights,
                resave_weights=args.resave_weights,
                extra_files=tuple(args.extra_file),
                requirements=args.requirements,
            )
        )
    ]
